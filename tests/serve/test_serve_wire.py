"""rt2_jax.serve.wire: what comes out is what went in, in both encodings, and garbage is refused by one error."""

import io
import os
import random
import struct
import subprocess
import sys

import hypothesis
import hypothesis.extra.numpy as numpy_strategies
import hypothesis.strategies as st
import msgpack
import numpy as np
import pytest
from PIL import Image

from rt2_jax.serve.wire import (
    MAX_ALL_ENTRIES,
    MAX_BYTES,
    MAX_ENTRIES,
    EncodedImage,
    WireError,
    pack,
    to_array,
    unpack,
)

DTYPES = ("?", "u1", "i2", "u4", "i8", "<f2", "<f4", "<f8", ">f4", ">i2")
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: numpy_strategies.arrays(dtype, numpy_strategies.array_shapes(min_dims=0, max_dims=4, min_side=0))
)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
KEYS = st.text().filter(lambda key: not key.startswith("__"))
VALUES = st.recursive(
    PLAIN | ARRAYS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


def same(one, other):
    if isinstance(one, np.ndarray):
        assert isinstance(other, np.ndarray)
        assert one.dtype.newbyteorder("=") == other.dtype
        assert one.shape == other.shape
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            same(*pair)
    elif isinstance(one, float):
        assert struct.pack("d", one) == struct.pack("d", other) or (one != one and other != other)
    else:
        assert type(one) is type(other)
        assert one == other


@pytest.mark.parametrize("style", ["openpi", "vla_eval"])
@hypothesis.given(value=VALUES)
def test_what_comes_out_is_what_went_in(style, value):
    same(value, unpack(pack(value, style)))


@pytest.mark.parametrize("number", [np.float32(0.1), np.int16(-3), np.uint64(2**64 - 1), np.bool_(True)])
def test_numpys_numbers_keep_their_dtype_in_openpis_style_and_are_plain_in_vla_evals(number):
    kept = unpack(pack({"n": number}))["n"]
    assert type(kept) is type(number)
    assert kept == number
    plain = unpack(pack({"n": number}, "vla_eval"))["n"]
    assert type(plain) in (float, int, bool)
    assert plain == number.item()


def test_the_bytes_of_an_array_are_as_the_two_clients_write_them():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    form = {"data": array.tobytes(), "dtype": "<f4", "shape": [2, 3]}
    assert msgpack.unpackb(pack(array, "vla_eval")) == {"__ndarray__": True} | form
    bytes_keys = {b"__ndarray__": True} | {key.encode(): value for key, value in form.items()}
    assert msgpack.unpackb(pack(array)) == bytes_keys


def test_an_array_that_is_not_contiguous_and_a_tuple_are_packed():
    array = np.arange(24, dtype=np.uint8).reshape(4, 6)[::2, ::-1]
    np.testing.assert_array_equal(unpack(pack(array)), array)
    assert unpack(pack((1, 2))) == [1, 2]


def test_arrays_share_the_message_and_cannot_be_written():
    array = unpack(pack(np.zeros((2, 2), np.float32)))
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()]),
        np.array(["text"]),
        np.array([1j]),
        np.array([1], np.longdouble),
        np.array([(1, 2)], dtype=[("a", "i4"), ("b", "i4")]),
        np.array(["2026-01-01"], "datetime64[D]"),
        np.complex64(1),
        object(),
        {"set": {1}},
        2**64,
        "\ud800",
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("style", ["openpi", "vla_eval"])
def test_what_has_no_form_is_not_packed(value, style):
    with pytest.raises(WireError) as refused:
        pack(value, style)
    assert refused.value.code == "invalid"


def deep():
    value = []
    for _ in range(5000):
        value = [value]
    return value


def test_a_value_that_nests_without_end_is_not_packed_and_not_unpacked():
    with pytest.raises(WireError):
        pack(deep())
    with pytest.raises(WireError):
        unpack(b"\x91" * 5000 + b"\xc0")


