"""What stays on the disk when preparing is disturbed: killed, started twice, or run over damaged data."""

import re
import shlex

import pytest

from rt2_jax.cli import main
from rt2_jax.data.reader import PreparedSplit
from rt2_jax.data.records import prepared_dir
from rt2_jax.datasets import prepare as module
from rt2_jax.datasets.prepare import prepare
from rt2_jax.errors import UserError
from rt2_jax.files.manifest import check_sealed

TASK = "tabletop_web_vqa"


@pytest.fixture
def folder(data):
    return prepared_dir(data, TASK, "train")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def once(data, **arguments):
    return prepare(data, [TASK], ("train",), show_progress=False, **arguments)


def test_a_prepared_split_is_sealed_and_the_same_every_time(data, folder):
    once(data)
    assert set(check_sealed(folder, "prepared split").files) == {"index.json", "part-00000.array_record"}
    first = contents(folder)
    once(data, overwrite=True)
    assert contents(folder) == first
    assert [path.name for path in folder.parent.iterdir()] == ["train"]


def test_a_second_prepare_is_told_who_is_at_it(data, folder, monkeypatch):
    chunks, refused = module._chunks, []

    def started_again_meanwhile(*arguments):
        for overwrite in (False, True):
            with pytest.raises(UserError, match=r"prepared split .*train is in use by process \d+ on ") as caught:
                once(data, overwrite=overwrite)
            refused.append(str(caught.value))
        yield from chunks(*arguments)

    monkeypatch.setattr(module, "_chunks", started_again_meanwhile)
    once(data)
    assert len(refused) == 2 and len(PreparedSplit(data, TASK, "train"))


def test_what_a_killed_prepare_leaves_is_cleared_away(data, folder):
    folder.parent.mkdir(parents=True)
    partial = folder.parent / ".train.rt2-partial"
    partial.mkdir()
    (partial / "part-00000.array_record").write_bytes(b"half")
    (folder.parent / ".train.rt2-owner").write_text("{}")
    once(data)
    assert [path.name for path in folder.parent.iterdir()] == ["train"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff{"),
        lambda folder: (folder / "index.json").unlink(),
        lambda folder: (folder / "index.json").write_text("{}"),
        lambda folder: (folder / "part-00000.array_record").unlink(),
    ],
    ids=["no manifest", "damaged manifest", "no index", "damaged index", "no part"],
)
def test_the_command_that_a_message_names_repairs_the_split(data, folder, damage):
    once(data)
    before = contents(folder)
    damage(folder)
    messages = []
    for attempt in (lambda: PreparedSplit(data, TASK, "train"), lambda: once(data)):
        with pytest.raises(UserError) as caught:
            attempt()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    command = re.search(r"`rt2 (data prepare .*)`", messages[0]).group(1)
    assert main(shlex.split(command)) == 0
    assert contents(folder) == before
    PreparedSplit(data, TASK, "train")


def test_a_folder_with_other_things_is_left_alone(data, folder):
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds thesis.txt.*choose another folder, or give --overwrite"):
        once(data)
    assert (folder / "thesis.txt").exists()
    once(data, overwrite=True)
    assert not (folder / "thesis.txt").exists()
    (folder / "thesis.txt").write_text("years of work")
    assert once(data) and (folder / "thesis.txt").exists()


def test_a_folder_that_is_a_file_is_named(data, folder):
    folder.parent.mkdir(parents=True)
    folder.write_text("")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="train is not a folder"):
            once(data, overwrite=overwrite)
