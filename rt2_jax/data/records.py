"""The prepared form of a task: step-level records in ArrayRecord files, and the index that describes them.

Layout: ``<data_dir>/prepared/<task>/<split>/`` holds ``part-00000.array_record`` ... and ``index.json``. No TensorFlow.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from rt2_jax.errors import UserError

FORMAT = 1
INDEX_NAME = "index.json"
SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True)
class Record:
    """One example as it is stored.

    Attributes:
        images: encoded (JPEG) frames, oldest first.
        prompt: int32[T'], without EOS or padding.
        target: int32[L'], EOS last, no padding.
        task: the task's name.
    """

    images: tuple[bytes, ...]
    prompt: np.ndarray
    target: np.ndarray
    task: str


@dataclasses.dataclass(frozen=True)
class PreparedIndex:
    """What ``index.json`` says of one prepared split.

    Attributes:
        task, split: what was prepared.
        num_examples: records in all files together.
        files: (file name, records), in order; record number n of the split counts through them.
        vocabulary: SHA-256 of the vocabulary its tokens come from.
        image_size: side of the stored frames in pixels.
        num_images: frames in each example.
        longest_prompt, longest_target: tokens of the longest example, EOS included in targets.
        dropped: examples left out because they passed the length limits given when preparing.
        source: SHA-256 of the dataset's own description, "" where the source has none.
    """

    task: str
    split: str
    num_examples: int
    files: tuple[tuple[str, int], ...]
    vocabulary: str
    image_size: int
    num_images: int
    longest_prompt: int
    longest_target: int
    dropped: int = 0
    source: str = ""


def encode_record(record: Record) -> bytes:
    """The record as msgpack bytes; `decode_record` is the inverse."""
    return msgpack.packb(
        {
            "images": list(record.images),
            "prompt": np.ascontiguousarray(record.prompt, "<i4").tobytes(),
            "target": np.ascontiguousarray(record.target, "<i4").tobytes(),
            "task": record.task,
        }
    )


def decode_record(data: bytes) -> Record:
    """The record that `encode_record` wrote.

    Raises:
        ValueError: the bytes are not such a record.
    """
    try:
        fields = msgpack.unpackb(data)
        return Record(
            images=tuple(fields["images"]),
            prompt=np.frombuffer(fields["prompt"], "<i4"),
            target=np.frombuffer(fields["target"], "<i4"),
            task=fields["task"],
        )
    except (msgpack.UnpackException, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{len(data)} bytes that are not a prepared record ({error!r})") from error


def prepared_dir(data_dir: str | pathlib.Path, task: str, split: str) -> pathlib.Path:
    """The folder of one prepared split."""
    return pathlib.Path(data_dir) / "prepared" / task / split


def prepared_tasks(data_dir: str | pathlib.Path) -> tuple[str, ...]:
    """Names of the tasks that have at least one prepared split, sorted."""
    found = {path.parent.parent.name for path in (pathlib.Path(data_dir) / "prepared").glob(f"*/*/{INDEX_NAME}")}
    return tuple(sorted(name for name in found if not name.startswith(".")))


def index_to_json(index: PreparedIndex) -> str:
    """The text of ``index.json``."""
    return json.dumps({"format": FORMAT} | dataclasses.asdict(index), indent=2) + "\n"


def read_index(data_dir: str | pathlib.Path, task: str, split: str) -> PreparedIndex:
    """Reads a prepared split's index.

    Raises:
        UserError: the split is not prepared, or its index is of another format or damaged.
    """
    folder = prepared_dir(data_dir, task, split)
    path = folder / INDEX_NAME
    if not path.is_file():
        known = ", ".join(prepared_tasks(data_dir)) or "none"
        raise UserError(f"{folder} is not a prepared split (prepared tasks: {known}); run `rt2 data prepare` first")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version = fields.pop("format", None)
        if version != FORMAT:
            raise UserError(f"{path}: format {version!r}, this release reads {FORMAT}; {again(task)}")
        return _index(fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); {again(task)}") from error


def again(task: str) -> str:
    """The mend for anything that is wrong with a prepared task."""
    return f"run `rt2 data prepare --tasks {task} --overwrite`"


def _index(fields: Mapping[str, Any]) -> PreparedIndex:
    return PreparedIndex(**{**fields, "files": tuple((str(name), int(count)) for name, count in fields["files"])})
