"""metrics.jsonl survives kills and restarts; progress is legible on a terminal and in a log."""

import json
import subprocess
import sys

import pytest

from rt2_jax.errors import UserError
from rt2_jax.train.metrics import MetricsLog, ProgressBar, read_metrics


def test_lines_after_the_restart_are_dropped_and_a_cut_one_too(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write(step, "train", {"loss": 1 / 3})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "los')
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3]
    with MetricsLog(tmp_path, 2) as log:
        log.write(3, "validation", {"loss": 0.5})
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert [(line["step"], line["split"], line["loss"]) for line in lines] == [
        (1, "train", 1 / 3),
        (2, "train", 1 / 3),
        (3, "validation", 0.5),
    ]


GARBAGE = {
    "binary": b"\x00\xff\xfe\x80",
    "no UTF-8": b'{"step": 1, "split": "tr\xe4in", "loss": 1.0}',
    "a list": b"[1, 2]",
    "a number": b"7",
    "no step": b'{"split": "train", "loss": 1.0}',
    "a step in words": b'{"step": "one", "split": "train", "loss": 1.0}',
    "half a step": b'{"step": 1.5, "split": "train", "loss": 1.0}',
    "no split": b'{"step": 1, "loss": 1.0}',
    "a loss in words": b'{"step": 1, "split": "train", "loss": "low"}',
    "a digit too many": b'{"step": 1, "split": "train", "loss": ' + b"9" * 5000 + b"}",
    "no end": b"[" * 100_000,
    "a cut line": b'{"step": 1, "spl',
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_dropped_with_a_line_and_kept_aside(what, tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(tmp_path, 0) as log:
        log.write(1, "train", {"loss": 0.5})
        log.write(2, "train", {"loss": float("nan")})
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + GARBAGE[what] + b"\n" + second)
    damaged = path.read_bytes()
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    with MetricsLog(tmp_path, 2):
        pass
    assert path.read_bytes() == first + second
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == damaged
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} has damaged lines (1), which are left out; it is kept as metrics.jsonl.damaged"
    ]


def test_a_folder_in_the_place_of_the_metrics_is_kept_aside(tmp_path):
    for number in range(2):
        (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
        (tmp_path / "metrics.jsonl").mkdir()
        assert read_metrics(tmp_path / "metrics.jsonl") == []
        with MetricsLog(tmp_path, number) as log:
            log.write(1, "train", {"loss": 0.5})
    names = ["metrics.jsonl", "metrics.jsonl.damaged", "metrics.jsonl.damaged_1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_other_hosts_write_nothing(tmp_path, capsys):
    with MetricsLog(tmp_path, 0, enabled=False) as log, ProgressBar(9, 0, 4, enabled=False) as bar:
        log.write(1, "train", {"loss": 1.0})
        bar.advance(1)
        bar.report(1, {"loss": 1.0})
        bar.say("hello")
    assert not list(tmp_path.iterdir()) and capsys.readouterr().err == ""


def test_plain_lines_where_there_is_no_terminal(capsys):
    with ProgressBar(100, 0, 8) as bar:
        bar.advance(10)
        rate = bar.report(10, {"loss": 2.5})
        with bar.paused():
            bar.say("a word")
    assert rate > 0
    text = capsys.readouterr().err
    assert "step 10/100  loss 2.5000" in text and "examples/s" in text and "left" in text and "a word" in text


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with ProgressBar(100, 0, 8) as bar:
        bar.report(10, {"loss": 2.5})
        bar.say("a word")
    text = capsys.readouterr().err
    assert "loss 2.5000" in text and "10/100" in text and "a word" in text and "\x1b[" in text


READ_BACK = """
import pathlib, sys
from rt2_jax.train.metrics import MetricsLog

folder = pathlib.Path(sys.argv[1])
with MetricsLog(folder, 0, tensorboard=True) as log:
    log.write(1, "train", {"loss": 2.5})
    log.write(2, "train", {"loss": 1.5})
    log.write(2, "validation", {"loss": 2.0})
    log.write(3, "train", {"loss": 9.0})
assert "tensorflow" not in sys.modules
# The run goes on from step 2: what was written of the third is of the past.
with MetricsLog(folder, 2, tensorboard=True) as log:
    log.write(3, "train", {"loss": 0.5})

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(str(folder / "tensorboard")).Reload()
for tag in events.Tags()["scalars"]:
    print(tag, [(event.step, event.value) for event in events.Scalars(tag)])
"""


def test_tensorboard_reads_what_was_written(tmp_path):
    # In a process of its own: tensorboard's reader brings TensorFlow, which the renderer's GL library cannot live with.
    done = subprocess.run([sys.executable, "-c", READ_BACK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["train/loss [(1, 2.5), (2, 1.5), (3, 0.5)]", "validation/loss [(2, 2.0)]"]


def test_tensorboard_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"tensorboardX is not installed; pip install .rt2_jax\[tensorboard\]."):
        MetricsLog(tmp_path, 0, tensorboard=True)
