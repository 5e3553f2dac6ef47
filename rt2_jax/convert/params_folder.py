"""A model's parameters on disk in Orbax's format, written and read a piece at a time.

Orbax lays the folder out and its restore reads it; between the two, TensorStore fills in each array, so that no more
than a piece of one is ever in memory.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from rt2_jax.errors import UserError, first_line

# Hosts that restore a part of an array read whole chunks: smaller ones waste less, larger ones are fewer.
CHUNK_BYTES = 32 << 20


class ParamsWriter:
    """Writes a tree of arrays whose shapes are known beforehand.

    Args:
        directory: the folder to make; must not exist.
        specs: "a/b/c" -> shape, and the dtype that it is stored in.
    """

    def __init__(self, directory: pathlib.Path, specs: Mapping[str, jax.ShapeDtypeStruct]):
        self._directory = directory.resolve()
        self._specs = specs
        skeleton = flax.traverse_util.unflatten_dict({path: np.zeros(1, np.float32) for path in specs}, sep="/")
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(self._directory, skeleton)
        self._stores: dict[str, tensorstore.TensorStore] = {}

    def write(self, path: str, index: tuple[int | slice, ...], array: np.ndarray) -> None:
        """Writes a piece, `array`, into the parameter `path` at `index`; it is cast to the stored dtype."""
        if path not in self._stores:
            self._stores[path] = self._create(path)
        self._stores[path][index].write(np.asarray(array, self._specs[path].dtype)).result()

    def _create(self, path: str) -> tensorstore.TensorStore:
        shape, dtype = self._specs[path].shape, np.dtype(self._specs[path].dtype)
        metadata = {
            "shape": list(shape),
            "chunks": chunk_shape(shape, dtype.itemsize),
            "dtype": "bfloat16" if dtype.name == "bfloat16" else dtype.str,
            "compressor": {"id": "zstd", "level": 1},
        }
        spec = {**_spec(self._directory, path), "metadata": metadata, "store_data_equal_to_fill_value": True}
        return tensorstore.open(spec, create=True, delete_existing=True).result()


class ParamsReader:
    """Reads pieces of a tree of arrays that Orbax, or `ParamsWriter`, has written.

    Attributes:
        shapes: "a/b/c" -> shape.
        dtypes: "a/b/c" -> dtype that it is stored in.
    """

    def __init__(self, directory: pathlib.Path):
        self._directory = directory.resolve()
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                tree = checkpointer.metadata(self._directory).item_metadata.tree
        except Exception as error:  # Orbax raises the bare class for data that does not decode.
            raise UserError(
                f"weights in {directory} cannot be read ({first_line(error)}); copy or export them again"
            ) from error
        leaves: dict[str, Any] = flax.traverse_util.flatten_dict(tree, sep="/")
        self.shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
        self.dtypes = {path: np.dtype(leaf.dtype) for path, leaf in leaves.items()}
        self._stores: dict[str, tensorstore.TensorStore] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays, uncompressed."""
        return sum(math.prod(shape) * self.dtypes[path].itemsize for path, shape in self.shapes.items())

    def read(self, path: str, index: tuple[int | slice, ...] = ()) -> np.ndarray:
        """A piece of the parameter `path`, in the dtype that it is stored in."""
        if path not in self._stores:
            self._stores[path] = tensorstore.open(_spec(self._directory, path), read=True, open=True).result()
        return self._stores[path][index].read().result()


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> list[int]:
    """Chunks of one layer, and of `CHUNK_BYTES` at most: the largest axes halved, so that shards of them fit chunks."""
    chunks = list(shape)
    if len(chunks) > 2:
        chunks[0] = 1  # three axes and more: the first counts layers, whose slices are written one by one
    while int(np.prod(chunks)) * itemsize > CHUNK_BYTES:
        largest = int(np.argmax(chunks))
        chunks[largest] = -(-chunks[largest] // 2)
    return chunks


def _spec(directory: pathlib.Path, path: str) -> dict:
    kvstore = {"driver": "ocdbt", "base": f"file://{directory}/", "path": path.replace("/", ".") + "/"}
    return {"driver": "zarr", "kvstore": kvstore}
