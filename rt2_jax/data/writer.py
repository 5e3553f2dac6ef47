"""Writes prepared data: a dataset's frames once, then the examples of tasks that point at them. No TensorFlow."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.data.array_records import RecordsWriter
from rt2_jax.data.frames import (
    DIGEST_BYTES,
    INDEX_NAME,
    KIND,
    SOURCES_NAME,
    FramesIndex,
    FramesRef,
    frames_folder,
    frames_index_to_json,
    read_frames_index,
    source_digest,
)
from rt2_jax.data.records import KIND as SPLIT_KIND
from rt2_jax.data.records import NO_FRAME, PreparedIndex, Record, encode_record, index_to_json, prepared_dir
from rt2_jax.errors import UserError
from rt2_jax.files.manifest import find_damage, read_manifest
from rt2_jax.files.writing import whole_folder, write_error
from rt2_jax.inputs.images import decode_image, encode_jpeg, image_info, resize_image

# Images, prompt, target and instruction, as `SplitWriter.add` takes them.
Example = tuple[Sequence[bytes], np.ndarray, np.ndarray, str]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an example must keep to.

    Attributes:
        image_size: frames of another size are resized; None takes the first frame's, which must be square.
        prompt_len, target_len: longer examples are left out and counted; None leaves none out.
    """

    image_size: int | None = None
    prompt_len: int | None = None
    target_len: int | None = None


@dataclasses.dataclass(frozen=True)
class KnownFrames:
    """Frames that are written, for those who point at them.

    Attributes:
        ref: where they are.
        index: what they are.
        numbers: `source_digest` of what a frame was made from -> its number.
    """

    ref: FramesRef
    index: FramesIndex
    numbers: Mapping[bytes, int]

    @classmethod
    def open(cls, data_dir: pathlib.Path, dataset: str, split: str, camera: str, fix: str) -> "KnownFrames":
        """The frames of a dataset's split and camera.

        Raises:
            UserError: they are not there or damaged, as far as names, sizes and the two small files tell.
        """
        name = frames_folder(dataset, split, camera)
        folder = data_dir / "prepared" / name
        index, identity = read_frames_index(folder, fix)
        manifest = read_manifest(folder)
        damage = "its manifest is missing" if manifest is None else find_damage(folder, manifest, [SOURCES_NAME])
        if damage:
            raise UserError(f"{folder}: {damage}; {fix}")
        sources = (folder / SOURCES_NAME).read_bytes()
        digests = [sources[start : start + DIGEST_BYTES] for start in range(0, len(sources), DIGEST_BYTES)]
        numbers = {digest: number for number, digest in enumerate(digests)}
        return cls(FramesRef(camera, name, identity), index, numbers)


def write_frames(
    data_dir: pathlib.Path,
    dataset: str,
    split: str,
    cameras: Sequence[str],
    frames: Iterable[Mapping[str, Sequence[bytes]]],
    *,
    task: str,
    image_size: int | None = None,
    source: str = "",
    overwrite: bool = False,
) -> list[KnownFrames]:
    """Writes the frames of a dataset's split, in the order given, each once; a folder a camera, in their order.

    Args:
        data_dir: they go to ``prepared/frames`` below it.
        dataset, split: whose frames they are.
        cameras: to write.
        frames: encoded frames by camera, such as an episode's; b"" is none.
        task: whose function gives them, for messages.
        image_size: frames of another size are resized to it; None takes that of the first, which must be square.
        source: see `FramesIndex`.
        overwrite: replace what is there, whatever it is.

    Raises:
        UserError: an image that does not decode, none at all, a folder that must not be replaced or cannot be written.
    """
    folders = {camera: data_dir / "prepared" / frames_folder(dataset, split, camera) for camera in cameras}
    try:
        with contextlib.ExitStack() as stack:
            partial = {
                camera: stack.enter_context(whole_folder(folder, KIND, overwrite=overwrite))
                for camera, folder in folders.items()
            }
            writers = {camera: _FramesWriter(folder, task, image_size) for camera, folder in partial.items()}
            for found in frames:
                for camera, writer in writers.items():
                    for data in found[camera]:
                        writer.add(data)
            for camera, writer in writers.items():
                writer.close(dataset, split, camera, source)
    except OSError as error:
        raise write_error(next(iter(folders.values())), error) from error
    return [KnownFrames.open(data_dir, dataset, split, camera, "write them again") for camera in cameras]


