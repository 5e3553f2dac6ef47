"""``rt2 data prepare``: runs seqio tasks once and writes their examples as ArrayRecord, which training reads anywhere.

A split is written to a folder beside its place, sealed, and renamed when it is whole. Imports TensorFlow.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from rich.progress import Progress

from rt2_jax.data.frames import FOLDER as FRAMES_FOLDER
from rt2_jax.data.frames import INDEX_NAME as FRAMES_INDEX_NAME
from rt2_jax.data.frames import KIND as FRAMES_KIND
from rt2_jax.data.frames import FramesReader
from rt2_jax.data.mixtures import FOLDER as MIXTURES_FOLDER
from rt2_jax.data.mixtures import record_mixture
from rt2_jax.data.records import (
    KIND,
    SPLITS,
    PreparedIndex,
    again,
    is_prepared,
    prepared_dir,
    read_index,
)
from rt2_jax.data.sealed import is_there
from rt2_jax.data.writer import Example, KnownFrames, Limits, write_frames, write_split
from rt2_jax.datasets.fingerprint import fingerprints
from rt2_jax.datasets.kept import Wanted, difference, frames_difference
from rt2_jax.datasets.seqio_mixtures import resolve_mixture
from rt2_jax.datasets.seqio_vocabulary import SeqioVocabulary
from rt2_jax.datasets.tabletop import tasks as tabletop
from rt2_jax.datasets.task_modules import registered_by
from rt2_jax.datasets.task_spec import TaskSpec, frames_folders, frames_of, spec_of
from rt2_jax.datasets.tfds_reading import check_dataset, check_source, reading, source_identity, task_folder
from rt2_jax.errors import UserError
from rt2_jax.files.writing import clear_leftovers
from rt2_jax.progress import progress_bar
from rt2_jax.tokens.vocabulary import Vocabulary

MAX_IMAGE_SIZE = 4096
# Examples that come out of TensorFlow at once: one by one, the hand-over costs more than the rest.
_CHUNK = 256


def prepare(
    data_dir: str | pathlib.Path,
    tasks: Sequence[str] | None = None,
    splits: Sequence[str] = SPLITS,
    vocabulary: Vocabulary | str | pathlib.Path | None = None,
    overwrite: bool = False,
    *,
    mixture: str | None = None,
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
        mixture: a name in seqio's registry, in place of `tasks`: its tasks are prepared, and their weights recorded.
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
        UserError: an unknown task or mixture, a task with another vocabulary, a damaged dataset, data prepared
            otherwise or damaged, a split that another process is preparing, a bad example, a full disk.
    """
    data_dir = pathlib.Path(data_dir)
    if not isinstance(vocabulary, Vocabulary):
        vocabulary = Vocabulary.load(vocabulary) if vocabulary else Vocabulary.load()
    if image_size is not None and not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise UserError(f"image size is {image_size}; choose 1 to {MAX_IMAGE_SIZE}")
    known = _register(data_dir, vocabulary, task_modules, tasks if mixture is None else [mixture])
    mixed = resolve_mixture(mixture) if mixture is not None else None
    names = list(mixed.weights if mixed else known if tasks is None else tasks)
    for name in names:
        _check_name(name, known)
    limits = Limits(image_size, prompt_len, target_len)
    indices = []
    with progress_bar(show_progress) as progress:
        preparing = _Preparing(data_dir, vocabulary, limits, overwrite, progress)
        for name in names:
            task = seqio.TaskRegistry.get(name)
            _check_vocabulary(task, vocabulary)
            folder = task_folder(task)
            if folder is not None:
                check_dataset(folder)
            indices += [preparing.split(task, split) for split in splits if split in task.splits]
        for index in indices:
            if index.dropped:
                progress.console.print(
                    f"{index.task}/{index.split}: {index.dropped} of {index.dropped + index.num_examples} examples are "
                    f"longer than prompt_len {prompt_len} or target_len {target_len} and were left out"
                )
    if mixed:
        record_mixture(data_dir, mixed)
    return indices


