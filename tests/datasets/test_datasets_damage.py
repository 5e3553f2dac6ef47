"""Datasets that lost something, or changed on the disk: built again to the same bytes, and never read as whole."""

import itertools
import os
import pathlib
import random
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from rt2_jax.cli import main
from rt2_jax.datasets import tasks
from rt2_jax.datasets.prepare import prepare
from rt2_jax.datasets.tabletop import tasks as tabletop
from rt2_jax.datasets.tabletop import write as datasets
from rt2_jax.datasets.tabletop.build import build
from rt2_jax.datasets.tfds_folder import make_ready, owned
from rt2_jax.errors import UserError
from rt2_jax.files.manifest import check_sealed, read_manifest

ROBOT, WEB = "tabletop_robot/1.0.0", "tabletop_web/1.0.0"
WEB_TRAIN = "tabletop_web-train.tfrecord-00000-of-00001"


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path, at=0.5):
    raw = bytearray(path.read_bytes())
    raw[int(at * (len(raw) - 1))] ^= 1
    path.write_bytes(raw)


DAMAGE = {
    "lost": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": flip,
    "no JSON": lambda path: path.write_bytes(b"\xff" * path.stat().st_size),
}


@pytest.fixture
def copy(built, tmp_path):
    return pathlib.Path(shutil.copytree(built, tmp_path / "copy"))


def test_the_same_arguments_give_the_same_bytes_in_any_process(tmp_path):
    code = (
        "import pathlib, sys; from rt2_jax.datasets.tabletop.build import build\n"
        "build(sys.argv[1], 2, 4, 32, 3, 1, ('reach', 'pick'), show_progress=False)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / seed)], env=os.environ | {"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    one, other = (contents(tmp_path / seed) for seed in ("1", "2"))
    assert one == other
    assert {path.name for path in one} >= {"manifest.json", "features.json", "card.json", WEB_TRAIN}


def test_a_dataset_is_sealed_with_all_its_files(built):
    for folder in (built / ROBOT, built / WEB):
        assert set(check_sealed(folder, "dataset").files) == {path.name for path in folder.iterdir()} - {
            "manifest.json"
        }
        assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("overwrite", [False, True])
def test_json_files_are_repaired_by_building_again(copy, capsys, damage, overwrite, arguments):
    before = contents(copy)
    names = ("dataset_info.json", "features.json", "build.json", "card.json", "manifest.json")
    for name in names:
        DAMAGE[damage](copy / ROBOT / name)
        build(copy, **arguments, overwrite=overwrite)
        assert contents(copy) == before
        assert capsys.readouterr().err == f"tabletop_robot/1.0.0: damaged or lost, and made again: {name}\n"


@pytest.mark.parametrize("damage", ["lost", "cut", "flipped"])
@pytest.mark.parametrize("also", [None, "manifest.json", "dataset_info.json"])
def test_shards_are_repaired_by_building_again(copy, capsys, damage, also, arguments):
    before = contents(copy)
    whole = (copy / WEB / "tabletop_web-validation.tfrecord-00000-of-00001").stat().st_mtime_ns
    DAMAGE[damage](copy / WEB / WEB_TRAIN)
    if also:
        (copy / WEB / also).unlink()
    build(copy, **arguments)
    assert contents(copy) == before
    assert (copy / WEB / "tabletop_web-validation.tfrecord-00000-of-00001").stat().st_mtime_ns == whole
    said = capsys.readouterr().err.splitlines()
    # Without a manifest a lost shard is one that was never written.
    found = {also} - {None} | ({WEB_TRAIN} if damage != "lost" or also != "manifest.json" else set())
    assert len(said) == 1 and set(said[0].partition("again: ")[2].split(", ")) == found


def test_an_unfinished_dataset_whose_shard_was_damaged_is_completed(copy, arguments):
    before = contents(copy)
    for name in ("manifest.json", "dataset_info.json", "features.json"):
        (copy / WEB / name).unlink()
    flip(copy / WEB / WEB_TRAIN)
    build(copy, **arguments | {"robot_episodes": 0})
    assert contents(copy) == before


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *itertools.product(["manifest.json", "dataset_info.json", "features.json", "build.json"], DAMAGE),
        # Others keep its size, and are found by the checksums of its records; see below.
        *itertools.product([WEB_TRAIN], ["lost", "emptied", "cut"]),
    ],
)
def test_a_damaged_dataset_is_not_prepared_and_the_command_that_is_named_repairs_it(copy, name, damage):
    before = contents(copy)
    DAMAGE[damage](copy / WEB / name)
    with pytest.raises(UserError) as caught:
        prepare(copy, ["tabletop_web_vqa"], show_progress=False)
    message = str(caught.value)
    assert name in message and str(copy / WEB) in message and "\n" not in message
    assert not (copy / "prepared").exists()
    if name == "build.json":
        assert message.endswith("run the same `rt2 data build` again")
        return
    command = shlex.split(re.search(r"run `rt2 (data build .*)`", message).group(1))
    assert command[:4] == ["data", "build", "--data", str(copy)]
    if damage == "lost":
        assert main(command) == 0
        assert contents(copy) == before
        assert prepare(copy, ["tabletop_web_vqa"], show_progress=False)


