"""A server in a process of its own, with the policy of conftest.py: served.py PORT SECONDS_A_BATCH.

SIGHUP brings another bundle, or where RT2_TEST_BUNDLE is "bad" one that does not load.
"""

import asyncio
import importlib.util
import os
import pathlib
import sys
import time

from rt2_jax.errors import UserError
from rt2_jax.serve.auth import Keys
from rt2_jax.serve.batcher import BatcherLimits
from rt2_jax.serve.limits import Limits
from rt2_jax.serve.run import ServeOptions, serve_until_stopped
from rt2_jax.serve.structured_log import log_as_json

spec = importlib.util.spec_from_file_location("kit", pathlib.Path(__file__).with_name("conftest.py"))
assert spec and spec.loader
kit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kit)


def load(path):
    if os.environ.get("RT2_TEST_BUNDLE") == "bad":
        raise UserError(f"{path}: params/d has other bytes than were written; copy or export it again")
    time.sleep(0.3)
    return kit.serving(kit.TagPolicy(before=lambda size: time.sleep(seconds)), identity="b" * 64)


port, seconds = int(sys.argv[1]), float(sys.argv[2])
policy = kit.TagPolicy(before=lambda size: time.sleep(seconds))
limits = Limits(rate=None, deadline=5.0, batcher=BatcherLimits(window=0.0, max_batch=4))
log_as_json("info")
options = ServeOptions(pathlib.Path("bundle"), port=port, limits=limits)
asyncio.run(serve_until_stopped(options, kit.serving(policy), load, Keys(), None))