def _register(
    data_dir: pathlib.Path, vocabulary: Vocabulary, modules: Sequence[str], asked: Sequence[str] | None
) -> list[str]:
    """Registers the tabletop's tasks where its datasets are, and those of the user's modules; the tasks by default."""
    own: list[str] = []
    if tabletop.is_built(data_dir) or (not modules if asked is None else any(map(tabletop.offers, asked))):
        own = tabletop.register(data_dir, vocabulary)
    return [name for module in modules for name in registered_by(module, data_dir, vocabulary)] if modules else own


def _check_name(task: str, known: Sequence[str]) -> None:
    if task not in seqio.TaskRegistry.names():
        choices = ", ".join(sorted({*known, *seqio.TaskRegistry.names()})) or "none"
        raise UserError(f"task {task!r} is not registered; choose from: {choices}; or name its module")
    if task in (FRAMES_FOLDER, MIXTURES_FOLDER):
        raise UserError(f"task {task!r} has the name of a folder of prepared data; give it another")


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


class _Preparing:
    """One call of `prepare`: what it was asked for, and what it has done."""

    def __init__(
        self, data_dir: pathlib.Path, vocabulary: Vocabulary, limits: Limits, overwrite: bool, progress: Progress
    ):
        self._data_dir, self._vocabulary, self._limits = data_dir, vocabulary, limits
        self._overwrite, self._progress = overwrite, progress
        self._written: set[str] = set()  # folders of frames
        self._known: dict[str, KnownFrames] = {}  # of the dataset that was the last: the next task's too, as a rule

    def split(self, task: seqio.Task, split: str) -> PreparedIndex:
        """Prepares a task's split, or finds it prepared in the same way."""
        folder = prepared_dir(self._data_dir, task.name, split)
        spec = spec_of(task)
        wanted = Wanted(
            spec=spec,
            split=split,
            vocabulary=self._vocabulary.sha256,
            source=source_identity(spec.folder),
            frames=frames_folders(task, spec, split),
            limits=self._limits,
        )
        if is_prepared(folder) and not self._overwrite:
            index = read_index(self._data_dir, task.name, split)
            differing = difference(index, wanted)
            if differing:
                raise UserError(f"{folder} was prepared {differing}; {self._again(task)}")
            clear_leftovers(folder, KIND)
            for ref in index.frames:
                clear_leftovers(self._data_dir / "prepared" / ref.folder, FRAMES_KIND)
                FramesReader(self._data_dir / "prepared", ref, task.name, again(self._data_dir, task.name))
            return index
        cameras = self._frames(task, wanted)
        return write_split(
            self._data_dir,
            task.name,
            split,
            self._examples(task, split),
            cameras,
            vocabulary=wanted.vocabulary,
            history=spec.history,
            limits=wanted.limits,
            source=wanted.source,
            source_split=spec.source_split(split),
            made_by=fingerprints(spec.made_by),
            embodiment=spec.embodiment,
            kind=spec.kind,
            overwrite=self._overwrite,
        )

    def _again(self, task: seqio.Task) -> str:
        """The command that prepares it as it was asked for now."""
        given = {field.name: getattr(self._limits, field.name) for field in dataclasses.fields(self._limits)}
        told = {f"--{name.replace('_', '-')}": str(value) for name, value in given.items() if value is not None}
        return again(self._data_dir, task.name, options=[word for pair in told.items() for word in pair])

    def _examples(self, task: seqio.Task, split: str) -> Iterator[Example]:
        bar, total = self._progress.add_task(f"{task.name}/{split}", total=None), 0
        for chunk in _chunks(task, split):
            for images, prompt, target, instruction in zip(*chunk, strict=True):
                yield list(images), prompt, target, instruction.decode("utf-8")
            total += len(chunk[0])
            self._progress.advance(bar, len(chunk[0]))
        self._progress.update(bar, total=total, completed=total)

    def _frames(self, task: seqio.Task, asked: Wanted) -> list[KnownFrames]:
        """The frames of a task's cameras, in order; written where they are not there yet."""
        dataset, source_split = frames_of(task, asked.spec, asked.split)
        fix = again(self._data_dir, task.name)
        if any(known.index.dataset != dataset for known in self._known.values()):
            self._known = {}
        wanted = []
        for camera, folder in asked.frames.items():
            path = self._data_dir / "prepared" / folder
            if folder in self._known:
                continue
            if (self._overwrite and folder not in self._written) or not is_there(path, FRAMES_INDEX_NAME):
                wanted.append(camera)
                continue
            clear_leftovers(path, FRAMES_KIND)
            known = KnownFrames.open(self._data_dir, dataset, source_split, camera, fix)
            differing = frames_difference(known.index, asked.source, asked.limits.image_size)
            if differing:
                raise UserError(f"{path} was prepared {differing}; {self._again(task)}")
            self._known[folder] = known
        if wanted:
            written = write_frames(
                self._data_dir,
                dataset,
                source_split,
                wanted,
                self._told(_all_frames(task, asked.spec, asked.split), f"frames of {dataset}/{source_split}"),
                task=task.name,
                image_size=asked.limits.image_size,
                source=asked.source,
                overwrite=self._overwrite,
            )
            self._known.update({known.ref.folder: known for known in written})
            self._written.update(known.ref.folder for known in written)
        return [self._known[folder] for folder in asked.frames.values()]

    def _told(self, frames: Iterator[Mapping[str, Sequence[bytes]]], what: str) -> Iterator[Mapping[str, Any]]:
        bar, total = self._progress.add_task(what, total=None), 0
        for found in frames:
            yield found
            count = max(map(len, found.values()))
            total += count
            self._progress.advance(bar, count)
        self._progress.update(bar, total=total, completed=total)


