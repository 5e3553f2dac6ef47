"""Whole runs: they learn, stop cleanly, and go on exactly where they stopped."""

import dataclasses
import json
import shutil
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from rt2_jax.bundle.store import load_bundle
from rt2_jax.errors import UserError
from rt2_jax.train import loop
from rt2_jax.train.config import make_config
from rt2_jax.train.loop import train
from rt2_jax.train.metrics import MetricsLog, read_metrics
from rt2_jax.train.step import make_program


def history(workdir):
    """Everything of the train lines but their speed."""
    lines = [line for line in read_metrics(workdir / "metrics.jsonl") if line["split"] == "train"]
    return [{key: value for key, value in line.items() if key != "examples_per_second"} for line in lines]


@pytest.fixture(scope="module")
def unbroken(small_fields, tmp_path_factory):
    """A run of twelve steps that nothing disturbed, with an evaluation halfway."""
    workdir = tmp_path_factory.mktemp("unbroken")
    assert train(make_config({**small_fields, "eval_every": 6}), workdir) == 0
    return workdir


def test_a_run_learns_and_reports_each_task(unbroken):
    lines = history(unbroken)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.3
    # Three examples of "reach" to one of "name", a batch of eight, four tokens against three.
    assert all(line["reach/tokens"] == 6 * 4 and line["name/tokens"] == 2 * 3 for line in lines)
    assert lines[0]["learning_rate"] == pytest.approx(1.5e-3)


def test_validation_reads_the_validation_split_of_every_task(unbroken):
    lines = [line for line in read_metrics(unbroken / "metrics.jsonl") if line["split"] == "validation"]
    assert [line["step"] for line in lines] == [6, 12]
    assert lines[0]["reach/tokens"] == 8 * 4 and lines[0]["name/tokens"] == 8 * 3
    assert lines[1]["loss"] < lines[0]["loss"]


def test_a_killed_run_goes_on_bit_for_bit(unbroken, small_fields, run_child, tmp_path):
    killed = run_child(small_fields, tmp_path, 7, "SIGKILL")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert len(history(tmp_path)) == 7
    assert train(make_config(small_fields), tmp_path) == 0
    assert history(tmp_path) == history(unbroken)


def test_sigterm_saves_and_asks_to_be_started_again(unbroken, small_fields, run_child, tmp_path):
    stopped = run_child(small_fields, tmp_path, 4, "SIGTERM")
    assert stopped.returncode == 42, stopped.stderr[-2000:]
    assert "saved at step 4 of 12; run the same command to go on" in stopped.stderr
    assert (tmp_path / "checkpoints" / "4").is_dir()
    assert train(make_config(small_fields), tmp_path) == 0
    assert history(tmp_path) == history(unbroken)


def test_ctrl_c_saves(small_fields, tmp_path, monkeypatch, capsys):
    write = MetricsLog.write

    def interrupting(self, step, split, metrics):
        write(self, step, split, metrics)
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(MetricsLog, "write", interrupting)
    assert train(make_config(small_fields), tmp_path) == 130
    assert "SIGINT: saved at step 2 of 12" in capsys.readouterr().err
    assert load_bundle(tmp_path).spec.step == 2


def test_a_finished_run_has_nothing_left_to_do(unbroken, small_fields):
    before = history(unbroken)
    assert train(make_config({**small_fields, "eval_every": 6}), unbroken) == 0
    assert history(unbroken) == before


def test_a_run_starts_from_a_bundle_of_the_same_vocabulary_alone(unbroken, small_fields, tmp_path):
    fields = {**small_fields, "init_from": str(unbroken), "steps": 1}
    assert train(make_config(fields), tmp_path / "next") == 0
    assert history(tmp_path / "next")[0]["loss"] < history(unbroken)[3]["loss"]

    other = tmp_path / "other"
    other.mkdir()
    meta = json.loads((unbroken / "bundle.json").read_text())
    del meta["sha256"]  # of this file, which is another one now
    meta["vocabulary"]["sha256"] = "0" * 64
    (other / "bundle.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match="vocabulary .* is not 000000000000"):
        train(make_config({**fields, "init_from": str(other)}), tmp_path / "refused")


def test_another_model_is_refused_in_the_same_workdir(unbroken, small_fields):
    model = {**small_fields["model"], "text": {**small_fields["model"]["text"], "mlp": 64}}
    with pytest.raises(
        UserError, match=r"at step 12 was trained with model\.text\.mlp = 32, now it is 64; put it back"
    ):
        train(make_config({**small_fields, "model": model, "steps": 20}), unbroken)


def test_a_loss_that_is_not_finite_stops_the_run_unsaved(small_fields, tmp_path, monkeypatch):
    def diverging(*arguments):
        program = make_program(*arguments)

        def train_step(state, batch):
            state, metrics = program.train_step(state, batch)
            return state, {**metrics, "loss": metrics["loss"] * jax.device_put(np.float32("nan"))}

        return dataclasses.replace(program, train_step=train_step)

    monkeypatch.setattr(loop, "make_program", diverging)
    with pytest.raises(UserError, match="the loss is nan at step 3; lower optimizer.learning_rate"):
        train(make_config({**small_fields, "log_every": 100}), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_what_does_not_fit_the_data_is_refused_before_anything_compiles(small_fields, tmp_path):
    for change, message in (
        ({"target_len": 3}, "target_len is 3; raise"),
        ({"model": {**small_fields["model"], "image_size": 48}}, "image size 32, this run needs 48"),
        ({"mixture": {"absent": 1.0}}, "is not a prepared split"),
        ({"mixture": "nothing"}, "mixture 'nothing' is not recorded in .*--mixture nothing"),
        ({"model": "huge"}, "model size 'huge' is unknown"),
        ({"model": {"size": "tiny", "depth": 3}}, "depth"),
        ({"vocabulary": str(tmp_path / "none.model")}, "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            train(make_config({**small_fields, **change}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_disk_without_room_for_a_checkpoint_is_told_before_anything_compiles(small_fields, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"no space left for .*run: .* MB are needed, 0\.0 MB are free; free some"):
        train(make_config(small_fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_bundle_of_a_run_is_the_state_of_its_last_step(unbroken):
    bundle = load_bundle(unbroken)
    assert bundle.spec.step == 12
    assert bundle.spec.tasks == {"reach": 3.0, "name": 1.0}
    assert bundle.embodiments["tabletop"].space.names[0] == "terminate"
    images = np.zeros((2, 1, 32, 32, 3), np.uint8)
    logits = bundle.backbone.logits(bundle.params, images, np.ones((2, 8), np.int32), np.ones((2, 12), np.int32))
    assert logits.shape == (2, 12, bundle.vocabulary.size) and np.isfinite(logits).all()
