"""A flipped bit, anywhere in anything that is written, is never read as whole."""

import shutil

import numpy as np
import pytest

from rt2_jax.bundle.store import open_folder, read_meaning
from rt2_jax.data.reader import PreparedSplit
from rt2_jax.data.records import encode_record
from rt2_jax.errors import UserError
from rt2_jax.train.verify import verify

# Artefact -> (its folder, whose below are all files that count, what reads it, flips of the sample and of all).
LOGS = ("metrics.jsonl", "history.jsonl")  # told to people, never read back as truth


def read_whole_step(folder):
    """The run's newest step must be step 4, an older one means that the damage was found; and its vocabulary."""
    opened = open_folder(folder)
    read_meaning(opened)
    if opened.step != 4:
        raise UserError("the newest step was passed over")


def read_split(data):
    """Every record, as bytes: its own checksums guard it when it is read, and padding between records is not read."""
    records = []
    for task in ("tabletop_robot_action", "tabletop_web_locate"):
        split = PreparedSplit(data, task, "train")
        records += [encode_record(record) + frames.tobytes() for record, frames in split.read(range(len(split)))]
    return records


ARTEFACTS = {
    "bundle": ("bundle", "", open_folder, 12, 220),
    "converted weights": ("pretrained", "", open_folder, 8, 120),
    "run": ("run", "", read_whole_step, 12, 240),
    "prepared data": ("data", "prepared/**/train", read_split, 8, 160),
    "dataset": ("data", "tabletop_*", None, 6, 140),
    "transformers weights": ("transformers", "", None, 4, 60),
    "T5X weights": ("t5x", "", None, 4, 60),
    "big_vision weights": ("big_vision", "", None, 4, 60),
}


def files_of(root, below):
    """Files that are flipped: of a run, those of its newest step and its own."""
    folders = sorted(root.glob(below)) if below else [root]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if path.name not in LOGS and "checkpoints/2" not in path.as_posix()]


def refuses(read, folder):
    """Whether a reader ends in one line."""
    try:
        read(folder)
    except UserError as error:
        return "\n" not in str(error)
    return False


def misled(read, folder, whole):
    """Whether a reader takes a damaged folder for whole, and what it read is not what was written."""
    if read is None:
        return False
    try:
        found = read(folder)
    except UserError as error:
        return "\n" in str(error)
    return read is not read_split or found != whole


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_no_flipped_bit_is_read_as_whole(kind, workplace, tmp_path, scale, tally):
    name, below, read, quick, full = ARTEFACTS[kind]
    root = tmp_path / name
    shutil.copytree(workplace / name, root)
    files = [path for path in files_of(root, below) if path.stat().st_size]
    assert not refuses(verify, root), "it is whole to begin with"
    whole = read(root) if read else None
    rng = np.random.default_rng(0)
    for number in range(scale(quick, full)):
        # Every file in turn, so that small ones are not forgotten beside large ones.
        path = files[number % len(files)]
        bit = int(rng.integers(0, 8 * path.stat().st_size))
        flip(path, bit)
        # config.json is for people: a run goes on from the config in its step.
        reader = None if path.name == "config.json" else read
        found = refuses(verify, root) and not misled(reader, root, whole)
        tally("one flipped bit", kind, found)
        flip(path, bit)
        assert found, f"bit {bit} of {path.relative_to(root)} went unnoticed"


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


SWAPS = ("params", "opt_state", "progress")


@pytest.mark.parametrize("item", SWAPS)
def test_another_steps_item_is_not_believed(item, copied, tally):
    run = copied("run")
    shutil.rmtree(run / "checkpoints" / "4" / item)
    shutil.copytree(run / "checkpoints" / "2" / item, run / "checkpoints" / "4" / item)
    held = open_folder(run).step == 2
    tally("another step's item", item, held)
    assert held


def test_another_models_weights_are_not_believed(copied, workplace, tally):
    bundle = copied("bundle")
    shutil.rmtree(bundle / "params")
    shutil.copytree(workplace / "pretrained" / "params", bundle / "params")
    held = refuses(open_folder, bundle)
    tally("another bundle's weights", "bundle", held)
    assert held


def test_a_step_under_another_number_is_not_believed(copied, tally):
    run = copied("run")
    (run / "checkpoints" / "4").rename(run / "checkpoints" / "8")
    held = open_folder(run).step == 2
    tally("a renamed step", "run", held)
    assert held
