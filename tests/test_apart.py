"""One `pytest` call runs every kind of tests, each in its process, and tells of all of them."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
WRITES_PID = "import os, pathlib\npathlib.Path(__file__).with_suffix('.pid').write_text(str(os.getpid()))\n"


@pytest.fixture
def tree(tmp_path):
    """A project whose tests say which process they are in, with this project's conftest."""
    for name in ("conftest.py", "apart.py"):
        (tmp_path / "tests").mkdir(exist_ok=True)
        shutil.copy(HERE / name, tmp_path / "tests")

    def add(name, code):
        path = tmp_path / "tests" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(WRITES_PID + code)
        return path

    add("sim/test_renders.py", "def test_renders(): pass\n")
    add("datasets/test_reads.py", "def test_reads(): pass\ndef test_fails(): assert 1 == 2, 'not equal'\n")
    add("test_cli.py", "def test_help(): pass\n")
    add("test_cli_door.py", "def test_signals(): pass\n")
    return tmp_path, add


def run(folder, *arguments):
    """(exit code, output) of pytest there."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def pids(folder):
    return {path.stem: path.read_text() for path in folder.rglob("*.pid")}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("tests",),
        ("-n1", "--dist", "loadfile"),
        ("-n2", "--dist", "loadfile"),
        ("tests/sim", "tests/datasets", "tests/test_cli.py", "tests/test_cli_door.py"),
    ],
)
def test_each_kind_runs_in_processes_of_its_own_and_all_are_told_together(tree, arguments):
    folder, _ = tree
    code, output = run(folder, *arguments)
    assert code == 1 and "1 failed, 4 passed" in output, output
    assert "AssertionError: not equal" in output and "FAILED tests/datasets/test_reads.py::test_fails" in output
    found = pids(folder)
    tensorflow = {found["test_reads"], found["test_cli"]}
    rendering, alone = found["test_renders"], found["test_cli_door"]
    assert len(tensorflow) == 1 or "-n2" in arguments
    assert len({*tensorflow, rendering, alone}) == len(tensorflow) + 2


def test_one_kind_needs_one_process(tree):
    folder, _ = tree
    code, output = run(folder, "tests/datasets/test_reads.py::test_reads", "tests/test_cli.py")
    assert code == 0 and "2 passed" in output and "test_renders" not in pids(folder)


def test_options_hold_for_both(tree):
    folder, _ = tree
    assert "2 passed" in run(folder, "-k", "renders or test_reads")[1]
    code, output = run(folder, "--collect-only", "-q")
    # Three processes say what they have found, whichever is first.
    found = sorted(re.findall(r"::(\w+)", output))
    assert code == 0 and found == ["test_fails", "test_help", "test_reads", "test_renders", "test_signals"]


@pytest.mark.parametrize("where", ["import os\nos._exit(9)\n", "import os\ndef test_dies(): os._exit(9)\n"])
def test_a_process_that_dies_fails_the_run(tree, where):
    folder, add = tree
    add("datasets/test_dies.py", where)
    code, output = run(folder)
    assert code == 1 and "its process ended with 9" in output and "2 passed" in output


def test_a_file_that_cannot_be_imported_fails_the_run(tree):
    folder, add = tree
    add("datasets/test_broken.py", "import nowhere\n")
    code, output = run(folder)
    assert code != 0 and "No module named 'nowhere'" in output
