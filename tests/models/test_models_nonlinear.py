"""Softmax and activations with gradients of their own, against those of `jax.nn` that JAX derives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.config import ACTIVATIONS
from rt2_jax.models.nonlinear import activate, gated, softmax

PLAIN = {"gelu": jax.nn.gelu, "silu": jax.nn.silu}


def _values(dtype, scale=3.0, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(0.0, scale, (7, 33)), dtype)


def _cases():
    yield "softmax", lambda x, y: softmax(x) * y, lambda x, y: jax.nn.softmax(x) * y
    for name in ACTIVATIONS:
        yield name, lambda x, y, name=name: activate(name, x) * y, lambda x, y, name=name: PLAIN[name](x) * y
        yield f"gated {name}", lambda x, y, name=name: gated(name, x, y), lambda x, y, name=name: PLAIN[name](x) * y


CASES = {name: (ours, plain) for name, ours, plain in _cases()}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_jax_to_the_bit(name, dtype):
    ours, plain = CASES[name]
    x, y = _values(dtype), _values(dtype, 1.0, 1)
    assert np.array_equal(jax.jit(ours)(x, y), jax.jit(plain)(x, y))


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_that_jax_derives(name):
    ours, plain = CASES[name]
    x, y = _values(jnp.float32), _values(jnp.float32, 1.0, 1)
    found, wanted = (jax.vjp(function, x, y)[1](_values(jnp.float32, 1.0, 2)) for function in (ours, plain))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_gradients_in_bfloat16_have_its_dtype_and_precision(name):
    ours, plain = CASES[name]
    x, y, dz = (_values(jnp.bfloat16, scale, seed) for seed, scale in enumerate((3.0, 1.0, 1.0)))
    exact = jax.vjp(plain, *(array.astype(jnp.float32) for array in (x, y)))[1](dz.astype(jnp.float32))
    for one, other in zip(jax.vjp(ours, x, y)[1](dz), exact, strict=True):
        assert one.dtype == jnp.bfloat16
        np.testing.assert_allclose(one.astype(jnp.float32), other, rtol=0.05, atol=0.05)


def _kept(function, *arrays):
    """Bytes that the backward pass keeps, in copies of the first argument."""
    pullback = jax.eval_shape(lambda *arguments: jax.vjp(function, *arguments)[1], *arrays)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pullback)) / arrays[0].nbytes


def test_a_gradient_keeps_one_array_and_a_gate_its_two_inputs():
    x, y = _values(jnp.float32), _values(jnp.float32, 1.0, 1)
    assert _kept(softmax, x) == 1
    for name in ACTIVATIONS:
        assert _kept(lambda x, name=name: activate(name, x), x) == 1
        assert _kept(lambda x, y, name=name: gated(name, x, y), x, y) == 2
        assert _kept(lambda x, y, name=name: PLAIN[name](x) * y, x, y) > 2
