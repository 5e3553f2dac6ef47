import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.actions import load_card
from rt2_jax.data.records import (
    KIND,
    Record,
    decode_record,
    encode_record,
    prepared_tasks,
    read_embodiments,
    read_index,
)
from rt2_jax.errors import UserError
from rt2_jax.files.writing import seal

TABLETOP, FRACTAL = load_card("tabletop"), load_card("fractal20220817_data")
TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=40)


@given(st.lists(st.integers(-1, 2**40), max_size=3), TOKENS, TOKENS, st.text(max_size=20), st.text(max_size=20))
def test_records_come_back_as_they_were(frames, prompt, target, task, instruction):
    record = Record(
        np.array(frames, np.int64), np.array(prompt, np.int32), np.array(target, np.int32), task, instruction
    )
    found = decode_record(encode_record(record))
    assert found.frames.tolist() == frames and (found.task, found.instruction) == (task, instruction)
    assert found.prompt.tolist() == prompt and found.target.tolist() == target
    assert found.prompt.dtype == found.target.dtype == np.int32


@given(st.binary(max_size=60))
def test_other_bytes_are_no_record(data):
    with pytest.raises(ValueError, match="not a prepared record"):
        decode_record(data)


def test_an_index_comes_back_as_it_was(tmp_path, prepared):
    written = prepared(tmp_path, "one", 5, dropped=3, source="s")
    prepared(tmp_path, "two", 5, "validation")
    assert read_index(tmp_path, "one", "train") == written
    assert prepared_tasks(tmp_path) == ("one", "two")


def test_a_split_that_is_not_prepared_names_the_command(tmp_path, prepared):
    prepared(tmp_path, "one", 5)
    with pytest.raises(
        UserError,
        match=r"validation is not a prepared split .*tasks: one.*run `rt2 data prepare --data .* --tasks one`",
    ):
        read_index(tmp_path, "one", "validation")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"format": 1},
        {"files": 3},
        {"unknown": 1},
        {"embodiment": 5},
        {"num_examples": "5"},
        {"num_examples": 4},
        {"num_examples": 10**39},
        {"num_examples": 5.5},
        {"longest_target": []},
        {"image_size": 0},
        {"source": 2**63},
        {"task": "two"},
        {"split": "validation"},
        {"num_images": 2},
        {"history": 2},
        {"frames": []},
        {"frames": [{"camera": "image", "folder": "frames/../one/train", "identity": ""}]},
        {"frames": [{"camera": "image", "folder": "/etc", "identity": ""}]},
        None,
    ],
)
@pytest.mark.parametrize("sealed", [False, True])
def test_a_damaged_or_foreign_index_is_refused(tmp_path, prepared, change, sealed):
    prepared(tmp_path, "one", 5)
    path = tmp_path / "prepared" / "one" / "train" / "index.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | change) if change else text[:40])
    if sealed:
        seal(path.parent, KIND)
    with pytest.raises(UserError, match=r"(index.json|train).*rt2 data prepare --data .* --tasks one --overwrite"):
        read_index(tmp_path, "one", "train")


def test_bounds_changed_in_an_index_are_noticed(tmp_path, prepared):
    prepared(tmp_path, "one", 5, embodiment=TABLETOP)
    path = tmp_path / "prepared" / "one" / "train" / "index.json"
    text = path.read_text()
    path.write_text(text.replace("0.04", "0.09"))
    with pytest.raises(UserError, match=r"one/train: index.json has changed since it was written; run `rt2 data prep"):
        read_embodiments(tmp_path, ["one"])
    path.write_text(text)
    assert read_embodiments(tmp_path, ["one"]) == {"tabletop": TABLETOP}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "prepared by an earlier release or damaged"),
        (lambda path: path.write_text("{"), "manifest.json is damaged"),
        (lambda path: path.write_bytes(b"\xff" * 900), "manifest.json is damaged"),
        (lambda path: path.with_name("index.json").unlink(), "index.json is missing"),
        (lambda path: seal(path.parent, "bundle"), "sealed as bundle, not as prepared split"),
    ],
)
def test_a_split_that_is_not_sealed_as_one_is_refused(tmp_path, prepared, change, message):
    prepared(tmp_path, "one", 5)
    change(tmp_path / "prepared" / "one" / "train" / "manifest.json")
    with pytest.raises(UserError, match=f"{message}.*; run `rt2 data prepare --data .* --tasks one --overwrite`"):
        read_index(tmp_path, "one", "train")


def test_what_a_killed_process_left_is_no_prepared_task(tmp_path, prepared):
    prepared(tmp_path, "one", 5)
    folder = tmp_path / "prepared" / "two" / ".train.rt2-partial"
    folder.mkdir(parents=True)
    (folder / "index.json").write_text("{}")
    assert prepared_tasks(tmp_path) == ("one",)


def test_the_embodiments_of_a_mixture_are_those_of_its_robot_tasks(tmp_path, prepared):
    prepared(tmp_path, "reach", 5, embodiment=FRACTAL)
    prepared(tmp_path, "push", 5, embodiment=TABLETOP)
    prepared(tmp_path, "name", 5)
    assert read_embodiments(tmp_path, ["name"]) == {}
    assert read_embodiments(tmp_path, ["name", "reach"]) == {FRACTAL.name: FRACTAL}
    assert read_embodiments(tmp_path, ["reach", "push"]) == {FRACTAL.name: FRACTAL, "tabletop": TABLETOP}
    assert read_index(tmp_path, "reach", "train").embodiment == FRACTAL


def test_one_name_with_two_meanings_makes_no_mixture(tmp_path, prepared):
    prepared(tmp_path, "reach", 5, embodiment=TABLETOP)
    prepared(tmp_path, "push", 5, embodiment=dataclasses.replace(TABLETOP, description="told otherwise", num_steps=7))
    assert read_embodiments(tmp_path, ["reach", "push"]) == {"tabletop": TABLETOP}
    prepared(tmp_path, "pick", 5, embodiment=dataclasses.replace(FRACTAL, name="tabletop"))
    match = (
        "tasks reach and pick both call their embodiment tabletop, and mean different things by it: the lower bound of "
        "dx is -0.04 and -1.0; prepare both with one card, or give one card another name"
    )
    with pytest.raises(UserError, match=match):
        read_embodiments(tmp_path, ["reach", "pick"])


def test_two_splits_with_other_bounds_are_no_task(tmp_path, prepared):
    prepared(tmp_path, "reach", 5, embodiment=TABLETOP)
    prepared(tmp_path, "reach", 5, "validation", embodiment=FRACTAL)
    for split, bounds in (("train", "-0.04 in train and -1.0 in"), ("validation", "-1.0 in validation and -0.04 in")):
        with pytest.raises(UserError, match=f"task reach: the lower bound of dx is {bounds} .*; run `rt2 data prep"):
            read_embodiments(tmp_path, ["reach"], split)


def test_an_embodiment_that_does_not_hash_to_what_was_written_is_refused(tmp_path, prepared):
    prepared(tmp_path, "one", 5, embodiment=TABLETOP)
    path = tmp_path / "prepared" / "one" / "train" / "index.json"
    fields = json.loads(path.read_text())
    assert fields["embodiment"]["sha256"] == TABLETOP.sha256
    fields["embodiment"]["card"]["bins"]["space"]["high"][3] = 8.0
    path.write_text(json.dumps(fields))
    seal(path.parent, KIND)
    with pytest.raises(
        UserError, match=f"embodiment.card means .* to this release, {TABLETOP.sha256[:12]} was written; "
    ):
        read_index(tmp_path, "one", "train")
