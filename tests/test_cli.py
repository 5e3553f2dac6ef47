"""The command line as a new user meets it: help that says something, and one line for each mistake."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from bad_arguments import bad_values, typed_options
from PIL import Image

from rt2_jax.cli import main
from rt2_jax.cli.parsing import MAX_JAX_SEED, count, names, number, path, text
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


def wrong_argument(arguments, capsys):
    """Runs a command line that is wrong in itself, and gives its one line."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("rt2") and ": error: " in said.err and said.err.endswith(" --help\n")
    return said.err


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
    assert "tabletop_salad" in line and "--task-modules" in line


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
    assert "argument --noise: it is '2'; give a number, 0.0 to 1.0" in wrong_argument(asked, capsys)
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


def test_an_unrecognised_argument_stops_before_any_work(tmp_path, capsys):
    asked = ["data", "build", "--data", tmp_path / "data"]
    assert "unrecognised arguments: --colour red; see rt2 data build" in wrong_argument(
        [*asked, "--colour", "red"], capsys
    )
    assert not (tmp_path / "data").exists()


def test_what_train_takes_beside_its_own_arguments(tmp_path, capsys):
    asked = ["train", "--config", tmp_path / "none.py", "--workdir", tmp_path / "run"]
    for rest in (["--steps=5"], ["steps=5"], ["--config.steps"], ["--config.steps", "5"], ["--config.steps=5", "-x"]):
        assert "--config.KEY=VALUE; see rt2 train --help" in wrong_argument([*asked, *rest], capsys)
    assert "none.py" in one_line([*asked, "--config.steps=5"], capsys)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "required: VERB"),
        (["dance"], "invalid choice: 'dance'"),
        (["data"], "required: COMMAND"),
        (["data", "dance"], "invalid choice: 'dance'"),
        (["data", "build"], "required: --data"),
        (["data", "build", "--dat", "x"], "required: --data"),  # no abbreviations
        (["data", "build", "--data"], "expected one argument"),
        (["data", "build", "--data", "x", "--overwrite=1"], "ignored explicit argument"),
        (["data", "prepare", "--data", "x", "--tasks", "a", "--mixture", "b"], "not allowed with"),
        (["export", "--checkpoint", "x", "--out", "y", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["sample", "--checkpoint", "x", "--image", "y"], "one of the arguments --instruction --prompt is required"),
        (["sizes", "--prompt-len", "9" * 5000], "give a whole number, 1 to 1000000"),
        (["sizes", "extra\nline"], "unrecognised arguments: extra line"),
        (["sizes", "x" * 100_000], "xxx..."),
        (["sizes", "--size", "\udcff"], "is not UTF-8"),
        (["convert", "--out", "x", "--ignore", "("], "'(' is no regular expression"),
        (["eval", "--checkpoint", "x", "--out", "y", "--splits", "seen,seen"], "'seen' is named twice"),
    ],
)
def test_a_command_line_that_is_wrong_in_itself(arguments, named, capsys):
    line = wrong_argument(arguments, capsys)
    assert named in line and len(line) < 700


@pytest.mark.parametrize(
    ("words", "option", "kind"), typed_options(), ids=lambda value: "-".join(value) if isinstance(value, list) else None
)
def test_every_bad_value_of_every_option_is_one_line(words, option, kind, capsys):
    for value in bad_values(kind):
        line = wrong_argument([*words, f"{option}={value}"], capsys)
        assert f"argument {option}" in line and f"see rt2 {' '.join(words)} --help" in line


def test_good_values_pass():
    assert count(1, 5)("5") == 5 and count(0, 2**63 - 1)(str(2**63 - 1)) == 2**63 - 1
    assert number(0.0, 1.0)("0.25") == 0.25 and number(0.0, 100.0)("1e1") == 10.0
    assert path("~") == pathlib.Path.home() and path("a/" + "n" * 255).name == "n" * 255
    assert names("a, b,c") == ["a", "b", "c"] and text(" pick it ") == " pick it "


def test_a_larger_seed_is_another_seed():
    # JAX keeps 32 bits of a seed, so the limit is there.
    keys = [jax.random.key_data(jax.random.key(seed)).tolist() for seed in (0, MAX_JAX_SEED, MAX_JAX_SEED + 1)]
    assert keys[0] != keys[1] and keys[0] == keys[2]


def test_the_place_of_a_vocabulary_is_checked_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rt2_jax.sim.tasks.corpus.corpus", lambda: pytest.fail("the work began"))
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder.model").mkdir()
    (tmp_path / "source.model").write_bytes(b"kept")
    for out, named in (
        ("words.txt", "ends in .model"),
        ("file", "ends in .model"),
        ("file/words.model", "cannot write"),
        ("folder.model", "it is no file"),
    ):
        assert named in one_line(["data", "vocabulary", "--out", tmp_path / out], capsys)
    adapt = ["data", "vocabulary", "--adapt", tmp_path / "source.model", "--out", tmp_path / "source.model"]
    assert "which is read; give it another name" in one_line(adapt, capsys)
    assert (tmp_path / "file").read_text() == "kept" and (tmp_path / "source.model").read_bytes() == b"kept"


@pytest.mark.parametrize("name", ["loop", "folder", "n" * 255 + "/x", "file/x"])
def test_odd_images_are_one_line(name, tmp_path, capsys):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    asked = ["sample", "--checkpoint", tmp_path, "--image", tmp_path / name, "--prompt", "x"]
    assert "image" in one_line(asked, capsys)


def test_options_that_would_be_ignored_are_refused(tmp_path, capsys):
    export = ["export", "--checkpoint", tmp_path, "--out", tmp_path / "out", "--format", "t5x"]
    assert "--merge-lora" in one_line([*export, "--merge-lora"], capsys)
    assert "--dtype" in one_line([*export, "--dtype", "bfloat16"], capsys)
    sample = ["sample", "--checkpoint", tmp_path, "--image", tmp_path / "x.png", "--prompt", "x"]
    assert "--mode" in one_line([*sample, "--mode", "plan"], capsys)
    for of_robot in (["--embodiment", "arm"], ["--state", "1"]):
        assert "give them with --instruction" in one_line([*sample, *of_robot], capsys)
