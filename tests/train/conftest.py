"""Small data, a small config, and one compilation of the small model for all tests that train."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
_spec = importlib.util.spec_from_file_location("rt2_jax_tests_prepared", HERE / "prepared.py")
prepared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(prepared)

# Trains, and sends itself the signal when the metrics of step `stop_at` have been written.
CHILD = """
import json, os, signal, sys
from rt2_jax.train import loop
from rt2_jax.train.config import make_config
from rt2_jax.train.metrics import MetricsLog

fields, workdir, stop_at, how = json.loads(sys.argv[1])
write = MetricsLog.write

def stopping(self, step, split, metrics):
    write(self, step, split, metrics)
    if step == stop_at:
        os.kill(os.getpid(), getattr(signal, how))

MetricsLog.write = stopping
sys.exit(loop.train(make_config(fields), workdir))
"""


@pytest.fixture(scope="session", name="prepared")
def prepared_module():
    """The module `prepared.py`, for data of a test's own."""
    return prepared


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder with both tasks prepared."""
    path = tmp_path_factory.mktemp("prepared")
    for seed, task in enumerate(prepared.TASKS):
        prepared.write_split(path, task, "train", 40, seed)
        prepared.write_split(path, task, "validation", 10, 100 + seed)
    return path


@pytest.fixture(scope="session")
def small_fields(data_dir):
    """The fields of a small run over `data_dir`."""
    return {**prepared.FIELDS, "data_dir": str(data_dir)}


@pytest.fixture(scope="session")
def child_script():
    """Python that trains by ``sys.argv[1]`` = JSON of (fields, workdir, stop_at, signal name); see `CHILD`."""
    return CHILD


@pytest.fixture(scope="session")
def run_child():
    """run(fields, workdir, stop_at, signal name) -> CompletedProcess of a run in a process of its own."""

    def run(fields, workdir, stop_at, how):
        command = [sys.executable, "-c", CHILD, json.dumps([fields, str(workdir), stop_at, how])]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    return run
