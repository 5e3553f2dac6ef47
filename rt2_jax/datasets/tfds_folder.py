"""Writes a TFDS dataset folder shard by shard, so that an interrupted build goes on and is never taken for whole.

A shard is written under a temporary name and renamed; TFDS's own metadata come after them, and last the
``manifest.json`` that seals all of it, without which we take the folder for half-built. ``build.json`` says what the
folder is being built from. The same examples give the same bytes, whatever the process. Imports TensorFlow.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_info, example_serializer
from tensorflow_datasets.core.splits import SplitDict

from rt2_jax.errors import UserError
from rt2_jax.files.manifest import MANIFEST_NAME, Manifest, make_manifest, read_manifest
from rt2_jax.files.owner import Owner
from rt2_jax.files.writing import check_target, seal, sync, whole_file, write_error, write_text

BUILD_NAME = "build.json"
INFO_NAME = "dataset_info.json"
KIND = "dataset"
# TFRecord's length, two checksums: bytes a record takes beside its content.
_FRAME_BYTES = 16
_METADATA_PREFIX = ".metadata"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a split: examples number `start` .. `stop` - 1, file `index` of `count`."""

    split: str
    index: int
    count: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class FolderSpec:
    """What a dataset folder will hold.

    Attributes:
        data_dir: the folder of datasets; this one lies in ``<data_dir>/<name>/<version>``.
        name, version, description: as TFDS shows them.
        features: of one example.
        split_sizes: split -> examples.
        examples_per_shard: in every file but a split's last.
        parameters: all that the content depends on; another build's parameters are refused.
    """

    data_dir: pathlib.Path
    name: str
    version: str
    description: str
    features: tfds.features.FeaturesDict
    split_sizes: Mapping[str, int]
    examples_per_shard: int
    parameters: Mapping[str, Any]

    @property
    def folder(self) -> pathlib.Path:
        """Where the files go."""
        return self.data_dir / self.name / self.version

    @property
    def build_text(self) -> str:
        """The content of ``build.json``."""
        return json.dumps(self.parameters, indent=2, sort_keys=True) + "\n"

    def shards(self) -> list[Shard]:
        """All files, in the order in which they are written."""
        shards = []
        for split, size in self.split_sizes.items():
            starts = range(0, size, self.examples_per_shard)
            for index, start in enumerate(starts):
                stop = min(start + self.examples_per_shard, size)
                shards.append(Shard(split, index, len(starts), start, stop))
        return shards

    def path(self, shard: Shard) -> pathlib.Path:
        """The shard's file, named as TFDS names it."""
        return self.folder / f"{self.name}-{shard.split}.tfrecord-{shard.index:05d}-of-{shard.count:05d}"


@dataclasses.dataclass(frozen=True)
class Work:
    """What is still to be done in a dataset folder.

    Attributes:
        shards: to be written.
        finished: the dataset is whole and sealed: nothing is to be done.
        damaged: names of files that were lost or are not what was written; shards among them are in `shards` too.
    """

    shards: tuple[Shard, ...]
    finished: bool = False
    damaged: tuple[str, ...] = ()


@contextlib.contextmanager
def owned(spec: FolderSpec) -> Iterator[None]:
    """While it lasts, no other process builds the folder.

    Raises:
        UserError: another one does, or the disk refuses.
    """
    try:
        # One folder has one lock, by whatever links it is reached.
        folder = spec.folder.resolve()
        folder.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise write_error(spec.folder, error) from error
    with Owner(folder.with_name(f".{folder.name}.rt2-owner"), f"{KIND} {folder}"):
        yield


def make_ready(spec: FolderSpec, overwrite: bool) -> Work:
    """Makes the folder ready and says what is still to be done in it; the caller owns it (see `owned`).

    Every byte of a sealed dataset is compared with its manifest; where there is none, records have checksums. What is
    damaged is taken away, to be written again.

    Raises:
        UserError: the folder holds something else (unless `overwrite`, which empties it), or cannot be written.
    """
    folder = spec.folder
    try:
        manifest = _manifest(folder)
        shutil.rmtree(_old(folder), ignore_errors=True)
        # A process that was killed at its very first file has left this much.
        if not folder.is_dir() or {path.name for path in folder.iterdir()} <= {f".{BUILD_NAME}.partial"}:
            _start(spec)
        elif not _is_ours(spec, manifest):
            if not overwrite:
                raise UserError(
                    f"{folder} was built with {_differing(folder, spec.parameters)}; build with the same parameters, "
                    "choose another folder, or give --overwrite to replace it"
                )
            _empty(spec)
            _start(spec)
            manifest = None
        _clear_leftovers(folder)
        damaged = _damaged(spec) if manifest is None else _changed(folder, manifest)
        for name in damaged:
            (folder / name).unlink(missing_ok=True)
        if manifest is not None and not damaged:
            return Work((), finished=True)
        write_text(folder / BUILD_NAME, spec.build_text)
        return Work(tuple(shard for shard in spec.shards() if not spec.path(shard).is_file()), damaged=tuple(damaged))
    except OSError as error:
        raise write_error(folder, error) from error


def _start(spec: FolderSpec) -> None:
    path = check_target(spec.folder, KIND, overwrite=True)
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / BUILD_NAME, spec.build_text)


def _empty(spec: FolderSpec) -> None:
    """Removes the folder at once, as far as readers can see."""
    path = check_target(spec.folder, KIND, overwrite=True)
    os.rename(path, _old(path))
    shutil.rmtree(_old(path))


