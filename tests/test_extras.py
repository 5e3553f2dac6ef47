"""Each extra is needed by what it is for, and by nothing else; what needs one that is not there says so in a line."""

import subprocess
import sys

import pytest

SIM = ("mujoco", "gymnasium")
DATA = ("tensorflow", "tensorflow_datasets", "seqio")
CONVERT = ("einops", "safetensors")
SERVE = ("aiohttp", "prometheus_client", "websockets")
CORE_MODULES = ("train.loop", "policy.load", "bundle.store", "data.reader", "report.run", "cli.command_line")
DATA_MODULES = ("datasets.prepare", "datasets.tasks", "datasets.tabletop.tasks")


def run_without(packages, code):
    """Runs Python where importing one of `packages` fails, as where it is not installed; (code, out, err)."""
    block = f"""
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
    done = subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("absent", "modules"), [(SIM, DATA_MODULES), (SIM + DATA + CONVERT + SERVE, CORE_MODULES)], ids=["data", "core"]
)
def test_what_an_extra_is_not_for_imports_without_it(absent, modules):
    code, _, errors = run_without(absent, "".join(f"importlib.import_module('rt2_jax.{name}')\n" for name in modules))
    assert code == 0, errors


def test_a_verb_whose_extra_is_not_installed_names_it(tmp_path):
    given = {
        f"data build --data {tmp_path}/data": "this needs tensorflow, which is not installed; [data]",
        f"data prepare --data {tmp_path}/data": "this needs seqio, which is not installed; [data]",
        f"data vocabulary --out {tmp_path}/words.model": "this needs mujoco, which is not installed; [sim]",
        f"convert --size tiny --model . --out {tmp_path}/out": "other formats need the package einops; [convert]",
        f"serve --bundle {tmp_path}": "this needs aiohttp, which is not installed; [serve]",
    }
    calls = f"codes = [main(words.split()) for words in {[*given]}]"
    extras = SIM + DATA + CONVERT + SERVE
    code, printed, errors = run_without(extras, f"from rt2_jax.cli import main\n{calls}\nprint(codes)")
    assert (code, printed) == (0, "[2, 2, 2, 2, 2]\n"), errors
    told = [line.replace("[", "pip install 'rt2_jax[") + "'" for line in given.values()]
    assert errors.splitlines() == [f"rt2: error: {line}" for line in told]