def test_a_flipped_bit_in_a_shard_is_one_line_and_repaired_by_its_command(copy):
    before = contents(copy)
    flip(copy / WEB / WEB_TRAIN)
    with pytest.raises(
        UserError, match=r"tabletop_web_vqa/train: .*1.0.0 is damaged .*; run `rt2 data build "
    ) as caught:
        prepare(copy, ["tabletop_web_vqa"], show_progress=False)
    assert "\n" not in str(caught.value)
    assert main(shlex.split(re.search(r"run `rt2 (data build .*)`", str(caught.value)).group(1))) == 0
    assert contents(copy) == before


def test_a_lost_card_or_metadata_never_leaves_a_robot_out_in_silence(copy):
    for name in ("card.json", "dataset_info.json"):
        kept = (copy / ROBOT / name).read_bytes()
        (copy / ROBOT / name).unlink()
        with pytest.raises(UserError, match=f"{ROBOT}: {name} is missing; run the same `rt2 data build` again"):
            prepare(copy, show_progress=False)
        (copy / ROBOT / name).write_bytes(kept)


def test_bounds_changed_in_a_card_are_noticed(copy):
    path = copy / ROBOT / "card.json"
    path.write_text(path.read_text().replace("0.04", "0.09"))
    with pytest.raises(UserError, match="card.json has changed since it was written"):
        tabletop.register(copy)


def test_a_rebuilt_dataset_makes_prepared_data_old(copy, arguments):
    task = ["tabletop_web_vqa"]
    first = prepare(copy, task, ("train",), show_progress=False)[0]
    assert first.source == read_manifest(copy / WEB).identity
    build(copy, **arguments | {"robot_episodes": 0} | {"seed": 2}, overwrite=True)
    with pytest.raises(UserError, match="was prepared from another source"):
        prepare(copy, task, ("train",), show_progress=False)


# --- one builder at a time, and nobody's folders emptied --------------------------------------------------------------


def test_a_second_build_is_told_who_is_at_it(tmp_path, arguments):
    source = datasets.web_source(tmp_path, 6, 32, 1)
    for overwrite in (False, True):
        with owned(source.spec), pytest.raises(UserError, match=r"dataset .*1.0.0 is in use by process \d+ on "):
            build(tmp_path, **arguments | {"robot_episodes": 0}, overwrite=overwrite)
    assert [path.name for path in source.spec.folder.parent.iterdir()] == []