def write_split(
    data_dir: pathlib.Path,
    task: str,
    split: str,
    examples: Iterable[Example],
    cameras: Sequence[KnownFrames],
    *,
    vocabulary: str,
    history: int = 1,
    limits: Limits | None = None,
    source: str = "",
    source_split: str | None = None,
    made_by: Mapping[str, str] | None = None,
    embodiment: Embodiment | None = None,
    kind: str = "text",
    overwrite: bool = False,
) -> PreparedIndex:
    """Writes one task's split, in the order given: whole and sealed, or not at all.

    Args:
        data_dir: it goes to ``prepared/<task>/<split>`` below it.
        task, split: what it is.
        examples: as `SplitWriter.add` takes them.
        cameras: the frames that the examples show.
        vocabulary: SHA-256 of the vocabulary that the tokens come from.
        history: frames of each camera in an example.
        limits: what the examples must keep to; None is no limit.
        source, source_split, made_by, embodiment, kind: see `PreparedIndex`.
        overwrite: replace what is there, whatever it is.

    Returns:
        Its index.

    Raises:
        UserError: what `SplitWriter` refuses, a folder that must not be replaced or cannot be written.
    """
    folder = prepared_dir(data_dir, task, split)
    try:
        with whole_folder(folder, SPLIT_KIND, overwrite=overwrite) as partial:
            writer = SplitWriter(partial, task, cameras, history, limits or Limits())
            for images, prompt, target, instruction in examples:
                writer.add(images, prompt, target, instruction)
            told = {"source": source, "source_split": source_split, "made_by": made_by and dict(made_by)}
            return writer.close(split, vocabulary, embodiment=embodiment, kind=kind, **told)
    except OSError as error:
        raise write_error(folder, error) from error


class _FramesWriter:
    """Writes the frames of one camera, each once."""

    def __init__(self, folder: pathlib.Path, task: str, image_size: int | None):
        self._folder, self._task, self._image_size = folder, task, image_size
        self._records = RecordsWriter(folder)
        self._digests: dict[bytes, None] = {}

    def add(self, data: bytes) -> None:
        """Writes an encoded frame that was not written before."""
        if not data:
            return
        digest = source_digest(data)
        if digest not in self._digests:
            self._records.add(self._fitted(data))
            self._digests[digest] = None

    def close(self, dataset: str, split: str, camera: str, source: str) -> None:
        """Finishes the last file and writes what tells of them."""
        self._records.close()
        if self._image_size is None or not self._digests:
            raise UserError(f"{self._task}: {dataset}/{split} has no image of camera {camera}; leave the split out")
        index = FramesIndex(
            dataset=dataset,
            split=split,
            camera=camera,
            num_frames=len(self._digests),
            files=self._records.files,
            image_size=self._image_size,
            num_bytes=self._records.num_bytes,
            source=source,
        )
        (self._folder / SOURCES_NAME).write_bytes(b"".join(self._digests))
        (self._folder / INDEX_NAME).write_text(frames_index_to_json(index), encoding="utf-8")

    def _fitted(self, data: bytes) -> bytes:
        """JPEG bytes of the wanted size; those that are so already pass untouched."""
        try:
            kind, size = image_info(data)
            # All of it: a frame that breaks off would otherwise be found by a training run.
            pixels = decode_image(data)
        except UserError as error:
            raise UserError(f"{self._task}: an image does not decode ({error}); repair or drop it") from error
        if self._image_size is None:
            if size[0] != size[1]:
                raise UserError(
                    f"{self._task}: frames are {size[0]} x {size[1]} pixels; give an image size (--image-size)"
                )
            self._image_size = size[0]
        if kind == "JPEG" and size == (self._image_size, self._image_size):
            return data
        return encode_jpeg(resize_image(pixels, self._image_size))