def _all_frames(task: seqio.Task, spec: TaskSpec, split: str) -> Iterator[Mapping[str, Sequence[bytes]]]:
    """Every frame by camera, in the source's order: of the whole dataset, or those that the task itself gives."""
    check_source(task, split)
    if spec.frames is None:
        count = len(spec.cameras)
        for images, *_ in _chunks(task, split):
            yield {
                camera: [data for row in images for data in row[place::count]]
                for place, camera in enumerate(spec.cameras)
            }
        return
    dataset = task.source.get_dataset(split, shuffle=False).map(spec.frames, num_parallel_calls=2)
    with reading(spec.folder, f"{task.name}/{split}"):
        for found in dataset.prefetch(2):
            yield {camera: images.numpy() for camera, images in found.items()}


Images = Sequence[np.ndarray] | np.ndarray
Chunk = tuple[Images, list[np.ndarray], list[np.ndarray], Sequence[bytes]]


def _chunks(task: seqio.Task, split: str) -> Iterator[Chunk]:
    """Images, prompts, targets and instructions of the task's examples, in its source's order."""
    check_source(task, split)
    dataset = task.get_dataset(split=split, shuffle=False, try_in_mem_cache=False, sequence_length=None)
    keys = [key for key in ("image", "inputs", "targets", "instruction") if key in dataset.element_spec]
    dataset = dataset.map(lambda example: {key: example[key] for key in keys})
    with reading(task_folder(task), f"{task.name}/{split}"):
        for chunk in dataset.ragged_batch(_CHUNK).prefetch(2):
            prompts, targets = _rows(chunk["inputs"]), _rows(chunk["targets"])
            instructions = chunk["instruction"].numpy() if "instruction" in chunk else [b""] * len(prompts)
            yield _images(chunk["image"]), prompts, targets, instructions


def _images(chunk: tf.Tensor | tf.RaggedTensor) -> Images:
    """The images of each example: a string scalar each, or string[N]."""
    if isinstance(chunk, tf.RaggedTensor):
        return _rows(chunk)
    images = chunk.numpy()
    return images if images.ndim == 2 else images[:, None]


def _rows(ragged: tf.RaggedTensor) -> list[np.ndarray]:
    return np.split(ragged.values.numpy(), ragged.row_splits.numpy()[1:-1])