ARRAY = {"data": bytes(12), "dtype": "<f4", "shape": [3]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dtype": "|O"}, "dtype '|O'; send booleans"),
        ({"dtype": "O"}, "dtype"),
        ({"dtype": "<U3"}, "dtype"),
        ({"dtype": "<c8"}, "dtype"),
        ({"dtype": "<M8[s]"}, "dtype"),
        ({"dtype": "i4,i4,i4"}, "dtype"),
        ({"dtype": "<f4" * 100000}, "dtype"),
        ({"dtype": b"<f4"}, "dtype"),
        ({"dtype": None}, "dtype None"),
        ({"dtype": ["<f4"]}, "dtype"),
        ({"shape": [-1]}, r"shape \[-1\]; send integers of 0 and more"),
        ({"shape": [-1, -3]}, "0 and more"),
        ({"shape": [4]}, "12 bytes, shape .4. of <f4 has 16"),
        ({"shape": [2]}, "12 bytes"),
        ({"shape": [2**62, 2**62, 4]}, "12 bytes, .* an integer of 128 bits|12 bytes"),
        ({"shape": [True, 3]}, "0 and more"),
        ({"shape": [3.0]}, "0 and more"),
        ({"shape": 3}, "send a list"),
        ({"shape": None}, "send a list"),
        ({"shape": [1] * 9 + [3]}, "at most 8"),
        ({"shape": [0, 2**62, 2**62], "data": b""}, "shape"),
        ({"shape": [0, 2**64 - 1], "data": b""}, "shape"),
        ({"data": "text of bytes"}, "its data are a str"),
        ({"data": None}, "its data are a NoneType"),
        ({"data": [0] * 12}, "its data are a list"),
    ],
)
def test_an_array_that_is_none_is_refused(change, told):
    fields = ARRAY | change
    for form in (
        {"__ndarray__": True} | fields,
        {b"__ndarray__": True} | {key.encode(): value for key, value in fields.items()},
    ):
        with pytest.raises(WireError, match=told) as refused:
            unpack(msgpack.packb({"state": form}))
        assert refused.value.code == "invalid"
        assert len(str(refused.value)) < 400
    with pytest.raises(WireError, match=told):
        to_array(fields["data"], fields["dtype"], fields["shape"])


def test_an_array_that_lacks_a_field_is_refused():
    for key in ARRAY:
        fields = {name: value for name, value in ARRAY.items() if name != key}
        with pytest.raises(WireError):
            unpack(msgpack.packb({"__ndarray__": True} | fields))


def test_booleans_are_0_or_1_whatever_bytes_they_came_in():
    found = unpack(msgpack.packb({"__ndarray__": True, "data": b"\x00\x01\x02\xff", "dtype": "|b1", "shape": [4]}))
    assert found.view(np.uint8).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "fields",
    [
        {b"data": 1.5, b"dtype": "<i4"},
        {b"data": 300, b"dtype": "|u1"},
        {b"data": -1, b"dtype": "<u8"},
        {b"data": "1", b"dtype": "<f4"},
        {b"data": 1, b"dtype": "|O"},
        {b"data": 1},
        {b"dtype": "<f4"},
        {b"data": {}, b"dtype": "|b1"},
    ],
)
def test_a_number_that_is_none_is_refused(fields):
    with pytest.raises(WireError, match="number"):
        unpack(msgpack.packb({b"__npgeneric__": True} | fields))


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


FRAME = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def test_a_frame_of_vla_eval_comes_raw_or_as_a_file_that_is_decoded_later():
    raw = {"__image__": True, "format": "raw", "data": FRAME.tobytes(), "dtype": "|u1", "shape": [4, 5, 3]}
    np.testing.assert_array_equal(unpack(msgpack.packb(raw)), FRAME)
    file = {"__image__": True, "format": "png", "data": png(FRAME), "shape": [4, 5, 3]}
    found = unpack(msgpack.packb(file))
    assert isinstance(found, EncodedImage)
    np.testing.assert_array_equal(found.decode(), FRAME)
    np.testing.assert_array_equal(EncodedImage(png(FRAME)).decode(), FRAME)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "gif"},
        {"format": None},
        {"format": ["png"]},
        {"data": "text"},
        {"data": None},
        {"shape": [4]},
        {"shape": "4x5"},
        {"shape": [4.0, 5, 3]},
        {"format": "raw"},  # without a dtype
        {"format": "raw", "dtype": "|O"},
    ],
)
def test_a_frame_that_is_none_is_refused(change):
    fields = {"__image__": True, "format": "png", "data": png(FRAME), "shape": [4, 5, 3]} | change
    with pytest.raises(WireError):
        unpack(msgpack.packb(fields))


