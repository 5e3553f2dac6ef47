"""Frames in and out of bytes, at one size: the same code for preparing data, for training and for serving."""

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from rt2_jax.errors import UserError, first_line

# Pillow reads dozens of formats more; some of its readers raise what they like, and EPS would start Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_SEND = f"send a whole {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
# Of one image: 8k by 4k. Decoded it takes three bytes each, and a small file can claim any number.
MAX_PIXELS = 2**25
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER, _PNG_DEPTH = slice(12, 16), slice(24, 25)  # IHDR is a PNG's first chunk and tells the bits of a sample
# Such an image is far beyond our own limit.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode_image(data: bytes) -> np.ndarray:
    """uint8[H, W, 3] of an encoded PNG, JPEG, WebP or BMP; the pixels as stored, EXIF rotation not applied.

    Grey and palette images become RGB; an alpha channel is dropped; of an animation it is the first frame.

    Raises:
        UserError: the bytes are empty, corrupt, truncated, of another format, of more than 8 bits a channel or of more
            than `MAX_PIXELS`.
    """
    return _opened(data, lambda image: np.array(image.convert("RGB")))


def image_info(data: bytes) -> tuple[str, tuple[int, int]]:
    """(format, (width, height)) of an encoded image by its header; the format is one of `FORMATS`.

    Raises:
        UserError: as `decode_image`, as far as the header tells.
    """
    return _opened(data, lambda image: (str(image.format), image.size))


def _opened(data: bytes, read: Callable):
    """`read` of the image that `data` encodes."""
    try:
        if data[:8] == _PNG_START:
            _check_png(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width < 1 or height < 1:
                raise UserError(f"image: {width} x {height} pixels, needs at least one; send a whole image")
            if width * height > MAX_PIXELS:
                raise UserError(f"image: {width} x {height} pixels, at most {MAX_PIXELS:,}; send a smaller one")
            return read(image)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(
            f"image: {len(data)} bytes that do not decode (they begin like no image of a known format); {_SEND}"
        ) from error
    except Exception as error:  # Pillow's readers raise many types for bytes that are not as they should be
        raise UserError(f"image: {len(data)} bytes that do not decode ({first_line(error)}); {_SEND}") from error


def _check_png(data: bytes) -> None:
    if data[_PNG_HEADER] != b"IHDR":
        raise ValueError("a PNG without IHDR")
    if data[_PNG_DEPTH] == b"\x10":
        # Pillow would cut the samples of a colour image to 8 bits without a word, and those of a grey one at 255.
        raise UserError("image: a PNG of 16 bits a channel, needs 8 bits a channel; convert it to 8-bit RGB")


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