def test_overwrite_never_empties_a_home_or_a_working_directory(tmp_path, monkeypatch):
    source = datasets.web_source(tmp_path, 3, 32, 0)
    inner = source.spec.folder / "thesis"
    inner.mkdir(parents=True)
    (inner / "text.tex").write_text("years of work")
    for name, change in (
        ("working directory", lambda: monkeypatch.chdir(inner)),
        ("home", lambda: (monkeypatch.chdir("/"), monkeypatch.setenv("HOME", str(source.spec.folder)))),
    ):
        change()
        with pytest.raises(UserError, match=f"the {name}; choose another folder"):
            make_ready(source.spec, overwrite=True)
        assert (inner / "text.tex").exists()


def test_a_folder_inside_a_sealed_one_is_not_built_in(built, arguments):
    before = contents(built)
    with pytest.raises(UserError, match="lies inside .*, which is sealed"):
        build(built / ROBOT, **arguments | {"robot_episodes": 0})
    shutil.rmtree(built / ROBOT / "tabletop_web", ignore_errors=True)
    assert contents(built) == before


def test_leftovers_of_killed_builds_are_cleared_away(copy, arguments):
    before = contents(copy)
    (copy / WEB / "manifest.json").unlink()
    (copy / WEB / f".{WEB_TRAIN}.partial").write_bytes(b"half")
    (copy / WEB / ".metadatax1").mkdir()
    (copy / WEB / ".metadatax1" / "features.json").write_text("{")
    (copy / WEB).with_name(".1.0.0.rt2-old").mkdir()
    build(copy, **arguments | {"robot_episodes": 0})
    assert contents(copy) == before


def test_a_build_killed_at_its_first_file_goes_on(tmp_path):
    source = datasets.web_source(tmp_path, 3, 32, 0)
    source.spec.folder.mkdir(parents=True)
    (source.spec.folder / ".build.json.partial").write_text("{")
    assert len(make_ready(source.spec, overwrite=False).shards) == 2


# --- datasets of others -----------------------------------------------------------------------------------------------


@pytest.fixture
def foreign(built, tmp_path):
    """A TFDS folder that nobody sealed."""
    folder = shutil.copytree(built / WEB, tmp_path / "foreign" / "1.0.0")
    for name in ("manifest.json", "build.json"):
        (folder / name).unlink()
    return folder


def prepare_foreign(folder):
    annotations, prompt = tabletop._annotations_of("caption"), tabletop._WEB_PROMPTS["caption"]
    tasks.register_image_text_task("foreign", folder, annotations, prompt)
    return prepare(folder.parent, ["foreign"], overwrite=True, show_progress=False)


def test_a_dataset_of_others_is_prepared(foreign):
    assert [index.num_examples for index in prepare_foreign(foreign)] == [12, 2]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        # Without hashes, JSON with a flipped bit may still be JSON; see below.
        *itertools.product(["dataset_info.json", "features.json"], ["lost", "emptied", "cut", "no JSON"]),
        *itertools.product([WEB_TRAIN], DAMAGE),
    ],
)
def test_damage_to_a_dataset_of_others_is_one_line(foreign, name, damage):
    DAMAGE[damage](foreign / name)
    with pytest.raises(UserError) as caught:
        prepare_foreign(foreign)
    message = str(caught.value)
    assert str(foreign) in message and "\n" not in message


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_changed_json_of_others_is_one_line_or_harmless(foreign, name):
    rng, path = random.Random(0), foreign / name
    text = path.read_bytes()
    refused = 0
    for _ in range(12):
        raw = bytearray(text)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(raw)
        try:
            prepare_foreign(foreign)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image", "imago", "is not as the task expects .*compare the features in its features.json"),
        ("question", "questioned", "its function asks for 'question', which is not among annotations, image, scene or"),
    ],
)
def test_features_that_a_task_does_not_expect_are_one_line(foreign, old, new, message):
    path = foreign / "features.json"
    path.write_text(path.read_text().replace(f'"{old}": {{', f'"{new}": {{', 1))
    with pytest.raises(UserError, match=message) as caught:
        prepare_foreign(foreign)
    assert "\n" not in str(caught.value)
