"""The prepared form of a task: step-level records in ArrayRecord files, and the index that describes them.

Layout: ``<data_dir>/prepared/<task>/<split>/`` holds ``part-00000.array_record`` ..., ``index.json`` and the
``manifest.json`` that seals them. No TensorFlow.
"""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgpack
import msgspec
import numpy as np

from rt2_jax.actions.embodiment import Embodiment, difference, hashed, with_hash
from rt2_jax.data.mixtures import ROBOT, WEB
from rt2_jax.errors import UserError
from rt2_jax.files.manifest import MANIFEST_NAME, find_damage, read_manifest, told
from rt2_jax.typed import Count, Natural, build, check_fields, read_json, shown

FORMAT = 3
KIND = "prepared split"
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
        embodiment: what its frames and the integers of its actions mean; None for a task without actions.

    Raises:
        UserError: fields that contradict each other.
    """

    task: str
    split: str
    num_examples: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    files: tuple[tuple[str, Annotated[int, msgspec.Meta(ge=0, le=2**62)]], ...]
    vocabulary: str
    image_size: Count
    num_images: Count
    longest_prompt: Natural
    longest_target: Natural
    dropped: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    source: str = ""
    embodiment: Embodiment | None = None

    def __post_init__(self) -> None:
        check_fields(self, f"index of {shown(self.task)}/{shown(self.split)}")
        in_files = sum(count for _, count in self.files)
        if in_files != self.num_examples:
            raise UserError(f"{self.task}/{self.split}: num_examples is {self.num_examples}, its files hold {in_files}")


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
    # Names with a dot in front are what a killed process was writing.
    found = [path.parent for path in (pathlib.Path(data_dir) / "prepared").glob(f"*/*/{INDEX_NAME}")]
    return tuple(sorted({path.parent.name for path in found if not path.name.startswith(".")}))


def index_to_json(index: PreparedIndex) -> str:
    """The text of ``index.json``."""
    fields = {field.name: getattr(index, field.name) for field in dataclasses.fields(index)}
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
        raise UserError(f"{folder} is not a prepared split (prepared tasks: {known}); run `rt2 data prepare` first")
    mend = again(data_dir, task)
    damage = _why_damaged(folder)
    if damage:
        raise UserError(f"{folder}: {damage}; {mend}")
    try:
        fields = read_json(path, fix=mend)
        version = fields.pop("format", None)
        if type(version) is not int or version != FORMAT:
            raise UserError(f"{path}: format {shown(version)}, this release reads {FORMAT}; {mend}")
        index = _index(fields, str(path))
    except KeyError as error:
        raise UserError(f"{path} is damaged ({error} is missing); {mend}") from error
    except UserError as error:
        if mend in str(error):
            raise
        raise UserError(f"{path} is damaged ({error}); {mend}") from error
    if (index.task, index.split) != (task, split):
        raise UserError(f"{path} describes {index.task}/{index.split}, not {task}/{split}; {mend}")
    return index


def is_prepared(folder: pathlib.Path) -> bool:
    """Whether a folder is a prepared split, whole or damaged."""
    return (folder / INDEX_NAME).is_file() or (folder / MANIFEST_NAME).is_file()


def _why_damaged(folder: pathlib.Path) -> str | None:
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            return f"prepared by an earlier release or damaged (no {MANIFEST_NAME})"
        if manifest.kind != KIND or INDEX_NAME not in manifest.files:
            return f"it is sealed as {told(manifest)}, not as {KIND}"
        return find_damage(folder, manifest, [INDEX_NAME])
    except UserError:
        return f"{MANIFEST_NAME} is damaged"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


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
    return {name: index.embodiment for name, index in first.items()}


def again(data_dir: str | pathlib.Path, task: str) -> str:
    """The fix for anything that is wrong with a prepared task."""
    command = shlex.join(["rt2", "data", "prepare", "--data", str(data_dir), "--tasks", task, "--overwrite"])
    return f"run `{command}`" + ("" if task in {*ROBOT, *WEB} else ", with the --task-modules that register the task")


def _index(fields: Mapping[str, Any], where: str) -> PreparedIndex:
    embodiment = fields["embodiment"]
    embodiment = None if embodiment is None else hashed(embodiment, where, "embodiment")
    return build(PreparedIndex, {**fields, "embodiment": embodiment}, where)
