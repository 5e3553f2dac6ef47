"""What every test shares: one hypothesis profile, patient with slow machines, JAX on the CPU, and compiled programs."""

import importlib.util
import os
import pathlib
import tempfile

import hypothesis
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What one process compiles serves all: the workers, another pytest that this one starts, commands that tests run.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.TemporaryDirectory(prefix="rt2-tests-compiled-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
os.environ |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
hypothesis.settings.register_profile(
    "rt2", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=True
)
hypothesis.settings.load_profile("rt2")


def _module(name):
    """A module beside this file; --import-mode=importlib puts no folder on the path."""
    path = pathlib.Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"rt2_jax_tests_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_configure(config):
    """TensorFlow and the renderer run in processes of their own, see `apart.py`."""
    if plugin := _module("apart").plugin(config):
        config.pluginmanager.register(plugin, "rt2-apart")


@pytest.fixture(scope="session")
def foreign():
    """The module `foreign.py`: small models in the look of public ones."""
    return _module("foreign")


@pytest.fixture(scope="session")
def fakes():
    """The module `fakes.py`: reports, films and policies made without a model."""
    return _module("fakes")


@pytest.fixture
def report(fakes):
    """A report as `rt2 eval` makes it."""
    return fakes.make_report()
