"""Messages with arrays as msgpack bytes, in the two encodings that the field's clients use.

openpi-client writes an array as a map with bytes keys, vla-eval's harness as one with text keys, where frames may stand
as encoded images. `unpack` reads both and takes nothing on trust: whatever the bytes are, it gives plain values and
arrays of numbers, or raises `WireError`. numpy and msgpack only.
"""

import dataclasses
import math
import re
from typing import Any, Literal

import msgpack
import numpy as np

from rt2_jax.errors import UserError, first_line

# One message: four frames of 1280 x 720 as they are, or hundreds as JPEG.
MAX_BYTES = 16 << 20
# Of one list or map, and of all of a message's together. An array of numbers counts as one entry.
MAX_ENTRIES, MAX_ALL_ENTRIES = 4096, 65536
MAX_NDIM = 8

Style = Literal["openpi", "vla_eval"]
IMAGE_FORMATS = ("png", "jpeg")

_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])|bool|u?int(8|16|32|64)|float(16|32|64)")
_PACKED_KINDS = "biuf"


class WireError(ValueError):
    """Bytes that are no message, or a value that none can hold.

    Attributes:
        code: "invalid", or "too_large" for what only its size speaks against.
    """

    def __init__(self, message: str, code: Literal["invalid", "too_large"] = "invalid"):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """A frame as a PNG or JPEG file, which costs milliseconds to decode: `decode` it off the thread that reads frames.

    Attributes:
        data: the file's bytes.
        shape: (H, W, C) as the sender says, or None; `decode` holds the image to it.
    """

    data: bytes
    shape: tuple[int, ...] | None = None

    def decode(self, max_pixels: int | None = None) -> np.ndarray:
        """uint8[H, W, 3]; needs Pillow.

        Raises:
            WireError: the bytes are no image that `rt2_jax.inputs.decode_image` takes, of more pixels than `max_pixels`
                ("too_large"), or not of the shape that was said.
        """
        from rt2_jax.inputs.images import decode_image, image_info  # Pillow, which a client can do without

        try:
            _, (width, height) = image_info(self.data)
            if max_pixels is not None and width * height > max_pixels:
                raise WireError(
                    f"image: {width} x {height} pixels, at most {max_pixels:,}; send a smaller one", "too_large"
                )
            image = decode_image(self.data)
        except UserError as error:
            raise WireError(str(error)) from error
        if self.shape is not None and image.shape[:2] != self.shape[:2]:
            raise WireError(
                f"image: {list(image.shape[:2])} pixels, its shape says {list(self.shape)}; send the shape that it has"
            )
        return image


def pack(value: Any, style: Style = "openpi") -> bytes:
    """Plain values (None, bool, int, float, str, bytes, lists, maps), with numpy's arrays and numbers in them, packed.

    Args:
        value: arrays are of booleans, integers or floats; complex, text and object arrays are refused.
        style: "openpi" writes arrays with bytes keys and keeps the dtype of numpy's numbers; "vla_eval" writes arrays
            with text keys and numpy's numbers as plain ones.

    Raises:
        WireError: a value that the encoding has no form for.
    """
    default = _openpi_form if style == "openpi" else _vla_eval_form
    try:
        packed = msgpack.packb(value, default=default, use_bin_type=True)
    except WireError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"message: {first_line(error)}; send plain values and arrays of numbers") from error
    assert packed is not None  # it is None for a Packer that keeps its bytes
    return packed


def unpack(data: bytes, max_bytes: int = MAX_BYTES) -> Any:
    """What `pack` wrote in either style, or openpi-client or vla-eval.

    Arrays share the memory of `data` and are then not writeable; booleans and another byte order than the machine's are
    copied. Images
    of vla-eval are `EncodedImage`, or arrays where they were sent raw.

    Raises:
        WireError: `data` is more than `max_bytes` or holds more entries than one message may ("too_large"); it is no
            msgpack; an array's dtype is not boolean, integer or float, or its shape does not fit its bytes.
    """
    if len(data) > max_bytes:
        raise WireError(f"message: {len(data)} bytes, at most {max_bytes}; send smaller frames, or JPEG", "too_large")
    hooks = _Hooks()
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,  # text and bytes; anything else could be a map, which no dict takes as a key
            object_hook=hooks.read_map,
            list_hook=hooks.read_list,
            ext_hook=hooks.refuse_extension,
            max_array_len=MAX_ENTRIES,
            max_map_len=MAX_ENTRIES,
        )
    except WireError:
        raise
    except (msgpack.UnpackException, ValueError, OverflowError, RecursionError) as error:
        raise WireError(
            f"message: {len(data)} bytes that are no msgpack ({first_line(error)}); send one map"
        ) from error