def _old(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f".{folder.name}.rt2-old")


def _clear_leftovers(folder: pathlib.Path) -> None:
    """Removes what killed processes were writing."""
    for path in folder.glob(".*.partial"):
        path.unlink()
    for path in folder.glob(f"{_METADATA_PREFIX}*"):
        shutil.rmtree(path)


def _manifest(folder: pathlib.Path) -> Manifest | None:
    """The folder's manifest, None where there is none that can be believed."""
    try:
        manifest = read_manifest(folder)
    except UserError:
        return None
    return manifest if manifest and manifest.kind == KIND else None


def _is_ours(spec: FolderSpec, manifest: Manifest | None) -> bool:
    """Whether the folder's parameters are the same; its manifest knows them where ``build.json`` is damaged."""
    if manifest is not None and BUILD_NAME in manifest.files:
        return manifest.files[BUILD_NAME].sha256 == hashlib.sha256(spec.build_text.encode()).hexdigest()
    try:
        return (spec.folder / BUILD_NAME).read_text(encoding="utf-8") == spec.build_text
    except (OSError, ValueError):
        return False


def _changed(folder: pathlib.Path, manifest: Manifest) -> list[str]:
    """Files that are missing or not what was sealed."""
    present = [name for name in manifest.files if (folder / name).is_file()]
    now = make_manifest(folder, KIND, paths=present)
    return [name for name, entry in manifest.files.items() if now.files.get(name) != entry]


def _damaged(spec: FolderSpec) -> list[str]:
    """What is damaged of a folder without a manifest: shards whose records are not as many, or fail their checksums."""
    # The metadata come after all else, and are written anew.
    damaged = [MANIFEST_NAME] if (spec.folder / INFO_NAME).is_file() else []
    for shard in spec.shards():
        path = spec.path(shard)
        if not path.is_file():
            continue
        try:
            found = sum(1 for _ in tf.data.TFRecordDataset(str(path)))
        except tf.errors.OpError:
            found = -1
        if found != shard.stop - shard.start:
            damaged.append(path.name)
    return damaged


def write_shard(spec: FolderSpec, shard: Shard, examples: Iterable[Any]) -> None:
    """Writes one file of examples (dicts that fit the features); whole or not at all.

    Raises:
        UserError: the disk refuses.
    """
    stored: Any = spec.features.get_serialized_info()
    serializer = example_serializer.ExampleSerializer(stored)
    path = spec.path(shard)
    try:
        with whole_file(path) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
            for example in examples:
                message = serializer.get_tf_example(spec.features.encode_example(example))
                # By default the order of its fields is drawn anew in each process.
                writer.write(message.SerializeToString(deterministic=True))
    except (OSError, tf.errors.OpError) as error:
        raise write_error(path, error) from error


def finish(spec: FolderSpec, also: Sequence[str] = ()) -> None:
    """Writes TFDS's metadata, which make the folder a dataset, and seals it. Every shard must be there.

    Args:
        spec: the folder.
        also: names of further files that belong to the dataset.

    Raises:
        UserError: the disk refuses.
    """
    splits = []
    data_dir: Any = spec.folder
    for split in spec.split_sizes:
        shards = [shard for shard in spec.shards() if shard.split == split]
        lengths = [shard.stop - shard.start for shard in shards]
        size = sum(spec.path(shard).stat().st_size for shard in shards) - _FRAME_BYTES * sum(lengths)
        template = tfds.core.ShardedFileTemplate(
            data_dir=data_dir, dataset_name=spec.name, split=split, filetype_suffix="tfrecord"
        )
        splits.append(
            tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)
        )
    identity = dataset_info.DatasetIdentity(
        name=spec.name, version=tfds.core.Version(spec.version), data_dir=str(spec.folder), module_name=""
    )
    info = tfds.core.DatasetInfo(builder=identity, features=spec.features, description=spec.description)
    info.set_file_format("tfrecord")
    info.set_splits(SplitDict(splits))
    try:
        with tempfile.TemporaryDirectory(dir=spec.folder, prefix=_METADATA_PREFIX) as folder:
            info.write_to_directory(folder)
            written = sorted(pathlib.Path(folder).iterdir(), key=lambda path: path.name == INFO_NAME)
            for path in written:
                sync(path)
                path.rename(spec.folder / path.name)
        shards = [spec.path(shard).name for shard in spec.shards()]
        seal(spec.folder, KIND, paths=[BUILD_NAME, *also, *(path.name for path in written), *shards])
    except (OSError, tf.errors.OpError) as error:
        raise write_error(spec.folder / INFO_NAME, error) from error


def _differing(folder: pathlib.Path, wanted: Mapping[str, Any]) -> str:
    mark = folder / BUILD_NAME
    if not mark.is_file():
        return f"something else than `rt2 data build` (no {BUILD_NAME}), and this build wants {json.dumps(wanted)}"
    try:
        there = dict(json.loads(mark.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        return f"unknown parameters ({BUILD_NAME} is damaged), and this build wants {json.dumps(wanted)}"
    names = sorted(key for key in {*there, *wanted} if there.get(key) != wanted.get(key))
    if not names:
        return f"other parameters than {BUILD_NAME} says, and this build has {json.dumps(wanted)}"
    values = [", ".join(f"{name}={source.get(name)!r}" for name in names) for source in (there, wanted)]
    return f"{values[0]} and this build has {values[1]}"
