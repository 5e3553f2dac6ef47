"""Weights of any size to time a model with: random numbers, drawn on the device in the dtype they are served in."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from rt2_jax.models.backbone import Backbone, Params
from rt2_jax.parallel.rules import is_axes, kernel_sides

_HALF = 2**15  # of the range of 16 random bits
_INT8_STD = 256 / 12**0.5


def random_weights(backbone: Backbone, dtype: str) -> Params:
    """Parameters of the scale that a fresh model's have, so that all activations are finite.

    One leaf at a time, and never in a wider dtype first: a model takes no more memory than it is served with.

    Args:
        backbone: the model; the leaves that it holds in int8 are drawn in int8, with the scales in float32.
        dtype: of the others.
    """
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    named = jax.tree.leaves(backbone.logical_axes(), is_leaf=is_axes)
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    drawn = [
        _leaf(jax.random.fold_in(jax.random.key(0), number), path[-1].key, leaf, names, dtype)
        for number, ((path, leaf), names) in enumerate(zip(leaves, named, strict=True))
    ]
    return jax.tree.unflatten(tree, drawn)


def _leaf(key: jax.Array, name: str, leaf: Any, names: tuple[str | None, ...], dtype: str) -> jax.Array:
    if leaf.dtype == jnp.int8:
        return _whole_numbers(key, leaf.shape)
    if name.endswith("_scale"):  # of int8 kernels and tables: their numbers times this have the scale of float ones
        return jnp.full(leaf.shape, 0.02 / _INT8_STD, jnp.float32)
    if name == "scale":
        return jnp.ones(leaf.shape, dtype)
    if name == "kernel":
        inputs, _ = kernel_sides(names)
        return _numbers(key, leaf.shape, dtype, math.prod(leaf.shape[axis] for axis in inputs) ** -0.5)
    return _numbers(key, leaf.shape, dtype, 0.02)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _numbers(key: jax.Array, shape: tuple[int, ...], dtype: str, std: float) -> jax.Array:
    """Uniform numbers of that standard deviation."""
    bits = jax.random.bits(key, shape, jnp.uint16).astype(jnp.float32)
    return ((bits / _HALF - 1) * (std * 3**0.5)).astype(dtype)


@functools.partial(jax.jit, static_argnums=1)
def _whole_numbers(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.lax.bitcast_convert_type(jax.random.bits(key, shape, jnp.uint8), jnp.int8)
