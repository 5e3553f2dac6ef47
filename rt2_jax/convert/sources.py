"""Foreign checkpoints as named tensors, read one at a time: what is not asked for stays on the disk."""

import contextlib
import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Protocol

import flax.serialization
import ml_dtypes
import msgspec
import numpy as np
import safetensors
import tensorstore

from rt2_jax.errors import UserError
from rt2_jax.typed import build, one_line, read_json, shown, shown_path

SAFETENSORS_INDEX = "model.safetensors.index.json"
T5X_FILE = "checkpoint"
_SAFETENSORS_DTYPES = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
}

# A file beside the index, and no path out of its folder.
FileName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


@dataclasses.dataclass(frozen=True)
class SafetensorsIndex:
    """What is read of an index: tensor -> the file beside it that holds it."""

    weight_map: Annotated[dict[str, FileName], msgspec.Meta(min_length=1)]


class Source(Protocol):
    """Tensors by name.

    Attributes:
        path: where it lies, for messages.
        shapes: name -> shape.
        dtypes: name -> dtype.
    """

    @property
    def path(self) -> pathlib.Path: ...
    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...
    @property
    def dtypes(self) -> Mapping[str, np.dtype]: ...

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> np.ndarray:
        """The tensor, or its rows start..stop along the first axis; float32, bfloat16 or float16.

        Raises:
            UserError: unreadable data.
        """
        ...


class SafetensorsSource:
    """A `transformers` folder: config.json beside one safetensors file, or several with an index."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.config = read_json(path / "config.json", fix="fetch the whole folder again")
        self._files: dict[str, pathlib.Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        for file in self._shards():
            with self._opened(file) as opened:
                for name in opened.keys():  # noqa: SIM118 (not a dictionary)
                    tensor = opened.get_slice(name)
                    dtype = _SAFETENSORS_DTYPES.get(tensor.get_dtype())
                    if dtype is None:
                        raise UserError(f"{path}: tensor {name} is {tensor.get_dtype()}; needs a float")
                    self._files[name], self.shapes[name], self.dtypes[name] = file, tuple(tensor.get_shape()), dtype

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> np.ndarray:
        """See `Source.read`."""
        # Opened anew each time: what an open file has shown of itself stays mapped, up to the whole of it.
        with self._opened(self._files[name]) as opened:
            return opened.get_tensor(name) if start is None else opened.get_slice(name)[start:stop]

    @contextlib.contextmanager
    def _opened(self, file: pathlib.Path) -> Iterator[Any]:
        try:
            with safetensors.safe_open(str(file), framework="numpy") as opened:
                yield opened
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{file} is no whole safetensors file ({one_line(error)}); fetch it again") from error

    def _shards(self) -> list[pathlib.Path]:
        index = self.path / SAFETENSORS_INDEX
        if not index.is_file():
            files = sorted(self.path.glob("*.safetensors"))
            if not files:
                found = [file.name for file in self.path.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".pkl")]
                why = f"; {found[0]} is a pickle, which can run code when read: save it as safetensors" if found else ""
                raise UserError(f"{self.path} holds no .safetensors file{why or '; name a folder that does'}")
            return files
        tree = read_json(index, fix="fetch it again")
        names = sorted(set(build(SafetensorsIndex, tree, shown_path(index), extra=True).weight_map.values()))
        for name in names:
            if name != os.path.basename(name) or name == "..":
                raise UserError(f"{index} names {shown(name)}, which is no file beside it; fetch it again")
            if not os.path.isfile(self.path / name):
                raise UserError(f"{index} names {shown_path(name)}, which is missing; fetch it again")
        return [self.path / name for name in names]


class NpzSource:
    """A big_vision `.npz`: names without an optional "params/"; bfloat16 arrives as two bytes without a type."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = [member for member in archive.namelist() if member.endswith(".npy")]
                headers = {member: _npy_header(archive, member) for member in members}
        except Exception as error:  # zipfile and numpy raise many kinds for bytes that are no archive or no header
            raise UserError(f"{path} is no whole .npz file ({one_line(error)}); fetch it again") from error
        self._held = _Held(self._read)
        self._members: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        for member, (shape, dtype) in headers.items():
            if dtype.hasobject:
                raise UserError(f"{path}: {member} is a pickle, which can run code when read; save plain arrays")
            name = member.removesuffix(".npy").removeprefix("params/")
            self._members[name], self.shapes[name], self.dtypes[name] = member, shape, _named(dtype)

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> np.ndarray:
        """See `Source.read`."""
        return self._held(name)[start:stop]

    def _read(self, name: str) -> np.ndarray:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self._members[name]) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # as above
            raise UserError(f"{self.path}: tensor {name} cannot be read ({one_line(error)}); fetch it again") from error
        return array.view(_named(array.dtype))


