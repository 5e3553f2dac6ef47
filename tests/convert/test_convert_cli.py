"""The command lines of docs/convert.md."""

import sys

import numpy as np
import pytest
from PIL import Image

from rt2_jax.cli import main
from tests.convert.models import MODELS, PALI, native_folder, stored


@pytest.fixture
def folders(tmp_path):
    """A PaLI and a T5 in `transformers` files."""
    for name, config in (("pali", PALI), ("t5", MODELS["t5"])):
        native_folder(tmp_path / f"{name}_native", config)
        out = ["--out", str(tmp_path / name), "--format", "transformers"]
        assert main(["export", "--checkpoint", str(tmp_path / f"{name}_native"), *out]) == 0
    return tmp_path


def test_a_tower_and_a_text_model_come_in(folders, capsys):
    command = ["convert", "--vision", str(folders / "pali" / "vision"), "--text", str(folders / "t5")]
    out = str(folders / "out")
    assert main([*command, "--out", out, "--set", "image_size=24", "--set", "text.dropout_rate=0.1"]) == 0
    said = capsys.readouterr().out
    assert "text" in said and "projection" in said
    assert "position embedding resampled from 16 to 36 patches" in said
    assert "new: image_projection/kernel" in said
    assert stored(folders / "out")["vision/position_embedding"].shape == (36, 16)


def test_mistakes_end_in_one_line(folders, capsys):
    for command, message in (
        (["convert", "--text", str(folders / "none"), "--out", "x"], "does not exist; name a transformers folder"),
        (["convert", "--text", str(folders / "t5"), "--out", "x", "--set", "depth=3"], "no field 'depth'"),
        (["export", "--checkpoint", str(folders / "t5"), "--out", "x", "--format", "t5x"], "has no bundle.json"),
    ):
        assert main(command) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("rt2: error: ") and message in captured.err
        assert captured.err.count("\n") == 1


def test_converted_weights_answer_in_text_and_do_not_act(tmp_path, capsys):
    native_folder(tmp_path / "native", MODELS["paligemma"])
    arguments = ["--vocabulary", "rt2_jax/resources/vocabularies/tabletop.model", "--set", "compute_dtype=float32"]
    assert main(["convert", "--model", str(tmp_path / "native"), "--out", str(tmp_path / "out"), *arguments]) == 0
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "frame.png")
    sample = ["sample", "--checkpoint", str(tmp_path / "out"), "--image", str(tmp_path / "frame.png")]
    capsys.readouterr()
    assert main([*sample, "--prompt", "Generate caption in en"]) == 0
    assert capsys.readouterr().out.count("\n") >= 1
    assert main([*sample, "--instruction", "pick red cube"]) == 2
    assert "pretrained weights that know no robot (rt2 sample --prompt" in capsys.readouterr().err
    assert main(["convert", "--model", str(tmp_path / "native"), "--out", str(tmp_path / "dumb")]) == 0
    sample[2] = str(tmp_path / "dumb")
    capsys.readouterr()
    assert main([*sample, "--prompt", "Generate caption in en"]) == 2
    assert "has no vocabulary to read and write text with" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["convert", "--text", "x"], ["export", "--checkpoint", "x", "--format", "t5x"]])
def test_a_missing_package_is_named_with_its_extra(command, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("rt2_jax.convert")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "einops", None)
    assert main([*command, "--out", "y"]) == 2
    said = capsys.readouterr().err
    assert said == "rt2: error: other formats need the package einops; pip install 'rt2_jax[convert]'\n"
