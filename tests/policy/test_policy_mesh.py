"""A policy whose weights lie over four devices says what it says on one; in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BUNDLES = ROOT / "data" / "checkpoints"

SCRIPT = """
import json, pathlib, sys
import jax, numpy as np
from rt2_jax import load_policy
from rt2_jax.inputs.images import decode_image
from rt2_jax.parallel import make_mesh

folder, fixtures = map(pathlib.Path, sys.argv[1:])
recorded = json.loads((fixtures / "shipped_tokens.json").read_text())
strip = decode_image((fixtures / "shipped_frames.png").read_bytes())
frames = np.stack(np.split(strip, len(recorded["instructions"]), axis=1))
policy = load_policy(folder, mesh=make_mesh({"fsdp": 2, "tensor": 2}))
leaves = jax.tree.leaves(policy.params)
whole = sum(leaf.nbytes for leaf in leaves)
held = [sum(leaf.addressable_shards[place].data.nbytes for leaf in leaves) / whole for place in range(4)]
said = {mode: policy.act(frames, recorded["instructions"], mode=mode).text for mode in ("action", "plan")}
one = policy.act(frames[:1], recorded["instructions"][:1])
print(json.dumps({"said": said, "held": held, "one": one.text, "devices": len(jax.devices())}))
"""


@pytest.mark.parametrize("name", ["tabletop_rt2", "tabletop_palm_e"])
def test_tokens_are_those_of_one_device(name):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(BUNDLES / name), str(ROOT / "tests" / "fixtures")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    recorded = json.loads((ROOT / "tests" / "fixtures" / "shipped_tokens.json").read_text())
    assert told["devices"] == 4
    assert told["said"] == {mode: recorded[name][mode] for mode in ("action", "plan")}
    assert told["one"] == recorded[name]["action"][:1]
    assert max(told["held"]) < 0.4  # of the weights, on each device
