"""The prepared form of a task: step-level records in ArrayRecord files, and the index that describes them.

Layout: ``<data_dir>/prepared/<task>/<split>/`` holds ``part-00000.array_record`` ..., ``index.json`` and the
``manifest.json`` that seals them. A record points at its frames, which lie once for all tasks in folders of their own
(`data.frames`). No TensorFlow.
"""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

from rt2_jax.actions.embodiment import Embodiment, difference, hashed, with_hash
from rt2_jax.data.frames import FramesRef, Size
from rt2_jax.data.sealed import is_there, read_sealed
from rt2_jax.errors import UserError
from rt2_jax.typed import Count, Natural, build, check_fields, shown

FORMAT = 3
KIND = "prepared split"
INDEX_NAME = "index.json"
SPLITS = ("train", "validation")
# The number of a frame that is not there: the episode is younger than the history.
NO_FRAME = -1


@dataclasses.dataclass(frozen=True)
class Record:
    """One example as it is stored.

    Attributes:
        frames: int64[N], numbers of its frames, oldest first, and of each moment the cameras in their order; `NO_FRAME`
            where the episode is younger.
        prompt: int32[T'], without EOS or padding.
        target: int32[L'], EOS last, no padding.
        task: the task's name.
        instruction: what the robot is told to do, "" where nothing is.
    """

    frames: np.ndarray
    prompt: np.ndarray
    target: np.ndarray
    task: str
    instruction: str = ""


@dataclasses.dataclass(frozen=True)
class PreparedIndex:
    """What ``index.json`` says of one prepared split.

    Attributes:
        task, split: what was prepared.
        num_examples: records in all files together.
        files: (file name, records), in order; record number n of the split counts through them.
        vocabulary: SHA-256 of the vocabulary its tokens come from.
        image_size: side of the stored frames in pixels.
        num_images: N, frames in each example: `history` times the cameras.
        longest_prompt, longest_target: tokens of the longest example, EOS included in targets.
        dropped: examples left out because they passed the length limits given when preparing.
        prompt_len, target_len: those limits; None where there was none.
        source: SHA-256 of the dataset's own description, "" where the source has none.
        source_split: the dataset's split or slice, such as "train[:95%]"; None in an index that does not say.
        made_by: SHA-256 of each function that made the examples, by what it does, and the settings that they were made
            with, as text; None in an index that does not say.
        frames: where its frames are, one a camera, in their order.
        history: frames of each camera in an example.
        kind: what its prompts ask for: "action", "plan", or a kind of text such as "vqa".
        num_bytes: of all records, their frames aside.
        embodiment: what its frames and the integers of its actions mean; None for a task without actions.

    Raises:
        UserError: fields that contradict each other.
    """

    task: str
    split: str
    num_examples: Size
    files: tuple[tuple[str, Size], ...]
    vocabulary: str
    image_size: Count
    num_images: Count
    longest_prompt: Natural
    longest_target: Natural
    dropped: Size = 0
    prompt_len: Natural | None = None
    target_len: Natural | None = None
    source: str = ""
    source_split: str | None = None
    made_by: dict[str, str] | None = None
    frames: tuple[FramesRef, ...] = ()
    history: Count = 1
    kind: str = "text"
    num_bytes: Size = 0
    embodiment: Embodiment | None = None

    def __post_init__(self) -> None:
        check_fields(self, f"index of {shown(self.task)}/{shown(self.split)}")
        in_files = sum(count for _, count in self.files)
        if in_files != self.num_examples:
            raise UserError(f"{self.task}/{self.split}: num_examples is {self.num_examples}, its files hold {in_files}")
        if self.num_images != self.history * len(self.frames):
            raise UserError(
                f"{self.task}/{self.split}: num_images is {self.num_images}, its history of {self.history} frames from "
                f"{len(self.frames)} cameras makes {self.history * len(self.frames)}"
            )