class SplitWriter:
    """Writes the examples of one task and split, which point at frames, and keeps count."""

    def __init__(self, folder: pathlib.Path, task: str, cameras: Sequence[KnownFrames], history: int, limits: Limits):
        """Writes to `folder`, an empty one; an example shows `history` frames of each of the `cameras`.

        Raises:
            UserError: the cameras' frames differ in size.
        """
        sizes = {known.ref.camera: known.index.image_size for known in cameras}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{camera} {size}" for camera, size in sizes.items())
            raise UserError(f"{task}: its cameras' frames differ in size ({told} pixels); give one (--image-size)")
        self._folder, self._task, self._limits = folder, task, limits
        self._cameras, self._history = cameras, history
        self._records = RecordsWriter(folder)
        self._longest = {"prompt": 0, "target": 0, "history": 0}
        self._dropped = 0

    def add(self, images: Sequence[bytes], prompt: np.ndarray, target: np.ndarray, instruction: str = "") -> None:
        """Writes one example, or counts it as too long.

        Args:
            images: encoded as in the source, oldest first, and of each moment the cameras in order; b"" is no frame.
            prompt, target: int32[T'], int32[L'] as in `Record`.
            instruction: as in `Record`.

        Raises:
            UserError: an image that is not among the frames, or another number of them.
            OSError: the disk refuses it.
        """
        for tokens, limit in ((prompt, self._limits.prompt_len), (target, self._limits.target_len)):
            if limit is not None and len(tokens) > limit:
                self._dropped += 1
                return
        wanted = self._history * len(self._cameras)
        if len(images) != wanted:
            raise UserError(f"{self._task}: an example has {len(images)} images, another {wanted}; give all as many")
        frames = np.array([self._number(place, data) for place, data in enumerate(images)], np.int64)
        self._records.add(encode_record(Record(frames, prompt, target, self._task, instruction)))
        seen = int((frames != NO_FRAME).reshape(self._history, -1).any(axis=1).sum())
        for what, found in (("prompt", len(prompt)), ("target", len(target)), ("history", seen)):
            self._longest[what] = max(self._longest[what], found)

    def close(self, split: str, vocabulary: str, **told: Any) -> PreparedIndex:
        """Finishes the last file and writes the index; returns it.

        Args:
            split, vocabulary: see `PreparedIndex`.
            told: the other fields of the index that the writer cannot know: `source`, `embodiment` and the like.

        Raises:
            UserError: no example has a history as long as was asked for.
            OSError: the disk refuses it.
        """
        self._records.close()
        num_examples = sum(count for _, count in self._records.files)
        if num_examples and self._longest["history"] < self._history:
            raise UserError(
                f"{self._task}/{split}: history is {self._history} frames, its longest episode has "
                f"{self._longest['history']}; lower history to that or less"
            )
        index = PreparedIndex(
            task=self._task,
            split=split,
            num_examples=num_examples,
            files=self._records.files,
            vocabulary=vocabulary,
            image_size=self._cameras[0].index.image_size,
            num_images=self._history * len(self._cameras),
            longest_prompt=self._longest["prompt"],
            longest_target=self._longest["target"],
            dropped=self._dropped,
            prompt_len=self._limits.prompt_len,
            target_len=self._limits.target_len,
            frames=tuple(known.ref for known in self._cameras),
            history=self._history,
            num_bytes=self._records.num_bytes,
            **told,
        )
        (self._folder / INDEX_NAME).write_text(index_to_json(index), encoding="utf-8")
        return index

    def _number(self, place: int, data: bytes) -> int:
        if not data:
            return NO_FRAME
        known = self._cameras[place % len(self._cameras)]
        number = known.numbers.get(source_digest(data))
        if number is None:
            raise UserError(
                f"{self._task}: an image of camera {known.ref.camera} is not among prepared/{known.ref.folder}, which "
                "another task's function gave; name this one's camera otherwise"
            )
        return number
