"""Prepared data made of plain colours: what the readers need, without TensorFlow or the simulator."""

import dataclasses
import pathlib

import numpy as np
import pytest

from rt2_jax.data import array_records
from rt2_jax.data.records import KIND, PreparedIndex, index_to_json, prepared_dir
from rt2_jax.data.writer import KnownFrames, Limits, SplitWriter, write_frames
from rt2_jax.files.writing import seal
from rt2_jax.inputs.images import encode_jpeg

SIZE = 8


def frame(number: int) -> bytes:
    """A plain grey: number 5 is 5, number 261 too."""
    return encode_jpeg(np.full((SIZE, SIZE, 3), number % 256, np.uint8))


def write_prepared(
    data_dir: pathlib.Path,
    task: str,
    count: int,
    split: str = "train",
    first_token: int = 1000,
    files: int = 2,
    frames_of: str | None = None,
    **fields: object,
) -> PreparedIndex:
    """Writes `count` examples; number k has prompt [first_token + k] and a target of 1 + k % 3 tokens and EOS.

    Its frames are those of the dataset `frames_of`, which has the task's name otherwise; `fields` are the index's.
    """
    dataset = frames_of or task
    if not (data_dir / "prepared/frames" / dataset / split).is_dir():
        write_frames(data_dir, dataset, split, ["image"], ({"image": [frame(k)]} for k in range(count or 1)), task=task)
    known = KnownFrames.open(data_dir, dataset, split, "image", "")
    folder = prepared_dir(data_dir, task, split)
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array_records, "RECORDS_PER_FILE", -(-count // max(files, 1)))
        writer = SplitWriter(folder, task, [known], 1, Limits())
        for k in range(count):
            target = np.array([7] * (1 + k % 3) + [1], np.int32)
            writer.add([frame(k)], np.array([first_token + k], np.int32), target)
        index = writer.close(split, "a" * 64)
    index = dataclasses.replace(index, **fields)
    (folder / "index.json").write_text(index_to_json(index))
    seal(folder, KIND)
    return index


@pytest.fixture
def prepared():
    """The function `write_prepared`."""
    return write_prepared


@pytest.fixture(name="frame")
def _frame():
    """The function `frame`."""
    return frame
