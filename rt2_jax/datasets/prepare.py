"""``rt2 data prepare``: runs seqio tasks once and writes their examples as ArrayRecord, which training reads anywhere.

A split is written to a folder beside its place, sealed, and renamed when it is whole. Imports TensorFlow.
"""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import seqio
import tensorflow as tf
from array_record.python.array_record_module import ArrayRecordWriter
from rich.progress import Progress

from rt2_jax.actions.embodiment import Embodiment, difference
from rt2_jax.data.mixtures import ROBOT, WEB
from rt2_jax.data.records import (
    INDEX_NAME,
    KIND,
    SPLITS,
    PreparedIndex,
    Record,
    again,
    encode_record,
    index_to_json,
    is_prepared,
    prepared_dir,
    read_index,
)
from rt2_jax.datasets.seqio_vocabulary import SeqioVocabulary
from rt2_jax.datasets.tabletop.tasks import register
from rt2_jax.datasets.task_modules import registered_by
from rt2_jax.datasets.tasks import ActionFeature
from rt2_jax.datasets.tfds_folder import INFO_NAME
from rt2_jax.datasets.tfds_reading import check_dataset, check_source, dataset_identity, reading, task_folder
from rt2_jax.errors import UserError
from rt2_jax.files.writing import whole_folder, write_error
from rt2_jax.inputs.images import decode_image, encode_jpeg, image_info, resize_image
from rt2_jax.progress import progress_bar
from rt2_jax.tokens.vocabulary import Vocabulary

RECORDS_PER_FILE = 100_000
MAX_IMAGE_SIZE = 4096
# One record a chunk: reading one at random reads no other. JPEG does not compress further.
_WRITER_OPTIONS = "group_size:1,uncompressed"
# Examples that come out of TensorFlow at once: one by one, the hand-over costs more than the rest.
_CHUNK = 256


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


def prepare(
    data_dir: str | pathlib.Path,
    tasks: Sequence[str] | None = None,
    splits: Sequence[str] = SPLITS,
    vocabulary: Vocabulary | str | pathlib.Path | None = None,
    overwrite: bool = False,
    *,
    task_modules: Sequence[str] = (),
    image_size: int | None = None,
    prompt_len: int | None = None,
    target_len: int | None = None,
    show_progress: bool = True,
) -> list[PreparedIndex]:
    """Materialises tasks under ``<data_dir>/prepared``; what is already prepared in the same way is kept.

    Args:
        data_dir: where `build` wrote the tabletop's datasets, and where prepared data goes.
        tasks: names in seqio's registry; None takes the tabletop's and all that `task_modules` register.
        splits: those that a task does not have are passed over.
        vocabulary: of the tasks, or its file; None is the shipped one.
        overwrite: prepare again what was prepared otherwise, or from other data.
        task_modules: Python modules with a function ``register(data_dir, vocabulary)`` that registers further tasks and
            returns their names.
        image_size: frames of another size are resized to it; None keeps the dataset's, which must be square.
        prompt_len, target_len: examples with more tokens are left out, and reported; None leaves none out.
        show_progress: a progress bar on standard error.

    Returns:
        The index of every split, kept ones included.

    Raises:
        UserError: an unknown task, one with another vocabulary, a damaged dataset, data prepared otherwise or damaged,
            a split that another process is preparing, a bad example, a full disk.
    """
    data_dir = pathlib.Path(data_dir)
    if not isinstance(vocabulary, Vocabulary):
        vocabulary = Vocabulary.load(vocabulary) if vocabulary else Vocabulary.load()
    if image_size is not None and not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise UserError(f"image size is {image_size}; choose 1 to {MAX_IMAGE_SIZE}")
    names = _registered(data_dir, vocabulary, tasks, task_modules)
    limits = Limits(image_size, prompt_len, target_len)
    indices = []
    with progress_bar(show_progress) as progress:
        for name in names:
            task = seqio.TaskRegistry.get(name)
            _check_vocabulary(task, vocabulary)
            folder = task_folder(task)
            if folder is not None:
                check_dataset(folder)
            for split in splits:
                if split in task.splits:
                    indices.append(_prepare_split(data_dir, task, split, vocabulary, limits, overwrite, progress))
        for index in indices:
            if index.dropped:
                progress.console.print(
                    f"{index.task}/{index.split}: {index.dropped} of {index.dropped + index.num_examples} examples are "
                    f"longer than prompt_len {prompt_len} or target_len {target_len} and were left out"
                )
    return indices