def to_array(data: Any, dtype: Any, shape: Any, what: str = "array") -> np.ndarray:
    """The array of raw bytes, a dtype's name and a shape that somebody sent; it shares the bytes' memory.

    Args:
        data: as many bytes as `shape` items of `dtype` take, in C order.
        dtype: "<f4", "|u1", "uint8" and the like: booleans, integers and floats alone.
        shape: a list or tuple of `MAX_NDIM` integers at most, none negative.
        what: for the message.

    Raises:
        WireError: anything else.
    """
    kind = _dtype(dtype, what)
    if not isinstance(shape, list | tuple) or len(shape) > MAX_NDIM:
        raise WireError(f"{what}: shape {_shown(shape)}; send a list of at most {MAX_NDIM} integers")
    if any(type(side) is not int or side < 0 for side in shape):
        raise WireError(f"{what}: shape {_shown(shape)}; send integers of 0 and more")
    if not isinstance(data, bytes):
        raise WireError(f"{what}: its data are a {type(data).__name__}; send bytes")
    needed = math.prod(shape) * kind.itemsize  # Python's integers: none is too large
    if needed != len(data):
        raise WireError(f"{what}: {len(data)} bytes, shape {_shown(shape)} of {dtype} has {_shown(needed)}; send those")
    try:
        array = np.ndarray(tuple(shape), np.uint8 if kind.kind == "b" else kind, buffer=data)
    except (ValueError, OverflowError) as error:  # no item, and sides whose product is beyond what numpy counts with
        raise WireError(f"{what}: shape {_shown(shape)} ({first_line(error)}); send the shape that it has") from error
    if kind.kind == "b":
        return np.asarray(array != 0)  # numpy takes a byte that is neither 0 nor 1 for a boolean of its own
    return array if kind.isnative else array.astype(kind.newbyteorder("="))


def _dtype(name: Any, what: str) -> np.dtype:
    """The dtype of a name that somebody sent, where it is one of a few: numpy itself reads far more out of a text."""
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise WireError(f"{what}: dtype {_shown(name)}; send booleans, integers or floats, such as '<f4' or '|u1'")
    return np.dtype(name)


def _openpi_form(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        _check_kind(value)
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": list(value.shape),
        }
    if isinstance(value, np.generic):
        _check_kind(value)
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a value of type {type(value).__name__}")


def _vla_eval_form(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        _check_kind(value)
        return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        _check_kind(value)
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__}")


def _check_kind(value: np.ndarray | np.generic) -> None:
    # float128 is of the kind too, and is of another size on every machine.
    if value.dtype.kind not in _PACKED_KINDS or value.dtype.itemsize > 8:
        raise WireError(f"array: dtype {value.dtype}; send booleans, integers or floats of 64 bits at most")


class _Hooks:
    """Reads one message's maps as they are unpacked, and counts what it holds."""

    def __init__(self) -> None:
        self._entries = 0

    def read_list(self, entries: list[Any]) -> list[Any]:
        self._count(len(entries))
        return entries

    def read_map(self, entries: dict[Any, Any]) -> Any:
        self._count(len(entries))
        if b"__ndarray__" in entries:
            return to_array(entries.get(b"data"), entries.get(b"dtype"), entries.get(b"shape"))
        if "__ndarray__" in entries:
            return to_array(entries.get("data"), entries.get("dtype"), entries.get("shape"))
        if b"__npgeneric__" in entries:
            return _number(entries.get(b"data"), entries.get(b"dtype"))
        if "__image__" in entries:
            return _image(entries)
        return entries

    def refuse_extension(self, code: int, data: bytes) -> Any:
        raise WireError(f"message: extension type {code} of msgpack; send plain values")

    def _count(self, entries: int) -> None:
        self._entries += entries
        if self._entries > MAX_ALL_ENTRIES:
            raise WireError(
                f"message: more than {MAX_ALL_ENTRIES} entries of lists and maps; send numbers as arrays", "too_large"
            )


def _number(value: Any, dtype: Any) -> Any:
    """numpy's number of `dtype`; whole where the dtype is, and within its range."""
    kind = _dtype(dtype, "number").newbyteorder("=")
    wanted = {"b": bool, "i": int, "u": int, "f": float}[kind.kind]
    if type(value) is not wanted:
        raise WireError(f"number: {_shown(value)} of dtype {dtype}; send a {wanted.__name__}")
    try:
        return kind.type(value)
    except OverflowError as error:
        raise WireError(f"number: {_shown(value)} is beyond {dtype}; send it in a larger type") from error


def _image(entries: dict[Any, Any]) -> Any:
    form, data, shape = entries.get("format"), entries.get("data"), entries.get("shape")
    if form == "raw":
        return to_array(data, entries.get("dtype"), shape, "image")
    if form not in IMAGE_FORMATS:
        raise WireError(f"image: format {_shown(form)}; send raw, {' or '.join(IMAGE_FORMATS)}")
    if not isinstance(data, bytes):
        raise WireError(f"image: its data are a {type(data).__name__}; send the bytes of a file")
    if shape is None:
        return EncodedImage(data)
    if not isinstance(shape, list) or len(shape) not in (2, 3) or any(type(side) is not int for side in shape):
        raise WireError(f"image: shape {_shown(shape)}; send [H, W, C], or leave it out")
    return EncodedImage(data, tuple(shape))


def _shown(value: Any) -> str:
    """A value in a message, in some sixty characters; whatever it is, and however large."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, list | tuple):
        few = ", ".join(_shown(entry) for entry in value[:MAX_NDIM])
        return f"[{few}{', ...' if len(value) > MAX_NDIM else ''}]"[:120]
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value[:60] if isinstance(value, str | bytes) else value)
    return f"a {type(value).__name__}"
