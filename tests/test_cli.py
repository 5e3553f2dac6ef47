"""The command line as a new user meets it: help that says something, and one line for each mistake."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rt2_jax.cli import main
from rt2_jax.tokens.vocabulary import Vocabulary

VERBS = [
    ["data", "build"],
    ["data", "prepare"],
    ["data", "inspect"],
    ["data", "vocabulary"],
    ["train"],
    ["eval"],
    ["sample"],
    ["export"],
    ["sizes"],
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_of_every_verb(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*verb, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "usage: rt2 " + " ".join(verb) in text
    # A sentence about what the verb does, not only its options.
    assert len(text.split("options:")[0].split("\n\n")[1]) > 20


def test_help_without_heavy_imports():
    code = "import sys, rt2_jax.cli; sys.exit(any(m in sys.modules for m in ('jax', 'tensorflow', 'mujoco')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def one_line(arguments, capsys):
    """Runs a command that must fail for the user's reason, and gives its one line."""
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("rt2: error: ") and "\n" not in error and "Traceback" not in error
    return error


def test_unknown_config(tmp_path, capsys):
    line = one_line(["train", "--config", tmp_path / "none.py", "--workdir", tmp_path / "run"], capsys)
    assert "none.py" in line
    assert not (tmp_path / "run").exists()


def test_config_with_an_unknown_key(tmp_path, capsys):
    config = tmp_path / "config.py"
    config.write_text("def get_config():\n    return {'data_dir': 'd', 'mixture': 'm', 'steps': 1, 'batchsize': 8}\n")
    line = one_line(["train", "--config", config, "--workdir", tmp_path / "run"], capsys)
    assert "batchsize" in line and "batch_size" in line


@pytest.mark.parametrize("override", ["--config.mixture=tabletop_nothing", "--config.steps=0", "--config.model=huge"])
def test_config_with_a_bad_value(override, tmp_path, capsys):
    arguments = ["train", "--config", "configs/tabletop_scratch.py", "--workdir", tmp_path / "run", override]
    line = one_line(arguments, capsys)
    assert override.split("=")[1] in line
    assert not (tmp_path / "run").exists()


def test_missing_data_folder(tmp_path, capsys):
    overrides = [f"--config.data_dir={tmp_path / 'nowhere'}", "--config.init_from="]
    arguments = ["train", "--config", "configs/tabletop_scratch.py", "--workdir", tmp_path / "run", *overrides]
    line = one_line(arguments, capsys)
    assert "nowhere" in line and "rt2 data prepare" in line


def test_unknown_task_when_preparing(tmp_path, capsys):
    line = one_line(["data", "prepare", "--data", tmp_path, "--tasks", "tabletop_robot_dance"], capsys)
    assert "tabletop_robot_dance" in line


def test_preparing_before_building_names_the_missing_dataset(tmp_path, capsys):
    line = one_line(["data", "prepare", "--data", tmp_path, "--tasks", "tabletop_web_vqa"], capsys)
    assert "tabletop_web" in line and "rt2 data build" in line


def test_unknown_mixture_when_preparing(tmp_path, capsys):
    line = one_line(["data", "prepare", "--data", tmp_path, "--mixture", "tabletop_salad"], capsys)
    assert "tabletop_salad" in line and "tabletop_cofinetune_50" in line


def test_missing_checkpoint(tmp_path, capsys):
    image = tmp_path / "frame.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    asked = ["--image", image, "--instruction", "reach the red cube"]
    assert "nothing" in one_line(["sample", "--checkpoint", tmp_path / "nothing", *asked], capsys)


def test_missing_image(tmp_path, capsys):
    arguments = ["sample", "--checkpoint", tmp_path, "--image", tmp_path / "none.png", "--prompt", "x"]
    assert "none.png" in one_line(arguments, capsys)


def test_unknown_size(capsys):
    assert "model size 'huge' is unknown; the sizes are tiny" in one_line(["sizes", "--size", "huge"], capsys)


def test_noise_that_is_no_probability(tmp_path, capsys):
    asked = ["data", "build", "--data", tmp_path / "data", "--noise", "2"]
    assert "noise is 2.0; choose 0.0 to 1.0" in one_line(asked, capsys)
    assert not (tmp_path / "data").exists()


def test_adapting_a_vocabulary(foreign, tmp_path, capsys):
    (tmp_path / "gemma.model").write_bytes(foreign.train("gemma"))
    (tmp_path / "text.txt").write_text("\n".join(foreign.CORPUS), encoding="utf-8")
    adapt = ["data", "vocabulary", "--adapt", tmp_path / "gemma.model", "--out", tmp_path / "out.model"]
    assert "--overwrite-by" in one_line(adapt, capsys)
    overwrite = [*adapt, "--overwrite-by", tmp_path / "text.txt"]
    assert "family paligemma have 256000" in one_line([*overwrite, "--family", "paligemma"], capsys)
    assert not (tmp_path / "out.model").exists()
    assert main([str(argument) for argument in overwrite]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "900 pieces, sha256 " in first and "integers are written <0> to <255>: tokens " in second
    assert Vocabulary.load(tmp_path / "out.model").sha256 == first.split()[-1]


def test_a_family_without_a_model_is_refused(tmp_path, capsys):
    line = one_line(["data", "vocabulary", "--out", tmp_path / "a.model", "--family", "t5"], capsys)
    assert "name it with --adapt" in line and not (tmp_path / "a.model").exists()


def test_an_unrecognised_argument_stops_before_any_work(tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["data", "build", "--data", str(tmp_path / "data"), "--colour", "red"])
    assert stop.value.code == 2
    assert not (tmp_path / "data").exists()
