"""SIGTERM and Ctrl-C in every phase of a real `rt2 train`: the exit code says what is true, and nothing is lost."""

import json
import subprocess
import sys

import pytest

from rt2_jax.bundle.steps import whole_steps

# Runs `rt2 train`; `moment` patches one phase so that the process sends itself the signals there, and stays there
# where `for_ever`, as in a compiler that takes hours.
CHILD = """
import atexit, json, os, signal, sys, threading
from rt2_jax.cli import main

config, workdir, moment, how, count, for_ever = json.loads(sys.argv[1])

def hit():
    for _ in range(count):
        os.kill(os.getpid(), getattr(signal, how))
        threading.Event().wait(0.2)  # signals that come together count as one
    if for_ever:
        threading.Event().wait()

def hit_before(owner, name, when=lambda *arguments: True):
    original = getattr(owner, name)
    def patched(*arguments, **keywords):
        if when(*arguments):
            hit()
        return original(*arguments, **keywords)
    setattr(owner, name, patched)

if moment == "import":
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "rt2_jax.train.loop":
                hit()
    sys.meta_path.insert(0, Finder())
elif moment == "exit":
    atexit.register(hit)
else:
    from rt2_jax.train import checkpoint, loop
    if moment == "start":
        hit_before(loop, "make_mesh")
    if moment == "compile":
        import dataclasses
        make_program = loop.make_program
        def patched(*arguments):
            program = make_program(*arguments)
            def train_step(*arguments):
                hit()
                return program.train_step(*arguments)
            return dataclasses.replace(program, train_step=train_step)
        loop.make_program = patched
    if moment == "validation":
        hit_before(loop, "evaluate")
    if moment == "save":
        # From the main thread, which goes on with step 3 while step 2 is being written.
        save = checkpoint.Checkpoints.save
        def saving(self, state, progress):
            save(self, state, progress)
            if progress.step == 2:
                hit()
        checkpoint.Checkpoints.save = saving
    for name, step in (("first seal", "2"), ("last seal", "4")):
        if moment == name:
            hit_before(checkpoint, "seal", lambda folder, *_, step=step: folder.name == step)
    seal = checkpoint.seal
    def telling(folder, *arguments):
        seal(folder, *arguments)
        print("sealed", folder.name, file=sys.stderr, flush=True)
    checkpoint.seal = telling
sys.exit(main(["train", "--config", config, "--workdir", workdir]))
"""


@pytest.fixture
def run(small_fields, tmp_path):
    """run(moment, signal, count=1, for_ever=False) -> CompletedProcess; the run is of four steps, saved at 2 and 4."""
    fields = {**small_fields, "steps": 4, "checkpoint_every": 2, "eval_every": 3}
    config = tmp_path / "config.py"
    config.write_text(f"def get_config():\n    return {fields!r}\n")

    def run(moment, how, count=1, for_ever=False):
        what = json.dumps([str(config), str(tmp_path / "run"), moment, how, count, for_ever])
        command = [sys.executable, "-c", CHILD, what]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    return run


def steps(tmp_path):
    return list(whole_steps(tmp_path / "run" / "checkpoints"))


@pytest.mark.parametrize(
    ("moment", "how", "code"),
    [("import", "SIGTERM", 42), ("start", "SIGINT", 130), ("start", "SIGTERM", 42)],
)
def test_at_the_start_the_process_ends_at_once_and_leaves_nothing(run, tmp_path, moment, how, code):
    done = run(moment, how, for_ever=True)
    assert done.returncode == code, done.stderr
    assert done.stderr == f"{how}: nothing new to save; run the same command to go on\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("how", "code"), [("SIGTERM", 42), ("SIGINT", 130)])
def test_the_compiler_is_not_waited_for(run, tmp_path, how, code):
    done = run("compile", how, for_ever=True)
    assert done.returncode == code, done.stderr
    assert "nothing new to save" in done.stderr and "Traceback" not in done.stderr
    assert steps(tmp_path) == [] and not (tmp_path / "run" / ".rt2-owner").exists()
    assert run("nothing", "SIGTERM").returncode == 0
    assert steps(tmp_path) == [4, 2]


@pytest.mark.parametrize(("moment", "count", "step"), [("validation", 1, 3), ("save", 3, 3)])
def test_later_it_stops_after_the_step_and_its_save(run, tmp_path, moment, count, step):
    done = run(moment, "SIGTERM", count)
    assert done.returncode == 42, done.stderr
    assert steps(tmp_path)[0] == step
    assert done.stderr.index(f"sealed {step}") < done.stderr.index(f"SIGTERM: saved at step {step} of 4")


def test_a_second_ctrl_c_is_answered_and_a_third_stops_at_once(run, tmp_path):
    done = run("last seal", "SIGINT", count=3, for_ever=True)
    assert done.returncode == 130, done.stderr
    assert "still saving; a third Ctrl-C stops at once" in done.stderr and "stopped at once" in done.stderr
    assert "Traceback" not in done.stderr
    assert steps(tmp_path) == [2] and not (tmp_path / "run" / ".rt2-owner").exists()
    assert run("nothing", "SIGTERM").returncode == 0
    assert steps(tmp_path) == [4, 2]


@pytest.mark.parametrize("moment", ["last seal", "exit"])
def test_a_finished_run_stays_finished(run, tmp_path, moment):
    done = run(moment, "SIGTERM", count=2)
    assert done.returncode == 0, done.stderr
    assert steps(tmp_path) == [4, 2]


def test_a_kill_between_commit_and_seal_costs_that_step_alone(run, tmp_path):
    assert run("first seal", "SIGKILL").returncode == -9
    assert steps(tmp_path) == [] and (tmp_path / "run" / "checkpoints" / "2").is_dir()
    done = run("nothing", "SIGTERM")
    assert done.returncode == 0, done.stderr
    assert "checkpoint step 2 is passed over: its save is not complete" in done.stderr
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["2", "4"]
