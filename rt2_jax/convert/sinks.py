"""Files of foreign formats, written one tensor at a time."""

import json
import pathlib
import zipfile
from collections.abc import Iterable
from typing import Any

import flax.serialization
import numpy as np
import safetensors.numpy
import tensorstore

from rt2_jax.convert.sources import SAFETENSORS_INDEX, T5X_FILE

SHARD_BYTES = 2 << 30
# T5X puts arrays of so many numbers and more into zarr folders, the others into the msgpack file.
ZARR_SIZE = 1024

Tensors = Iterable[tuple[str, np.ndarray]]


def write_safetensors(folder: pathlib.Path, tensors: Tensors) -> None:
    """model.safetensors, or numbered files of `SHARD_BYTES` at most with the index that `transformers` reads."""
    held: dict[str, np.ndarray] = {}
    names: list[list[str]] = []
    total = 0

    def flush() -> None:
        safetensors.numpy.save_file(held, str(folder / _part(len(names))), {"format": "pt"})
        names.append(list(held))
        held.clear()

    for name, array in tensors:
        if held and sum(each.nbytes for each in held.values()) + array.nbytes > SHARD_BYTES:
            flush()
        held[name] = np.ascontiguousarray(array)
        total += array.nbytes
    flush()
    if len(names) == 1:
        (folder / _part(0)).rename(folder / "model.safetensors")
        return
    finals = [f"model-{i + 1:05d}-of-{len(names):05d}.safetensors" for i in range(len(names))]
    for i, final in enumerate(finals):
        (folder / _part(i)).rename(folder / final)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: final for final, part in zip(finals, names, strict=True) for name in part},
    }
    write_json(folder / SAFETENSORS_INDEX, index)


def write_npz(path: pathlib.Path, tensors: Tensors) -> None:
    """An uncompressed `.npz` with names under "params/"; bfloat16 goes out as two bytes without a type."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in tensors:
            plain = array.view("V2") if array.dtype.name == "bfloat16" else array
            with archive.open(f"params/{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, plain, allow_pickle=False)


def write_t5x(folder: pathlib.Path, tensors: Tensors) -> None:
    """The msgpack file "checkpoint", and a gzip zarr folder for each array that is not small."""
    target: dict[str, Any] = {}
    for name, array in tensors:
        *groups, leaf = name.split("/")
        node = target
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = array if array.size < ZARR_SIZE else _write_zarr(folder, f"target.{name.replace('/', '.')}", array)
    tree = {"version": 3, "optimizer": {"target": target, "state": {"step": np.int32(0)}}}
    (folder / T5X_FILE).write_bytes(flax.serialization.msgpack_serialize(tree))


def write_json(path: pathlib.Path, tree: Any) -> None:
    """An indented JSON file."""
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def _part(number: int) -> str:
    return f"part-{number:05d}.safetensors"


def _write_zarr(folder: pathlib.Path, name: str, array: np.ndarray) -> dict[str, Any]:
    metadata = {
        "shape": list(array.shape),
        "chunks": list(array.shape),
        "dtype": "bfloat16" if array.dtype.name == "bfloat16" else array.dtype.str,
        "compressor": {"id": "gzip"},
    }
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(folder / name)}, "metadata": metadata}
    store = tensorstore.open({**spec, "store_data_equal_to_fill_value": True}, create=True).result()
    store.write(array).result()
    return {**spec, "kvstore": {"driver": "file", "path": name}}
