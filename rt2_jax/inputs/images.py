"""Frames in and out of bytes, at one size: the same code for preparing data, for training and for serving."""

import io

import numpy as np
from PIL import Image

from rt2_jax.errors import UserError

# Modes whose samples are wider than 8 bits: converting them to RGB would clip, not scale.
_WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def decode_image(data: bytes) -> np.ndarray:
    """uint8[H, W, 3] of an encoded image (any format Pillow reads); the pixels as stored, EXIF rotation not applied.

    Grey and palette images become RGB; an alpha channel is dropped.

    Raises:
        UserError: the bytes are empty, corrupt, truncated, or of more than 8 bits a channel.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode in _WIDE_MODES:
                raise UserError(f"image: mode {image.mode}, needs 8 bits a channel; convert it to 8-bit RGB")
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"image: {len(data)} bytes that do not decode ({error}); send a whole JPEG or PNG") from error


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """JPEG bytes of uint8[H, W, 3], without chroma subsampling: small coloured objects keep their colour.

    Raises:
        UserError: `image` is not uint8[H, W, 3], or `quality` is outside 1..100.
    """
    check_image(image)
    if not 1 <= quality <= 100:
        raise UserError(f"JPEG quality is {quality}; choose 1 to 100")
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """uint8[size, size, 3]: bilinear with antialiasing, the aspect ratio not kept (as PaLI); unchanged at that size.

    Raises:
        UserError: `image` is not uint8[H, W, 3], or `size` < 1.
    """
    check_image(image)
    if size < 1:
        raise UserError(f"image size is {size}; choose at least 1 pixel")
    if image.shape[:2] == (size, size):
        return image
    return np.array(Image.fromarray(np.ascontiguousarray(image)).resize((size, size), Image.Resampling.BILINEAR))


def check_image(image: np.ndarray, name: str = "image") -> None:
    """Accepts uint8[H, W, 3] with H, W > 0 and nothing else.

    Raises:
        UserError: another type, dtype or shape; it names the likely mend.
    """
    if not isinstance(image, np.ndarray):
        raise UserError(f"{name}: a {type(image).__name__}, needs a numpy array uint8[H, W, 3]")
    if image.dtype != np.uint8:
        raise UserError(f"{name}: dtype {image.dtype}, needs uint8 in 0..255; scale and convert it")
    if image.ndim != 3:
        raise UserError(f"{name}: shape {image.shape}, needs [H, W, 3]; add or drop an axis")
    if image.shape[2] != 3:
        mend = "move the channels last" if image.shape[0] == 3 else "convert it to RGB"
        raise UserError(f"{name}: shape {image.shape}, needs [H, W, 3]; {mend}")
    if 0 in image.shape:
        raise UserError(f"{name}: shape {image.shape} holds no pixel; needs [H, W, 3] with H, W > 0")