def _registered(
    data_dir: pathlib.Path, vocabulary: Vocabulary, tasks: Sequence[str] | None, modules: Sequence[str]
) -> list[str]:
    known: list[str] = []
    for module in modules:
        known += registered_by(module, data_dir, vocabulary)
    own = {*ROBOT, *WEB}
    if tasks is None and not modules or own & set(tasks or ()):
        known += register(data_dir, vocabulary)
    for task in known if tasks is None else tasks:
        if task not in seqio.TaskRegistry.names():
            choices = ", ".join(sorted({*known, *own, *seqio.TaskRegistry.names()}))
            raise UserError(f"task {task!r} is not registered; choose from: {choices}; or name its module")
    return list(tasks) if tasks is not None else known


def _check_vocabulary(task: seqio.Task, vocabulary: Vocabulary) -> None:
    for name in ("inputs", "targets"):
        feature = task.output_features.get(name)
        words = feature and feature.vocabulary
        if not isinstance(words, SeqioVocabulary):
            raise UserError(f"task {task.name}: its feature {name!r} has no SeqioVocabulary; give it one")
        if words.vocabulary.sha256 != vocabulary.sha256:
            raise UserError(
                f"task {task.name} is registered with vocabulary {words.vocabulary.path}, asked for is "
                f"{vocabulary.path}; register it with the latter"
            )


def _prepare_split(
    data_dir: pathlib.Path,
    task: seqio.Task,
    split: str,
    vocabulary: Vocabulary,
    limits: Limits,
    overwrite: bool,
    progress: Progress,
) -> PreparedIndex:
    folder = prepared_dir(data_dir, task.name, split)
    source = _source_hash(task_folder(task))
    embodiment = _embodiment(task)
    if is_prepared(folder) and not overwrite:
        index = read_index(data_dir, task.name, split)
        differing = _difference(index, vocabulary, source, limits, embodiment)
        if differing:
            raise UserError(f"{folder} was prepared {differing}; {again(data_dir, task.name)}")
        return index
    bar = progress.add_task(f"{task.name}/{split}", total=None)
    try:
        with whole_folder(folder, KIND, overwrite=overwrite) as partial:
            writer = _SplitWriter(partial, task.name, limits)
            for images, prompts, targets in _chunks(task, split):
                for image, prompt, target in zip(images, prompts, targets, strict=True):
                    writer.add(image, prompt, target)
                progress.advance(bar, len(images))
            index = writer.close(split, vocabulary.sha256, source, embodiment)
            (partial / INDEX_NAME).write_text(index_to_json(index), encoding="utf-8")
    except OSError as error:
        raise write_error(folder, error) from error
    total = index.num_examples + index.dropped
    progress.update(bar, total=total, completed=total)
    return index


def _embodiment(task: seqio.Task) -> Embodiment | None:
    targets = task.output_features["targets"]
    return targets.embodiment if isinstance(targets, ActionFeature) else None


def _difference(
    index: PreparedIndex,
    vocabulary: Vocabulary,
    source: str,
    limits: Limits,
    embodiment: Embodiment | None,
) -> str | None:
    """How a prepared split is not what would be prepared now; None when it is."""
    wanted = {"vocabulary": vocabulary.sha256, "source": source}
    if limits.image_size:
        wanted["image_size"] = limits.image_size
    for field, value in wanted.items():
        found = getattr(index, field)
        if found != value:
            return f"from another {field.replace('_', ' ')} ({str(found)[:12]}, now {str(value)[:12]})"
    differing = difference(index.embodiment, embodiment, told=True)
    return differing and f"when {differing[0]} was {differing[1]}, now {differing[2]}"


