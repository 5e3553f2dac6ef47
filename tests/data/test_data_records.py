import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.data.records import Record, decode_record, encode_record, prepared_tasks, read_index
from rt2_jax.errors import UserError

TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=40)


@given(st.lists(st.binary(max_size=50), max_size=3), TOKENS, TOKENS, st.text(max_size=20))
def test_records_come_back_as_they_were(images, prompt, target, task):
    record = Record(tuple(images), np.array(prompt, np.int32), np.array(target, np.int32), task)
    found = decode_record(encode_record(record))
    assert found.images == record.images and found.task == task
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
    with pytest.raises(UserError, match=r"validation is not a prepared split .*tasks: one.*run `rt2 data prepare`"):
        read_index(tmp_path, "one", "validation")


@pytest.mark.parametrize("change", [{"format": 99}, {"files": 3}, {"unknown": 1}, None])
def test_a_damaged_or_foreign_index_is_refused(tmp_path, prepared, change):
    prepared(tmp_path, "one", 5)
    path = tmp_path / "prepared" / "one" / "train" / "index.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | change) if change else text[:40])
    with pytest.raises(UserError, match=r"index.json.*rt2 data prepare --tasks one --overwrite"):
        read_index(tmp_path, "one", "train")
