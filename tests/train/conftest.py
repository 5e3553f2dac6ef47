"""Small data, a small config, and one compilation of the small model for all tests that train."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
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


@pytest.fixture(scope="session")
def compile_cache(tmp_path_factory):
    """Programs compiled once serve every test and every child process."""
    path = tmp_path_factory.mktemp("compiled")
    wanted = {
        "jax_compilation_cache_dir": str(path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    for name, value in wanted.items():
        jax.config.update(name, value)
    yield path
    for name, value in before.items():
        jax.config.update(name, value)


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
def small_fields(data_dir, compile_cache):
    """The fields of a small run over `data_dir`."""
    return {**prepared.FIELDS, "data_dir": str(data_dir)}


@pytest.fixture(scope="session")
def child_environment(compile_cache):
    """The environment of a run in a process of its own: it shares what was compiled."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(compile_cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@pytest.fixture(scope="session")
def child_script():
    """Python that trains by ``sys.argv[1]`` = JSON of (fields, workdir, stop_at, signal name); see `CHILD`."""
    return CHILD


@pytest.fixture(scope="session")
def run_child(child_environment):
    """run(fields, workdir, stop_at, signal name) -> CompletedProcess of a run in a process of its own."""

    def run(fields, workdir, stop_at, how):
        command = [sys.executable, "-c", CHILD, json.dumps([fields, str(workdir), stop_at, how])]
        return subprocess.run(command, capture_output=True, text=True, env=child_environment, timeout=300)

    return run