def _chunks(task: seqio.Task, split: str) -> Iterator[tuple[Sequence[bytes], list[np.ndarray], list[np.ndarray]]]:
    """Images, prompts and targets of the task's examples, in its source's order."""
    check_source(task, split)
    dataset = task.get_dataset(split=split, shuffle=False, try_in_mem_cache=False, sequence_length=None)
    dataset = dataset.map(lambda example: {key: example[key] for key in ("image", "inputs", "targets")})
    with reading(task_folder(task), f"{task.name}/{split}"):
        for chunk in dataset.ragged_batch(_CHUNK).prefetch(2):
            yield chunk["image"].numpy(), _rows(chunk["inputs"]), _rows(chunk["targets"])


def _rows(ragged: tf.RaggedTensor) -> list[np.ndarray]:
    return np.split(ragged.values.numpy(), ragged.row_splits.numpy()[1:-1])


class _SplitWriter:
    """Writes examples to the files of one split and keeps count."""

    def __init__(self, folder: pathlib.Path, task: str, limits: Limits):
        self._folder = folder
        self._task = task
        self._limits = limits
        self._image_size = limits.image_size
        self._files: list[tuple[str, int]] = []
        self._writer: ArrayRecordWriter | None = None
        self._longest: collections.Counter[str] = collections.Counter()
        self._dropped = 0
        self._last_frame: tuple[bytes, bytes] = (b"", b"")

    def add(self, image: bytes, prompt: np.ndarray, target: np.ndarray) -> None:
        """Writes one example of the task, or counts it as too long."""
        for tokens, limit in ((prompt, self._limits.prompt_len), (target, self._limits.target_len)):
            if limit is not None and len(tokens) > limit:
                self._dropped += 1
                return
        record = Record((self._frame(image),), prompt, target, self._task)
        if self._writer is None or self._files[-1][1] == RECORDS_PER_FILE:
            self._next_file()
        try:
            self._writer.write(encode_record(record))
        except (RuntimeError, ValueError) as error:
            raise OSError(str(error)) from error
        self._files[-1] = (self._files[-1][0], self._files[-1][1] + 1)
        self._longest["prompt"] = max(self._longest["prompt"], len(prompt))
        self._longest["target"] = max(self._longest["target"], len(target))

    def close(
        self,
        split: str,
        vocabulary: str,
        source: str,
        embodiment: Embodiment | None = None,
    ) -> PreparedIndex:
        """Finishes the last file; what was written, as an index."""
        self._close_file()
        return PreparedIndex(
            task=self._task,
            split=split,
            num_examples=sum(count for _, count in self._files),
            files=tuple(self._files),
            vocabulary=vocabulary,
            image_size=self._image_size or 0,
            num_images=1,
            longest_prompt=self._longest["prompt"],
            longest_target=self._longest["target"],
            dropped=self._dropped,
            source=source,
            embodiment=embodiment,
        )

    def _next_file(self) -> None:
        self._close_file()
        name = f"part-{len(self._files):05d}.array_record"
        try:
            self._writer = ArrayRecordWriter(str(self._folder / name), _WRITER_OPTIONS)
        except (RuntimeError, ValueError) as error:
            raise OSError(str(error)) from error
        self._files.append((name, 0))

    def _close_file(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except (RuntimeError, ValueError) as error:
            raise OSError(str(error)) from error

    def _frame(self, data: bytes) -> bytes:
        """JPEG bytes of the wanted size; those that are so already pass untouched."""
        # The examples of one image follow each other.
        if self._last_frame[0] != data:
            self._last_frame = (data, self._fitted(data))
        return self._last_frame[1]

    def _fitted(self, data: bytes) -> bytes:
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


def _source_hash(folder: pathlib.Path | None) -> str:
    """What the dataset was when it was prepared, so that prepared data does not outlive a rebuilt one."""
    if folder is None:
        return ""
    identity = dataset_identity(folder)
    info = folder / INFO_NAME
    return identity or (hashlib.sha256(info.read_bytes()).hexdigest() if info.is_file() else "")
