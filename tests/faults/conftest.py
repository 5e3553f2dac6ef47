"""What the fault suite attacks: one small artefact of every kind, made once, and a count of what was tried and held.

``make test`` runs a sample of every attack; ``make test-faults`` (RT2_FAULTS=full) runs all of them and prints the
table of docs/reliability.md.
"""

import atexit
import collections
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

FULL = os.environ.get("RT2_FAULTS") == "full"
SIZE = 32
# A tower without a convolutional stem and a T5: every format can hold them.
MODEL = {
    "size": "tiny",
    "image_size": SIZE,
    "scan_unroll": False,
    "vision": {"width": 16, "layers": 1, "heads": 2, "head_dim": 8, "mlp": 32, "patch_size": 16, "stem_widths": ()},
    "text": {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "head_dim": 8, "mlp": 32},
}
TASKS = {"tabletop_robot_action": 1.0, "tabletop_web_locate": 1.0}
FIELDS = {
    "mixture": TASKS,
    "model": MODEL,
    "steps": 4,
    "batch_size": 4,
    "prompt_len": 64,
    "target_len": 24,
    "log_every": 1,
    "eval_every": 3,
    "eval_batches": 1,
    "checkpoint_every": 2,
    "optimizer": {"name": "adamw", "learning_rate": 1e-3, "warmup_steps": 1},
}
BUILD = ("--robot-episodes", "2", "--web-images", "4", "--image-size", str(SIZE), "--workers", "1")

_spec = importlib.util.spec_from_file_location("rt2_jax_tests_writers", pathlib.Path(__file__).with_name("writers.py"))
writers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writers)

# Where every process of the run notes what it tried, a JSON line each.
NOTES = "RT2_FAULTS_NOTES"


def pytest_configure(config):
    """The first process makes the file; those that share the tests with it inherit its name."""
    if NOTES not in os.environ:
        handle, os.environ[NOTES] = tempfile.mkstemp(prefix="rt2-faults-", suffix=".jsonl")
        os.close(handle)
        atexit.register(os.unlink, os.environ[NOTES])


@pytest.fixture(scope="session")
def scale():
    """scale(quick, full): how many of an attack this run makes."""
    return lambda quick, full: full if FULL else quick


@pytest.fixture(scope="session")
def tally():
    """tally(attack, on, held): counts one attempt, and whether nothing was lost or believed."""

    def count(attack, on, held):
        with open(os.environ[NOTES], "a", encoding="utf-8") as file:
            file.write(json.dumps([attack, on, bool(held)]) + "\n")

    return count


def table():
    """The Markdown rows of what was tried and what held, an attack's rows together."""
    counts = collections.defaultdict(lambda: [0, 0])
    for line in pathlib.Path(os.environ[NOTES]).read_text(encoding="utf-8").splitlines():
        attack, on, held = json.loads(line)
        counts[attack, on][0] += 1
        counts[attack, on][1] += held
    order = list(dict.fromkeys(attack for attack, _ in counts))
    rows = ["| Attack | On | Tried | Held |", "|---|---|---|---|"]
    for (attack, on), (tried, held) in sorted(counts.items(), key=lambda item: order.index(item[0][0])):
        rows.append(f"| {attack} | {on} | {tried:,} | {held:,} |")
    return rows


def pytest_terminal_summary(terminalreporter):
    """The table, at the end of the run."""
    if FULL and pathlib.Path(os.environ[NOTES]).stat().st_size:
        terminalreporter.section("what was tried, what held")
        for row in table():
            terminalreporter.write_line(row)


def command(*arguments):
    """The command line of ``rt2 ARGUMENTS`` in a process of its own."""
    return [sys.executable, "-m", "rt2_jax.cli", *map(str, arguments)]


def rt2(*arguments, timeout=300, **options):
    """Runs ``rt2 ARGUMENTS`` in a process of its own."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, **options)


def must(*arguments):
    """The same, which must succeed."""
    done = rt2(*arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.fixture(scope="session")
def run_rt2():
    """The function `rt2`."""
    return rt2


@pytest.fixture(scope="session")
def start_rt2(tmp_path_factory):
    """start(*arguments, largest=None): ``rt2 ARGUMENTS`` begun, as `writers.Running`."""
    logs = tmp_path_factory.mktemp("logs")

    def start(*arguments, largest=None):
        return writers.Running(command(*arguments), logs, os.environ, largest)

    return start


@pytest.fixture(scope="session")
def writing_below():
    """The function `writers.writing_below`."""
    return writers.writing_below


@pytest.fixture(scope="session")
def writer(workplace):
    """writer(name): one of `writers.WRITERS`, reading from and compared with the workplace's artefacts."""
    return lambda name: writers.WRITERS[name](workplace, BUILD, TASKS)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """A folder with one artefact of every kind, all made by the command line; do not change them, copy them."""
    root = tmp_path_factory.mktemp("faults")
    (root / "config.py").write_text(f"def get_config():\n    return {FIELDS | {'data_dir': str(root / 'data')}!r}\n")
    must("data", "build", "--data", root / "data", *BUILD)
    must("data", "prepare", "--data", root / "data", "--tasks", ",".join(TASKS))
    must("train", "--config", root / "config.py", "--workdir", root / "run")
    must("export", "--checkpoint", root / "run", "--out", root / "bundle")
    must(
        "convert",
        "--model",
        root / "bundle",
        "--vocabulary",
        root / "bundle/vocabulary.model",
        "--out",
        root / "pretrained",
    )
    for form in ("transformers", "t5x", "big_vision"):
        must("export", "--checkpoint", root / "run", "--format", form, "--out", root / form)
    return root


@pytest.fixture
def copied(workplace, tmp_path):
    """copied(name): a copy of an artefact that may be damaged."""

    def copy(name):
        target = tmp_path / name
        shutil.copytree(workplace / name, target)
        return target

    return copy
