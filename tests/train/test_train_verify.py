"""``rt2 verify``: every kind of folder, whole and damaged, and what is said of each."""

import io
import shutil

import pytest
from rich.console import Console

from rt2_jax.bundle.store import load_bundle, open_folder, save_bundle
from rt2_jax.cli import main
from rt2_jax.errors import UserError
from rt2_jax.files.manifest import MANIFEST_NAME
from rt2_jax.files.writing import seal, whole_folder
from rt2_jax.train.config import make_config
from rt2_jax.train.loop import train
from rt2_jax.train.verify import verify

# What is damaged in each kind, at its largest.
DAMAGED = {
    "bundle": "vocabulary.model",
    "run": "checkpoints/2/opt_state/manifest.ocdbt",
    "data": "prepared/name/train/index.json",
    "dataset": "dataset-train.tfrecord-00000-of-00001",
    "foreign": "text/model.safetensors",
}


@pytest.fixture(scope="module")
def place(small_fields, data_dir, tmp_path_factory):
    """A folder with one of each kind."""
    root = tmp_path_factory.mktemp("verify")
    fields = {**small_fields, "steps": 2, "checkpoint_every": 2, "eval_every": 0}
    train(make_config(fields), root / "run")
    bundle = load_bundle(root / "run")
    save_bundle(root / "bundle", bundle.params, bundle.spec, bundle.vocabulary)
    shutil.copytree(data_dir, root / "data")
    for name, kind, file in (("dataset", "dataset", DAMAGED["dataset"]), ("foreign", "weights", DAMAGED["foreign"])):
        with whole_folder(root / name, kind) as partial:
            (partial / file).parent.mkdir(exist_ok=True)
            (partial / file).write_bytes(bytes(range(256)))
    return root


@pytest.fixture
def copied(place, tmp_path):
    """copied(name): a copy that may be damaged."""

    def copy(name):
        shutil.copytree(place / name, tmp_path / name)
        return tmp_path / name

    return copy


def table_of(path):
    console = Console(file=io.StringIO(), width=200)
    try:
        found = verify(path, console)
    except UserError as error:
        return console.file.getvalue(), str(error)
    assert all(one.damage is None for one in found)
    return console.file.getvalue(), None


@pytest.mark.parametrize("name", DAMAGED)
def test_whole_and_with_one_bit_changed(name, copied):
    folder = copied(name)
    table, error = table_of(folder)
    assert error is None and "DAMAGED" not in table and "whole" in table and "GB/s" in table
    path = folder / DAMAGED[name]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    table, error = table_of(folder)
    assert "DAMAGED" in table and "is damaged: " in error and path.name in error and "\n" not in error


def test_the_table_names_every_folder_and_all_damage_is_counted(place, tmp_path):
    shutil.copytree(place, tmp_path / "all")
    table, error = table_of(tmp_path / "all")
    assert error is None
    for name in ("bundle", "run/checkpoints/2", "data/prepared/name/train", "dataset", "foreign"):
        assert any(line.split() and line.split()[0] == name for line in table.splitlines()), name
    for name in ("dataset", "foreign"):
        (tmp_path / "all" / name / DAMAGED[name]).unlink()
    table, error = table_of(tmp_path / "all")
    assert table.count("DAMAGED") == 2 and "is missing (and 1 more)" in error


def test_a_damaged_manifest_is_damage(copied):
    folder = copied("dataset")
    (folder / MANIFEST_NAME).write_text("{}")
    assert f"{MANIFEST_NAME} is damaged" in table_of(folder)[1]


def test_what_lost_its_manifest(copied):
    bundle = copied("bundle")
    (bundle / MANIFEST_NAME).unlink()
    assert "manifest.json is missing" in table_of(bundle)[1]
    run = copied("run")
    (run / "checkpoints" / "2" / MANIFEST_NAME).unlink()
    assert "holds no complete weights" in table_of(run)[1] and "(and 1 more)" in table_of(run)[1]
    data = copied("data")
    (data / "prepared" / "name" / "train" / MANIFEST_NAME).unlink()
    assert "manifest.json is missing" in table_of(data)[1]


def test_a_run_without_its_meaning(copied):
    run = copied("run")
    (run / "bundle.json").unlink()
    assert "has no bundle.json" in table_of(run)[1]


def test_any_changed_value_of_a_runs_bundle_json_is_noticed(copied):
    """It lies under no manifest, for a run's folder changes all the time; lines from all over it are changed here."""
    run = copied("run")
    path = run / "bundle.json"
    lines = path.read_text().splitlines(keepends=True)
    changed = [place for place, line in enumerate(lines) if any(letter.isalnum() for letter in line)]
    for place in changed[:: max(1, len(changed) // 60)]:
        letters = list(lines[place])
        at = max(index for index, letter in enumerate(letters) if letter.isalnum())
        letters[at] = (
            "8" if letters[at] == "9" else "9" if letters[at].isdigit() else "y" if letters[at] == "x" else "x"
        )
        path.write_text("".join([*lines[:place], "".join(letters), *lines[place + 1 :]]))
        with pytest.raises(UserError, match="bundle.json"):
            open_folder(run)
    path.write_text("".join(lines))
    assert open_folder(run).step is not None


def test_a_bundle_whose_content_is_wrong_though_sealed(copied):
    bundle = copied("bundle")
    path = bundle / "bundle.json"
    for kind in ("bundle", "pretrained weights"):
        path.write_text(path.read_text().replace('"layers": 1', '"layers": 0'))
        seal(bundle, kind)
        assert "layers is 0" in table_of(bundle)[1]


def test_nothing_to_verify(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "letters").mkdir()
    for name, said in (("letters", "holds nothing that rt2 seals"), ("file", "is no folder"), ("none", "is no folder")):
        assert main(["verify", str(tmp_path / name)]) == 2
        line = capsys.readouterr().err.strip()
        assert said in line and "\n" not in line and line.startswith("rt2: error: ")


def test_the_command_ends_with_2_and_one_line_on_damage(copied, capsys):
    folder = copied("foreign")
    assert main(["verify", str(folder)]) == 0
    (folder / "text" / "surplus").touch()
    capsys.readouterr()
    assert main(["verify", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert "DAMAGED" in out and err.count("\n") == 1 and "text/surplus does not belong to it" in err
