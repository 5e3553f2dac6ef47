"""Layer formulas against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.models.attention import Attention
from rt2_jax.models.layers import LayerNorm, RmsNorm
from rt2_jax.models.relative_bias import RelativeBias, buckets_by_distance
from rt2_jax.models.vit import patches, windows

NORMAL = jax.nn.initializers.normal(0.3)


def numpy_bucket(relative: int, bidirectional: bool, num: int = 32, max_distance: int = 128) -> int:
    """The published definition, one position at a time (key - query)."""
    offset = 0
    if bidirectional:
        num //= 2
        offset, distance = (num if relative > 0 else 0), abs(relative)
    else:
        distance = max(-relative, 0)
    exact = num // 2
    if distance < exact:
        return offset + distance
    ratio = np.log(np.float32(distance) / exact) / np.log(max_distance / exact)
    return offset + min(exact + int(ratio * (num - exact)), num - 1)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_follow_the_published_definition(bidirectional):
    length = 150
    table = buckets_by_distance(length, 32, 128, bidirectional)
    expected = [numpy_bucket(relative, bidirectional) for relative in range(-(length - 1), length)]
    assert table.tolist() == expected
    assert table.min() == 0 and table.max() == 31
    # Landmarks: distance 0, the last exact one, the first shared one, the saturated one.
    past = {distance: table[length - 1 - distance] for distance in (0, 7, 8, 15, 16, 128, 149)}
    assert past == (
        {0: 0, 7: 7, 8: 8, 15: 9, 16: 10, 128: 15, 149: 15}
        if bidirectional
        else {0: 0, 7: 7, 8: 8, 15: 15, 16: 16, 128: 31, 149: 31}
    )


def draw(module, *args):
    """Standard normal parameters for the arguments' shapes."""
    rng = np.random.default_rng(1)
    boxed = jax.eval_shape(module.init, jax.random.key(0), *args)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), boxed)


def values(params):
    """The arrays of a freshly initialised tree, without their axis names."""
    return jax.tree.map(lambda box: box.value, params, is_leaf=lambda leaf: hasattr(leaf, "names"))["params"]


def test_relative_bias_is_a_lookup():
    module = RelativeBias(32, 3)
    buckets = np.random.default_rng(0).integers(0, 32, (4, 6))
    params = draw(module, buckets)
    table = values(params)["table"]
    assert table.shape == (32, 3)
    bias = jax.jit(module.apply)(params, buckets)
    np.testing.assert_allclose(bias, np.moveaxis(table[buckets], -1, 0)[None], atol=1e-6)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_attention_formula(qk_norm):
    module = Attention(
        2, 4, 6, jnp.float32, NORMAL, NORMAL, NORMAL,
        query_scale=0.5, use_qkv_bias=True, use_out_bias=True, qk_norm=qk_norm,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x, source = rng.normal(size=(2, 3, 6)).astype(np.float32), rng.normal(size=(2, 5, 6)).astype(np.float32)
    bias = rng.normal(size=(2, 2, 3, 5)).astype(np.float32)
    bias[1, :, :, 4] = -1e9
    params = draw(module, x, source, bias)
    p = values(params)

    def project(name, y):
        return np.einsum("bsw,whd->bhsd", y, p[name]["kernel"]) + p[name]["bias"][None, :, None]

    def norm(name, y):
        return (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6) * p[name]["scale"]

    q, k, v = project("query", x), project("key", source), project("value", source)
    if qk_norm:
        q, k = norm("query_norm", q), norm("key_norm", k)
    weights = np.exp(0.5 * q @ k.swapaxes(-1, -2) + bias)
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bhsd,hdw->bsw", weights @ v, p["out"]["kernel"]) + p["out"]["bias"]
    np.testing.assert_allclose(jax.jit(module.apply)(params, x, source, bias), expected, atol=2e-5)
    assert np.all(weights[1, :, :, 4] == 0)


LAYER_NORM = jax.jit(LayerNorm(jnp.float32).apply)
BARE_RMS_NORM = jax.jit(RmsNorm(jnp.float32, use_scale=False).apply)
LOW_RMS_NORM = jax.jit(RmsNorm(jnp.bfloat16).apply)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-2, 1e3), offset=st.floats(-10, 10), seed=st.integers(0, 100))
def test_norms(scale, offset, seed):
    x = (np.random.default_rng(seed).normal(size=(3, 16)) * scale + offset).astype(np.float32)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    weights = {"scale": np.full(16, 2, np.float32), "bias": np.full(16, 3, np.float32)}
    normed = LAYER_NORM({"params": weights}, x)
    np.testing.assert_allclose(normed, 2 * expected + 3, atol=1e-2 if scale < 0.1 else 2e-3)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(BARE_RMS_NORM({}, x), expected, atol=1e-5)
    low = LOW_RMS_NORM({"params": {"scale": weights["scale"]}}, x.astype(jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(np.float32), 2 * expected, atol=0.05)


def test_patches_are_the_windows_of_a_convolution():
    x = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(4, 4, 3, 5)).astype(np.float32)
    expected = jax.lax.conv_general_dilated(x, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(patches(jnp.asarray(x), 4) @ kernel.reshape(-1, 5), expected, atol=1e-4)


def test_windows_are_those_of_a_strided_convolution():
    x = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 5)).astype(np.float32)
    padding = ((1, 1), (1, 1))
    expected = jax.lax.conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(windows(jnp.asarray(x)) @ kernel.reshape(-1, 5), expected, atol=1e-4)
