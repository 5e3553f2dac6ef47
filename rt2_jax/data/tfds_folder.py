"""Writes a TFDS dataset folder shard by shard, so that an interrupted build goes on and is never taken for whole.

A shard is written under a temporary name and renamed; TFDS's own ``dataset_info.json`` comes last, and without it no
reader takes the folder for a dataset. ``build.json`` says what the folder is being built from. Imports TensorFlow.
"""

import dataclasses
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.errors import UserError
from rt2_jax.files.writing import sync, whole_file, write_error

BUILD_NAME = "build.json"
INFO_NAME = "dataset_info.json"
# TFRecord's length, two checksums: bytes a record takes beside its content.
_FRAME_BYTES = 16


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


def missing_shards(spec: FolderSpec, overwrite: bool) -> list[Shard]:
    """Makes the folder ready and says which shards are still to be written; none if the dataset is whole.

    Raises:
        UserError: the folder holds something else (unless `overwrite`, which empties it), or cannot be written.
    """
    folder, mark = spec.folder, spec.folder / BUILD_NAME
    wanted = json.dumps(spec.parameters, sort_keys=True)
    try:
        found = json.dumps(json.loads(mark.read_text(encoding="utf-8")), sort_keys=True) if mark.is_file() else None
    except ValueError:
        found = "unreadable"
    occupied = folder.is_dir() and any(folder.iterdir())
    if occupied and found != wanted:
        if not overwrite:
            raise UserError(
                f"{folder} was built with {_differing(found, spec.parameters)}; build with the same parameters, choose "
                "another folder, or give --overwrite to replace it"
            )
        shutil.rmtree(folder)
        occupied = False
    if not occupied:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with whole_file(mark) as partial:
                partial.write_text(json.dumps(spec.parameters, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        except OSError as error:
            raise write_error(mark, error) from error
    if (folder / INFO_NAME).is_file():
        return []
    return [shard for shard in spec.shards() if not spec.path(shard).is_file()]


def write_shard(spec: FolderSpec, shard: Shard, examples: Iterable[Any]) -> None:
    """Writes one file of examples (dicts that fit the features); whole or not at all.

    Raises:
        UserError: the disk refuses.
    """
    serializer = tfds.core.example_serializer.ExampleSerializer(spec.features.get_serialized_info())
    path = spec.path(shard)
    try:
        with whole_file(path) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
            for example in examples:
                writer.write(serializer.serialize_example(spec.features.encode_example(example)))
    except (OSError, tf.errors.OpError) as error:
        raise write_error(path, error) from error


def finish(spec: FolderSpec) -> None:
    """Writes TFDS's metadata, which makes the folder a dataset. Every shard must be there.

    Raises:
        UserError: the disk refuses.
    """
    splits = []
    for split in spec.split_sizes:
        shards = [shard for shard in spec.shards() if shard.split == split]
        lengths = [shard.stop - shard.start for shard in shards]
        size = sum(spec.path(shard).stat().st_size for shard in shards) - _FRAME_BYTES * sum(lengths)
        template = tfds.core.ShardedFileTemplate(
            data_dir=spec.folder, dataset_name=spec.name, split=split, filetype_suffix="tfrecord"
        )
        splits.append(
            tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)
        )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=spec.name, version=tfds.core.Version(spec.version), data_dir=str(spec.folder), module_name=""
    )
    info = tfds.core.DatasetInfo(builder=identity, features=spec.features, description=spec.description)
    info.set_file_format("tfrecord")
    info.set_splits(tfds.core.splits.SplitDict(splits))
    try:
        with tempfile.TemporaryDirectory(dir=spec.folder, prefix=".metadata") as folder:
            info.write_to_directory(folder)
            written = sorted(pathlib.Path(folder).iterdir(), key=lambda path: path.name == INFO_NAME)
            for path in written:
                sync(path)
                path.rename(spec.folder / path.name)
    except (OSError, tf.errors.OpError) as error:
        raise write_error(spec.folder / INFO_NAME, error) from error


def _differing(found: str | None, wanted: Mapping[str, Any]) -> str:
    if found is None:
        return f"something else than `rt2 data build` (no {BUILD_NAME}), and this build wants {json.dumps(wanted)}"
    if found == "unreadable":
        return f"unknown parameters ({BUILD_NAME} is damaged), and this build wants {json.dumps(wanted)}"
    there = json.loads(found)
    names = sorted(key for key in {*there, *wanted} if there.get(key) != wanted.get(key))
    values = [", ".join(f"{name}={source.get(name)!r}" for name in names) for source in (there, wanted)]
    return f"{values[0]} and this build has {values[1]}"