class T5xSource:
    """A T5X checkpoint folder: the msgpack file "checkpoint", and a zarr folder for every large array."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        try:
            tree = flax.serialization.msgpack_restore((path / T5X_FILE).read_bytes())
            self._entries = _flat(tree["optimizer"]["target"])
        except Exception as error:  # msgpack, flax and numpy raise many kinds for bytes that are no such tree
            raise UserError(
                f"{path / T5X_FILE} is no whole T5X checkpoint ({one_line(error)}); fetch it again"
            ) from error
        self._held = _Held(self._read)
        self._stores = {
            name: self._open(name, entry) for name, entry in self._entries.items() if not isinstance(entry, np.ndarray)
        }
        arrays: dict[str, Any] = {name: self._stores.get(name, entry) for name, entry in self._entries.items()}
        self.shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        self.dtypes = {
            name: np.dtype(getattr(array.dtype, "numpy_dtype", array.dtype)) for name, array in arrays.items()
        }

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> np.ndarray:
        """See `Source.read`."""
        return self._held(name)[start:stop]

    def _read(self, name: str) -> np.ndarray:
        if name not in self._stores:
            return self._entries[name]
        try:
            return self._stores[name].read().result()
        except Exception as error:  # whatever tensorstore says of a damaged chunk
            raise UserError(f"{self.path}: tensor {name} cannot be read ({one_line(error)}); fetch it again") from error

    def _open(self, name: str, entry: Any) -> tensorstore.TensorStore:
        # The entry is a TensorStore spec of the machine that wrote it: only the folder's name still holds.
        store = entry.get("kvstore") if isinstance(entry, dict) else None
        folder = pathlib.PurePosixPath(str(store.get("path", ""))).name if isinstance(store, dict) else ""
        if folder in ("", ".."):
            raise UserError(
                f"{self.path}: tensor {shown_path(name)} is {shown(entry)}, no array; fetch the folder again"
            )
        spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(self.path / folder)}}
        try:
            store = tensorstore.open(spec, read=True, open=True).result()
            np.dtype(store.dtype.numpy_dtype)
        except Exception as error:  # whatever tensorstore and numpy say of a damaged .zarray
            raise UserError(f"{self.path}: tensor {name} cannot be read ({one_line(error)}); fetch it again") from error
        missing = self._missing_chunk(store, self.path / folder)
        if missing:
            raise UserError(f"{self.path}: tensor {name} lacks its chunk {missing}; fetch the folder again")
        return store

    @staticmethod
    def _missing_chunk(store: tensorstore.TensorStore, folder: pathlib.Path) -> str:
        # zarr reads a chunk that is not there as zeros.
        chunks: Any = store.chunk_layout.read_chunk.shape  # of zarr it is known
        grid = [-(-size // chunk) for size, chunk in zip(store.shape, chunks, strict=True)]
        names = (".".join(map(str, index)) for index in np.ndindex(*grid))
        return next((name for name in names if not (folder / name).is_file()), "")


class _Held:
    """The tensor read last: the rows of a compressed one cannot be had without the whole."""

    def __init__(self, read: Callable[[str], np.ndarray]):
        self._read = read
        self._last: tuple[str, np.ndarray] | None = None

    def __call__(self, name: str) -> np.ndarray:
        if self._last is None or self._last[0] != name:
            self._last = None  # before the next is read, so that there is never more than one
            self._last = (name, self._read(name))
        return self._last[1]


def open_source(path: str | pathlib.Path) -> Source:
    """The reader that a path asks for: a folder with safetensors, a `.npz` file, or a T5X folder.

    Raises:
        UserError: none of these, or a damaged one.
    """
    path = pathlib.Path(path)
    # os.path's answer is no, where pathlib raises, for a name that is too long for the file system.
    if not os.path.exists(path):
        raise UserError(
            f"{shown_path(path)} does not exist; name a transformers folder, a big_vision .npz file or a T5X folder"
        )
    if path.is_file():
        if path.suffix == ".npz":
            return NpzSource(path)
        if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle"):
            raise UserError(f"{path} is a pickle, which can run code when read; save it as safetensors")
    elif (path / T5X_FILE).is_file():
        return T5xSource(path)
    elif (path / "config.json").is_file() or any(path.glob("*.safetensors")):
        return SafetensorsSource(path)
    raise UserError(
        f"{path} is no checkpoint known here: neither a folder with config.json and .safetensors files, nor a .npz "
        f"file, nor a folder with the T5X file {T5X_FILE!r}"
    )


def _named(dtype: np.dtype) -> np.dtype:
    """bfloat16 for the two bytes without a type that numpy makes of it, any other dtype as it is."""
    return np.dtype(ml_dtypes.bfloat16) if dtype == np.dtype("V2") else dtype


def _npy_header(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return shape, dtype


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """ "a/b/c" -> array or TensorStore spec."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict) and "driver" not in value:
            flat |= _flat(value, f"{prefix}{key}/")
        else:
            flat[prefix + str(key)] = value
    return flat
