import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rt2_jax.errors import UserError
from rt2_jax.inputs import check_image, decode_image, encode_jpeg, image_info, resize_image
from rt2_jax.inputs.images import FORMATS, MAX_PIXELS

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
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert decode_image(encoded(Image.fromarray(RAMP).convert(mode), kind)).shape == RAMP.shape


def test_png_is_exact():
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(RAMP), "PNG")), RAMP)


def test_corrupt_bytes_are_refused():
    whole = encode_jpeg(RAMP)
    for data in (b"", b"not an image", whole[: len(whole) // 2], whole[:20], whole[20:]):
        with pytest.raises(UserError, match=f"{len(data)} bytes"):
            decode_image(data)


def png(width, height, depth=8, colour=2, rows=None):
    """A PNG by hand: Pillow writes no 16-bit colour, and no size that it does not hold."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = b"" if rows is None else zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["L", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("read", [decode_image, image_info])
def test_sixteen_bits_are_refused(colour, channels, read):
    row = b"\0" + b"\x12\x34" * channels
    with pytest.raises(UserError, match="16 bits a channel, needs 8"):
        read(png(1, 1, 16, colour, row))
    assert decode_image(png(1, 1, 8, colour, b"\0" + b"\x12" * channels)).tolist() == [[[0x12] * 3]]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_header_tells_format_and_size(kind):
    assert image_info(encoded(Image.fromarray(RAMP), kind)) == (kind, (48, 64))


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PPM", "EPS", "DDS", "BLP", "SPIDER", "TGA", "ICO", "PCX"])
def test_other_formats_are_refused(kind):
    image = Image.fromarray(RAMP[:32, :32]).convert({"BLP": "P", "SPIDER": "F"}.get(kind, "RGB"))
    for read in (decode_image, image_info):
        with pytest.raises(UserError, match="send a whole PNG, JPEG, WEBP or BMP"):
            read(encoded(image, kind))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", [6_000, 10_000, 40_000])
def test_a_small_file_of_many_pixels_is_refused(side):
    assert side * side > MAX_PIXELS
    for read in (decode_image, image_info):
        with pytest.raises(UserError, match="pixels"):
            read(png(side, side))


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 200)]
    for kind in ("PNG", "WEBP"):
        stream = io.BytesIO()
        frames[0].save(stream, kind, save_all=True, append_images=frames[1:], lossless=True)
        assert (decode_image(stream.getvalue()) == 10).all()


MUTATIONS = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "drop", "double", "insert"]), st.floats(0, 1), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=400)
@given(kind=st.sampled_from(FORMATS), header=st.booleans(), mutations=MUTATIONS)
def test_damaged_bytes_are_an_image_or_one_line(kind, header, mutations):
    data = bytearray(encoded(Image.fromarray(RAMP[:24, :24]).convert("P" if kind == "BMP" else "RGB"), kind))
    for how, where, value in mutations:
        place = int(where * min(len(data), 64 if header else len(data)))
        if how == "set":
            data[place : place + 1] = bytes([value])
        elif how == "cut":
            del data[place + 8 :]
        elif how == "drop":
            del data[place : place + 1 + value % 8]
        elif how == "double":
            data[place:place] = data[place : place + value]
        else:
            data[place:place] = bytes([value]) * (1 + value % 8)
    for read in (decode_image, image_info):
        try:
            found = read(bytes(data))
        except UserError as error:
            assert "\n" not in str(error) and str(error).startswith("image: ")
        else:
            assert read is image_info or (found.dtype == np.uint8 and found.ndim == 3 and found.size > 0)


@settings(max_examples=200)
@given(
    data=st.binary(max_size=200), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"RIFF"])
)
def test_any_bytes_are_an_image_or_one_line(data, start):
    with contextlib.suppress(UserError):
        decode_image(start + data)


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
