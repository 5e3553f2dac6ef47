import numpy as np
import pytest
from PIL import Image

from rt2_jax.data.inspect import inspect
from rt2_jax.data.mixtures import Mixture, record_mixture
from rt2_jax.errors import UserError
from rt2_jax.tokens import Vocabulary


def test_inspect_counts_shares_and_draws(tmp_path, prepared, frame):
    sha256 = Vocabulary.load().sha256
    weights = {"tabletop_robot_action": 0.2, "tabletop_robot_plan": 0.8}
    record_mixture(tmp_path, Mixture("robot", weights))
    record_mixture(tmp_path, Mixture("all", {**weights, "absent": 1.0}))
    for number, task in enumerate(weights):
        told = {"vocabulary": sha256, "kind": "action", "dropped": 1234 * number}
        prepared(tmp_path, task, 40, frames_of="robot", first_token=1300, **told)
    prepared(tmp_path, "tabletop_robot_plan", 3, "validation", num_bytes=1_234_567, vocabulary=sha256)
    text = inspect(tmp_path, per_task=4)
    lines = [line.split() for line in text.splitlines()]
    counts = {tuple(line[:3]): line[3:8] for line in lines if len(line) == 10}
    assert counts["tabletop_robot_action", "action", "train"] == ["40", "0", "1", "4", "1"]
    assert counts["tabletop_robot_plan", "action", "train"] == ["40", "1,234", "1", "4", "1"]
    assert counts["tabletop_robot_plan", "text", "validation"] == ["3", "0", "1", "4", "1"]
    assert next(line for line in lines if "validation" in line)[-2:] == ["1.2", "411,522"]
    # The frames of both tasks lie there once.
    shared = next(line for line in lines if line and line[0] == "robot/train/image")
    assert shared[1:5] == ["2", "40", "8", "px"] and int(shared[-1]) == sum(len(frame(k)) for k in range(40)) // 40
    assert "frames and examples together: 1.3 MB" in text
    # 20% of 64 is 12.8.
    assert ["tabletop_robot_action", "20.0%", "12", "or", "13"] in lines
    assert ["robot", "share", "of", "a", "batch", "of", "64"] in lines and "all " not in text

    with Image.open(tmp_path / "inspect.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    # Frames 0, 13, 26 and 39 of 0..39, each a plain grey, on white.
    for grey in (0, 13, 26, 39):
        assert (np.abs(pixels - grey).max(-1) <= 1).sum() >= 150 * 150 * 2
    assert (pixels == 255).all(-1).sum() > 0


def test_inspect_writes_where_it_is_told(tmp_path, prepared):
    prepared(tmp_path, "mine", 5, vocabulary=Vocabulary.load().sha256)
    assert "elsewhere" in inspect(tmp_path, tasks=["mine"], out=tmp_path / "elsewhere" / "sheet.png")
    assert (tmp_path / "elsewhere" / "sheet.png").is_file()


def test_inspect_refuses_what_it_cannot_show(tmp_path, prepared):
    with pytest.raises(UserError, match="holds no prepared task; run `rt2 data prepare`"):
        inspect(tmp_path)
    prepared(tmp_path, "mine", 5)
    with pytest.raises(UserError, match="mine/train was prepared with another vocabulary"):
        inspect(tmp_path)
    with pytest.raises(UserError, match="examples per task is 0"):
        inspect(tmp_path, per_task=0)


def test_inspect_finds_a_wrong_task_or_place_before_it_reads_anything(tmp_path, prepared, monkeypatch):
    prepared(tmp_path, "mine", 5, vocabulary=Vocabulary.load().sha256)
    monkeypatch.setattr("rt2_jax.data.inspect.examples", lambda *_: pytest.fail("it began"))
    with pytest.raises(UserError, match="task 'yours' is not prepared in .*; choose from mine"):
        inspect(tmp_path, tasks=["mine", "yours"])
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder.png").mkdir()
    for out, named in (
        (tmp_path / "file" / "sheet.png", "cannot write .*sheet.png|cannot write .*file"),
        (tmp_path / "folder.png", "it is no file"),
        (tmp_path / "sheet.txt", "ends in '.txt'; name a file that ends in .png"),
        (tmp_path / "sheet", "ends in ''"),
    ):
        with pytest.raises(UserError, match=named):
            inspect(tmp_path, out=out)
    assert (tmp_path / "file").read_text() == "kept" and not (tmp_path / "sheet.txt").exists()


def test_inspect_writes_jpeg_too(tmp_path, prepared):
    prepared(tmp_path, "mine", 5, vocabulary=Vocabulary.load().sha256)
    inspect(tmp_path, out=tmp_path / "sheet.JPG")
    with Image.open(tmp_path / "sheet.JPG") as sheet:
        assert sheet.format == "JPEG"
