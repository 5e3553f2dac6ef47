"""Prepared data made of plain colours: what the readers need, without TensorFlow or the simulator."""

import pathlib

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from rt2_jax.data.records import KIND, PreparedIndex, Record, encode_record, index_to_json, prepared_dir
from rt2_jax.files.writing import seal
from rt2_jax.inputs.images import encode_jpeg

SIZE = 8


def write_prepared(
    data_dir: pathlib.Path,
    task: str,
    count: int,
    split: str = "train",
    first_token: int = 1000,
    files: int = 2,
    **fields: object,
) -> PreparedIndex:
    """Writes `count` examples; number k has prompt [first_token + k] and a target of 1 + k % 3 tokens and EOS."""
    folder = prepared_dir(data_dir, task, split)
    folder.mkdir(parents=True)
    written = []
    numbers = np.array_split(np.arange(count), files) if files else []
    for part, mine in enumerate(numbers):
        name = f"part-{part:05d}.array_record"
        writer = ArrayRecordWriter(str(folder / name), "group_size:1,uncompressed")
        for k in mine:
            image = np.full((SIZE, SIZE, 3), k % 256, np.uint8)
            target = np.array([7] * (1 + k % 3) + [1], np.int32)
            record = Record((encode_jpeg(image),), np.array([first_token + k], np.int32), target, task)
            writer.write(encode_record(record))
        writer.close()
        written.append((name, len(mine)))
    defaults = {"vocabulary": "a" * 64, "image_size": SIZE, "num_images": 1, "longest_prompt": 1, "longest_target": 4}
    index = PreparedIndex(task, split, count, tuple(written), **(defaults | fields))
    (folder / "index.json").write_text(index_to_json(index))
    seal(folder, KIND)
    return index


@pytest.fixture
def prepared():
    """The function `write_prepared`."""
    return write_prepared