def encode_record(record: Record) -> bytes:
    """The record as msgpack bytes; `decode_record` is the inverse."""
    return msgpack.packb(  # pyright: ignore[reportReturnType]: None is what a Packer that keeps its bytes gives
        {
            "frames": record.frames.tolist(),
            "prompt": np.ascontiguousarray(record.prompt, "<i4").tobytes(),
            "target": np.ascontiguousarray(record.target, "<i4").tobytes(),
            "task": record.task,
            "instruction": record.instruction,
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
            frames=np.asarray(fields["frames"], np.int64),
            prompt=np.frombuffer(fields["prompt"], "<i4"),
            target=np.frombuffer(fields["target"], "<i4"),
            task=fields["task"],
            instruction=fields["instruction"],
        )
    except (msgpack.UnpackException, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{len(data)} bytes that are not a prepared record ({error!r})") from error


def prepared_dir(data_dir: str | pathlib.Path, task: str, split: str) -> pathlib.Path:
    """The folder of one prepared split."""
    return pathlib.Path(data_dir) / "prepared" / task / split


def prepared_tasks(data_dir: str | pathlib.Path) -> tuple[str, ...]:
    """Names of the tasks that have at least one prepared split, sorted."""
    # Names with a dot in front are what a killed process was writing.
    found = [path.parent for path in (pathlib.Path(data_dir) / "prepared").glob(f"*/*/{INDEX_NAME}")]
    return tuple(sorted({path.parent.name for path in found if not path.name.startswith(".")}))


def index_to_json(index: PreparedIndex) -> str:
    """The text of ``index.json``."""
    fields = {field.name: getattr(index, field.name) for field in dataclasses.fields(index)}
    fields["frames"] = [dataclasses.asdict(ref) for ref in index.frames]
    fields["embodiment"] = index.embodiment and with_hash(index.embodiment)
    return json.dumps({"format": FORMAT} | fields, indent=2, allow_nan=False) + "\n"


def read_index(data_dir: str | pathlib.Path, task: str, split: str) -> PreparedIndex:
    """Reads a prepared split's index, once its bytes are those that were sealed.

    Of the split's other files names and sizes are checked; each record has a checksum of its own, checked when read.

    Raises:
        UserError: the split is not prepared, not whole, of another format or damaged.
    """
    folder = prepared_dir(data_dir, task, split)
    path = folder / INDEX_NAME
    if not is_prepared(folder):
        known = ", ".join(prepared_tasks(data_dir)) or "none"
        raise UserError(f"{folder} is not a prepared split (prepared tasks: {known}); {again(data_dir, task, False)}")
    mend = again(data_dir, task)
    fields = read_sealed(folder, KIND, INDEX_NAME, FORMAT, mend)
    try:
        index = _index(fields, str(path))
    except KeyError as error:
        raise UserError(f"{path} is damaged ({error} is missing); {mend}") from error
    except UserError as error:
        raise UserError(f"{path} is damaged ({error}); {mend}") from error
    if (index.task, index.split) != (task, split):
        raise UserError(f"{path} describes {index.task}/{index.split}, not {task}/{split}; {mend}")
    return index


def is_prepared(folder: pathlib.Path) -> bool:
    """Whether a folder is a prepared split, whole or damaged."""
    return is_there(folder, INDEX_NAME)


def read_embodiments(data_dir: str | pathlib.Path, tasks: Iterable[str], split: str = "train") -> dict[str, Embodiment]:
    """The embodiments of a mixture's robot tasks by name, in the tasks' order; empty where it has none.

    Where datasets of one embodiment have cards that tell different things of the data, the first task's is given.

    Raises:
        UserError: a task is not prepared, two tasks mean different things by one name, or two splits of one task do.
    """
    first: dict[str, PreparedIndex] = {}
    for task in tasks:
        index = read_index(data_dir, task, split)
        for other_split in set(SPLITS) - {split}:
            if is_prepared(prepared_dir(data_dir, task, other_split)):
                differing = difference(index.embodiment, read_index(data_dir, task, other_split).embodiment)
                if differing:
                    what, one, other = differing
                    raise UserError(
                        f"task {task}: {what} is {one} in {split} and {other} in {other_split}; {again(data_dir, task)}"
                    )
        if index.embodiment is None:
            continue
        name = index.embodiment.name
        known = first.setdefault(name, index)
        differing = difference(known.embodiment, index.embodiment)
        if differing:
            what, one, other = differing
            raise UserError(
                f"tasks {known.task} and {task} both call their embodiment {name}, and mean different things by it: "
                f"{what} is {one} and {other}; prepare both with one card, or give one card another name"
            )
    return {name: index.embodiment for name, index in first.items() if index.embodiment is not None}


def again(data_dir: str | pathlib.Path, task: str, overwrite: bool = True, options: Sequence[str] = ()) -> str:
    """The fix for anything that is wrong with a prepared task, or without `overwrite` for one that is not prepared."""
    words = ["rt2", "data", "prepare", "--data", str(data_dir), "--tasks", task]
    command = shlex.join([*words, *["--overwrite"] * overwrite, *options])
    return f"run `{command}`, with the --task-modules that register the task, if any"


def _index(fields: Mapping[str, Any], where: str) -> PreparedIndex:
    embodiment = fields["embodiment"]
    embodiment = None if embodiment is None else hashed(embodiment, where, "embodiment")
    return build(PreparedIndex, {**fields, "embodiment": embodiment}, where)