def test_a_file_that_is_no_image_or_another_one_than_was_said_is_refused():
    with pytest.raises(WireError, match="do not decode"):
        EncodedImage(b"garbage").decode()
    with pytest.raises(WireError, match="its shape says"):
        EncodedImage(png(FRAME), (9, 9, 3)).decode()
    with pytest.raises(WireError, match="5 x 4 pixels, at most 19") as refused:
        EncodedImage(png(FRAME)).decode(max_pixels=19)
    assert refused.value.code == "too_large"


def test_a_message_over_the_limit_is_refused_before_it_is_read():
    assert unpack(pack(b"x" * 100), max_bytes=110) == b"x" * 100
    with pytest.raises(WireError, match="at most 50") as refused:
        unpack(pack(b"x" * 100), max_bytes=50)
    assert refused.value.code == "too_large"
    assert MAX_BYTES == 16 << 20


def test_lists_and_maps_are_limited_alone_and_together():
    with pytest.raises(WireError):
        unpack(pack([0] * (MAX_ENTRIES + 1)))
    with pytest.raises(WireError):
        unpack(pack({str(key): 0 for key in range(MAX_ENTRIES + 1)}))
    rows = MAX_ALL_ENTRIES // MAX_ENTRIES
    with pytest.raises(WireError) as refused:
        unpack(pack([[0] * MAX_ENTRIES] * (rows + 1)))
    assert refused.value.code == "too_large"
    assert len(unpack(pack([[0] * MAX_ENTRIES] * (rows - 1)))) == rows - 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",  # never used by msgpack
        b"\xa5ab",  # a text that ends early
        b"\xa1\xff",  # no UTF-8
        b"\xdb\xff\xff\xff\xffx",  # a text of 4 GB
        b"\xc6\xff\xff\xff\xffx",  # bytes of 4 GB
        b"\xdd\xff\xff\xff\xff",  # a list of 4 G
        b"\xdf\xff\xff\xff\xff",  # a map of 4 G
        b"\x81\x01\x01",  # a number as a key
        b"\x81\x90\x01",  # a list as a key
        b"\xc7\x04\x05abcd",  # an extension
        b"\xd6\x05abcd",
        b"\xc0\xc0",  # two values
        b"\xdd\x00\x00\x10\x00" * 1000,  # lists of 4096 in lists
    ],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(WireError):
        unpack(data)


@hypothesis.settings(max_examples=300)
@hypothesis.given(data=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data):
    try:
        unpack(data)
    except WireError as error:
        assert error.code in ("invalid", "too_large")


@hypothesis.given(value=VALUES, style=st.sampled_from(["openpi", "vla_eval"]), seed=st.integers(0, 2**32))
def test_a_message_with_bytes_changed_is_a_message_or_refused(value, style, seed):
    draw = random.Random(seed)
    data = bytearray(pack({"observation": value, "image": FRAME}, style))
    for _ in range(draw.randint(1, 4)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    for message in (bytes(data), bytes(data[: draw.randrange(len(data))])):
        try:
            unpack(message)
        except WireError:
            continue


def test_it_needs_numpy_and_msgpack_alone():
    script = (
        "import sys\n"
        "import rt2_jax.serve.wire\n"
        "print(*[name for name in ('PIL', 'msgspec', 'jax', 'aiohttp', 'websockets') if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, check=True)
    assert ran.stdout.split() == []
