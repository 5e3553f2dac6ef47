import io

import numpy as np
import pytest
from PIL import Image

from rt2_jax.errors import UserError
from rt2_jax.inputs import check_image, decode_image, encode_jpeg, resize_image

RAMP = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 4, np.arange(48)[None] * 5, 128), -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_jpeg_keeps_the_pixels_close():
    decoded = decode_image(encode_jpeg(RAMP))
    assert decoded.dtype == np.uint8 and decoded.shape == RAMP.shape and decoded.flags.writeable
    assert np.abs(decoded.astype(int) - RAMP).max() <= 6


def test_jpeg_keeps_the_colour_of_single_pixels():
    image = np.zeros((16, 16, 3), np.uint8)
    image[::2, ::2] = [255, 0, 0]
    red = decode_image(encode_jpeg(image, quality=100))[::2, ::2]
    assert np.abs(red.astype(int) - [255, 0, 0]).max() < 40  # with subsampled chroma: over 100


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_other_modes_become_rgb(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert decode_image(encoded(Image.fromarray(RAMP).convert(mode), kind)).shape == RAMP.shape


def test_png_is_exact():
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(RAMP), "PNG")), RAMP)


def test_corrupt_bytes_are_refused():
    whole = encode_jpeg(RAMP)
    for data in (b"", b"not an image", whole[: len(whole) // 2], whole[:20], whole[20:]):
        with pytest.raises(UserError, match=f"{len(data)} bytes"):
            decode_image(data)


def test_sixteen_bits_are_refused():
    with pytest.raises(UserError, match="8 bits"):
        decode_image(encoded(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG"))


def test_resize():
    assert resize_image(RAMP, 24).shape == (24, 24, 3)
    square = RAMP[:48]
    assert resize_image(square, 48) is square
    fine = np.zeros((64, 64, 3), np.uint8)
    fine[:, ::2] = 255
    assert np.abs(resize_image(fine, 16).astype(int) - 127).max() <= 12  # antialiased: stripes become grey
    np.testing.assert_array_equal(resize_image(RAMP[::-1], 24), resize_image(np.ascontiguousarray(RAMP[::-1]), 24))
    with pytest.raises(UserError, match="0"):
        resize_image(RAMP, 0)


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (RAMP.astype(np.float32), "float32.*uint8"),
        (RAMP[..., 0], r"\(64, 48\).*axis"),
        (RAMP[None], r"\(1, 64, 48, 3\).*axis"),
        (RAMP.transpose(2, 0, 1), "channels last"),
        (np.zeros((4, 4, 4), np.uint8), "RGB"),
        (np.zeros((0, 4, 3), np.uint8), "no pixel"),
        ([[0]], "list"),
    ],
)
def test_wrong_images_are_named_with_the_mend(image, named):
    with pytest.raises(UserError, match=named):
        check_image(image)
    with pytest.raises(UserError, match=named):
        encode_jpeg(image)
    with pytest.raises(UserError, match=named):
        resize_image(image, 8)


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_has_limits(quality):
    with pytest.raises(UserError, match=str(quality)):
        encode_jpeg(RAMP, quality)
