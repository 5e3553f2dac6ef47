"""A run's folder is refused in one line before any work, and has one owner."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from rt2_jax.errors import UserError
from rt2_jax.files.writing import seal
from rt2_jax.train.config import make_config
from rt2_jax.train.folder import RunFolder, find_folder
from rt2_jax.train.loop import train
from rt2_jax.train.metrics import read_metrics


def a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    return tmp_path / "file"


def a_link_to_itself(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path / "loop"


def a_link_to_nothing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    a_file(tmp_path)
    return tmp_path / "link"


WRONG = {
    "a file": (a_file, "is no folder; name one"),
    "below a file": (lambda tmp_path: a_file(tmp_path) / "run", "lies below .*file, which is no folder"),
    "a link to a file": (a_link_to_nothing, "is no folder; name one"),
    "a link to itself": (a_link_to_itself, "cannot write|is no folder"),
    "a long name": (lambda tmp_path: tmp_path / ("n" * 256), "cannot write .*File name too long"),
    "a long path": (lambda tmp_path: tmp_path.joinpath(*["n" * 200] * 25), "cannot write .*File name too long"),
    "no name": (lambda tmp_path: f"{tmp_path}/a\0b", "cannot write .*null"),
    "the home": (lambda tmp_path: pathlib.Path.home(), "is the home; name a folder of its own"),
    "the root": (lambda tmp_path: "/", "is the root; name a folder of its own"),
    "what cannot be written": (lambda tmp_path: "/proc/rt2", "cannot write /proc/rt2"),
}


def entries(folder):
    return sorted((path, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))


@pytest.mark.parametrize("what", WRONG)
def test_what_can_be_no_run_is_told_in_a_line(what, small_fields, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make, message = WRONG[what]
    workdir = make(tmp_path)
    before = entries(tmp_path)
    with pytest.raises(UserError, match=message) as refused:
        train(make_config(small_fields), workdir)
    assert "\n" not in str(refused.value)
    assert entries(tmp_path) == before


@pytest.mark.parametrize("name", ["config.json", "history.jsonl", "checkpoints"])
def test_what_stands_in_the_way_is_named(name, small_fields, tmp_path):
    path = tmp_path / "run" / name
    path.parent.mkdir()
    path.write_text("x") if name == "checkpoints" else path.mkdir()
    with pytest.raises(UserError, match=f"{name}"):
        train(make_config(small_fields), tmp_path / "run")
    assert not (tmp_path / "run" / ".rt2-owner").exists()


def test_a_sealed_folder_is_no_run(tmp_path):
    (tmp_path / "bundle").mkdir()
    seal(tmp_path / "bundle", "bundle")
    for name in ("bundle", "bundle/run"):
        with pytest.raises(UserError, match="lies inside .*bundle, which is sealed"):
            find_folder(tmp_path / name)


def test_a_folder_that_came_to_nothing_goes_with_the_parents_made_for_it(tmp_path):
    (tmp_path / "old").mkdir()
    with RunFolder(find_folder(tmp_path / "old" / "a" / "b")) as folder:
        folder.check()
        assert os.listdir(folder.path) == [".rt2-owner"]
    assert entries(tmp_path) == [(tmp_path / "old", b"")]
    with RunFolder(tmp_path / "old" / "a" / "b") as folder:
        (folder.path / "something").write_text("x")
    assert os.listdir(tmp_path / "old" / "a" / "b") == ["something"]


def test_a_folder_that_another_run_has_taken_over_is_written_no_more(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        folder._owner.lost = True
        with pytest.raises(UserError, match="was taken over by .* while this process stood still"):
            folder.check()


# Runs `rt2 train`; with "hold", waits for a line once the first step's metrics are written.
CHILD = """
import sys
from rt2_jax.cli import main
from rt2_jax.train.metrics import MetricsLog

config, workdir, hold = sys.argv[1:]
write = MetricsLog.write

def holding(self, step, split, metrics):
    write(self, step, split, metrics)
    if step == 1 and hold == "hold":
        print("holding", flush=True)
        sys.stdin.readline()

MetricsLog.write = holding
sys.exit(main(["train", "--config", config, "--workdir", workdir]))
"""


def test_a_second_run_in_the_folder_changes_nothing_and_a_killed_one_holds_nothing(small_fields, tmp_path):
    config, workdir = tmp_path / "config.py", tmp_path / "run"
    config.write_text(f"def get_config():\n    return {json.loads(json.dumps(small_fields))!r}\n")
    command = [sys.executable, "-c", CHILD, str(config), str(workdir)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "hold"], **pipes) as first:
        assert first.stdout.readline() == "holding\n"
        before = entries(workdir)
        second = subprocess.run([*command, "go"], capture_output=True, text=True, timeout=300, check=False)
        assert second.returncode == 2, second.stderr
        assert f"run {workdir} is in use by process {first.pid}" in second.stderr
        assert second.stderr.count("\n") == 1
        changed = {path for path, _ in set(entries(workdir)) ^ set(before)}
        assert changed <= {workdir / ".rt2-owner"}  # the first one's heartbeat
        first.send_signal(signal.SIGKILL)
    assert train(make_config(small_fields), workdir) == 0
    lines = read_metrics(workdir / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert not (workdir / ".rt2-owner").exists()
