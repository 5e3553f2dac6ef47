"""TFDS folders as they are found: what is wrong with one is told in a line, and never by TensorFlow's traceback.

A dataset of ours is sealed, and compared with its manifest before TensorFlow opens it. One that others wrote has no
manifest: TFDS opens it and counts its files, and TFRecord's checksums guard what is read of them. Imports TensorFlow.
"""

import contextlib
import hashlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.datasets.tabletop.build import build_again
from rt2_jax.datasets.tfds_folder import BUILD_NAME, INFO_NAME, KIND
from rt2_jax.errors import UserError, first_line
from rt2_jax.files.manifest import MANIFEST_NAME, Manifest, find_damage, read_manifest, told

# What comes out of reading files that are not what they were when they were written.
_DAMAGE = (
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.FailedPreconditionError,
    tf.errors.PermissionDeniedError,
)


def task_folder(task: seqio.Task) -> pathlib.Path | None:
    """The TFDS folder that a task reads; None for one that reads something else."""
    folder = task.source.tfds_dataset.data_dir if isinstance(task.source, seqio.TfdsDataSource) else None
    return pathlib.Path(folder) if folder else None


def holds_dataset(folder: pathlib.Path) -> bool:
    """Whether a folder is a dataset, half-built and damaged ones included."""
    return any((folder / name).is_file() for name in (MANIFEST_NAME, INFO_NAME, BUILD_NAME))


def check_dataset(folder: pathlib.Path) -> None:
    """Returns when a dataset can be read, as far as names, sizes and its JSON files tell.

    Raises:
        UserError: it is damaged or half-built; names the file and what repairs it.
    """
    try:
        manifest = _manifest(folder)
        if manifest is None:
            if (folder / BUILD_NAME).is_file():
                raise UserError(f"{folder} is not whole (no {MANIFEST_NAME}); {build_again(folder)}")
            _open(folder)
        elif manifest.kind != KIND:
            raise UserError(f"{folder} is sealed as {told(manifest)}, not as {KIND}; name a dataset")
        else:
            small = [name for name in manifest.files if name.endswith(".json")]
            damage = find_damage(folder, manifest, small)
            if damage:
                raise UserError(f"{folder}: {damage}; {build_again(folder)}")
            _open(folder)  # its bytes are those that were sealed, and may mean nothing all the same
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); make it readable, or copy it again") from error


def check_source(task: seqio.Task, split: str) -> None:
    """Returns when a dataset's examples can be taken apart as its task wants to.

    Raises:
        UserError: its features are others than the task's.
    """
    folder = task_folder(task)
    try:
        if folder is not None:
            task.source.get_dataset(split, shuffle=False)
    except Exception as error:
        # TFDS and TensorFlow word a mismatch in many ways; nothing of the task's own code has run yet.
        raise UserError(
            f"{task.name}/{split}: {folder} is not as the task expects ({first_line(error)}); compare the features in "
            "its features.json"
        ) from error


def source_identity(folder: pathlib.Path | None) -> str:
    """What a dataset is, so that prepared data does not outlive a rebuilt one: its manifest's identity, or a hash.

    The hash is of TFDS's own description of a dataset that nobody sealed; "" stands for what is no dataset.
    """
    if folder is None:
        return ""
    manifest, info = _manifest(folder), folder / INFO_NAME
    if manifest:
        return manifest.identity
    return hashlib.sha256(info.read_bytes()).hexdigest() if info.is_file() else ""


@contextlib.contextmanager
def reading(folder: pathlib.Path | None, what: str) -> Iterator[None]:
    """Words what TensorFlow raises while examples are read.

    A user's mistake inside a preprocessor comes out of it wrapped in a traceback: its one line is kept.

    Raises:
        UserError: that line, or damaged files.
    """
    try:
        yield
    except tf.errors.OpError as error:
        text = str(error.message)
        line = re.search(r"^(?:\S*\.)?UserError: (.*)$", text, re.MULTILINE)
        if line:
            raise UserError(f"{what}: {line.group(1)}") from error
        # A programming error in a preprocessor is its author's to see, with all its frames.
        damage = isinstance(error, _DAMAGE) or "parse serialized" in text
        if folder is None or not damage or "Traceback" in text:
            raise
        raise UserError(f"{what}: {folder} is damaged ({first_line(error)}); {_again(folder)}") from error


def _manifest(folder: pathlib.Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except UserError as error:
        raise UserError(f"{folder}: {MANIFEST_NAME} is damaged; {_again(folder)}") from error


def _open(folder: pathlib.Path) -> None:
    try:
        builder = tfds.builder_from_directory(folder)
        paths = [pathlib.Path(path) for split in builder.info.splits.values() for path in split.filepaths]
        features: Any = builder.info.features
        features.get_serialized_info()
    except Exception as error:
        # Malformed JSON fails in as many ways as TFDS, protobuf and the features' own code have.
        raise UserError(f"{folder} is no dataset that TFDS opens ({first_line(error)}); {_again(folder)}") from error
    for path in paths:
        if not path.is_file():
            raise UserError(f"{folder}: {path.name} is missing; {_again(folder)}")


def _again(folder: pathlib.Path) -> str:
    return build_again(folder) if (folder / BUILD_NAME).is_file() else "copy or download the dataset again"
