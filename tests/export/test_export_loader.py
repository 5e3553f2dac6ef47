"""The loader that travels in an artifact: what it computes without this package is what the package computes."""

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.actions import ActionBins, ActionSpace
from rt2_jax.export import loader
from rt2_jax.export.artifact import _state
from rt2_jax.export.program import action_values
from rt2_jax.inputs.images import resize_image


@given(
    st.integers(1, 200), st.integers(1, 200), st.integers(1, 130), st.integers(0, 2**32 - 1), st.sampled_from([2, 256])
)
@settings(max_examples=150)
def test_frames_are_resized_as_pillow_does(height, width, size, seed, levels):
    image = np.random.default_rng(seed).integers(0, levels, (height, width, 3)) * (255 // (levels - 1))
    image = image.astype(np.uint8)
    np.testing.assert_array_equal(loader.resize(image, size), resize_image(image, size))


@pytest.mark.parametrize("shape", [(480, 640), (256, 256), (720, 1280), (224, 224), (48, 64), (97, 95)])
@pytest.mark.parametrize("size", [96, 224])
def test_cameras_frames_are_resized_as_pillow_does(shape, size):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    np.testing.assert_array_equal(loader.resize(image, size), resize_image(image, size))


@pytest.mark.parametrize("decoding", ["centre", "rt1"])
def test_states_are_cut_as_bins_are(decoding):
    space = ActionSpace(
        ("a", "b", "c"), (-1.0, 0.0, -0.1), (1.0, 3.0, 0.7), ("m",) * 3, ("continuous", "binary", "continuous")
    )
    bins = ActionBins(space, num_bins=200, decoding=decoding, first=7)
    states = np.random.default_rng(0).uniform(-2, 4, (500, 3)).astype(np.float32)
    words = loader._state_words(_state(bins), states, [f"<{integer}>" for integer in range(256)])
    assert words == [[f"<{integer}>" for integer in row] for row in bins.encode(states)]


def test_every_integer_has_the_number_that_bins_decode():
    space = ActionSpace(
        ("a", "end", "b", "c"), (-1.0, 0.0, 0.0, -0.1), (1.0, 1.0, 3.0, 0.7), ("m",) * 4,
        ("continuous", "terminate", "binary", "continuous"),
    )  # fmt: skip
    bins = ActionBins(space, num_bins=100, first=3)
    values = action_values(bins)
    np.testing.assert_array_equal(~np.isnan(values[:, : bins.allowed.shape[1]]), bins.allowed)
    rows = np.stack([np.random.default_rng(0).choice(np.flatnonzero(row), 300) for row in bins.allowed], 1)
    np.testing.assert_array_equal(values[np.arange(4), rows], bins.decode(rows))


def test_safetensors_are_read_as_they_were_written(tmp_path):
    import ml_dtypes

    rng = np.random.default_rng(0)
    arrays = {
        "b/kernel": rng.integers(-127, 128, (3, 4)).astype(np.int8),
        "a": rng.normal(size=(2, 5)).astype(np.float32),
        "c": rng.normal(size=7).astype(ml_dtypes.bfloat16),
        "d": np.full((), 3.0, np.float32),
    }
    safetensors.numpy.save_file(arrays, str(tmp_path / "w.safetensors"))
    read = dict(loader.read_safetensors(tmp_path / "w.safetensors"))
    assert list(read) == ["a", "b/kernel", "c", "d"]
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
