"""Layers that the vision and the text models share."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from rt2_jax.models.nonlinear import gated
from rt2_jax.parallel.rules import constrain

MASKED = -1e9  # added to an attention logit in float32: far below any real one, and finite, so no NaN in an empty row

Initializer = Callable[..., Any]  # gives an array, boxed or not

# The text models' kernels: every output starts with the variance of its inputs.
FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
HEADS_IN = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-3, out_axis=(-2, -1))
HEADS_OUT = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=(-3, -2), out_axis=-1)


def axes(init: Initializer, *names: str) -> Initializer:
    """``init`` whose result is boxed with the logical axis ``names``."""
    return nn.with_logical_partitioning(init, names)


def scaled(init: Initializer, factor: float) -> Initializer:
    """``init`` times ``factor``."""
    return init if factor == 1.0 else lambda *arguments: init(*arguments) * factor


def hidden(x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
    """The layout of the residual stream."""
    return constrain(x, "activation_batch", "activation_length", "activation_embed")


def adapted(
    module: nn.Module,
    x: Float[Array, "..."],
    y: Float[Array, "*axes"],
    outputs: Int32[Array | np.ndarray, " outputs"] | None = None,
) -> Float[Array, "*axes"]:
    """y + (x A) B, where the module's parameters hold A and B (LoRA); y itself otherwise.

    A [inputs, rank] and B [rank, outputs] stand beside the kernel [inputs, outputs], either side one axis or more; see
    models/lora.py. The product A B, as large as the kernel, is never formed. ``outputs``: those that y has, None: all.
    """
    if not module.has_variable("params", "lora_a"):
        return y
    a, b = (module.get_variable("params", name).astype(module.dtype) for name in ("lora_a", "lora_b"))
    b = b if outputs is None else jnp.take(b, outputs, axis=-1)
    return y + jnp.tensordot(jnp.tensordot(x, a, a.ndim - 1), b, 1, preferred_element_type=y.dtype)


def rescaled(
    module: nn.Module,
    y: Float[Array, "*axes"],
    name: str = "kernel",
    outputs: Int32[Array | np.ndarray, " outputs"] | None = None,
) -> Float[Array, "*axes"]:
    """y times the scale of each output channel, where the module's ``name`` is int8; y itself otherwise.

    See models/int8.py. The scale has y's last axes; they are multiplied in float32. ``outputs``: as in `adapted`.
    """
    if not module.has_variable("params", f"{name}_scale"):
        return y
    scale = module.get_variable("params", f"{name}_scale")
    scale = scale if outputs is None else jnp.take(scale, outputs, axis=-1)
    return (y.astype(jnp.float32) * scale).astype(y.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / std over the last axis in float32, eps 1e-6; then a scale, and a bias unless ``use_bias`` is off."""

    dtype: jnp.dtype
    use_bias: bool = True
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
        wide = x.astype(jnp.float32)
        mean = jnp.mean(wide, -1, keepdims=True)
        variance = jnp.mean(jnp.square(wide - mean), -1, keepdims=True)
        scale = self.param("scale", axes(nn.initializers.ones, "norm"), x.shape[-1:], jnp.float32)
        wide = (wide - mean) * (jax.lax.rsqrt(variance + self.epsilon) * scale)
        if self.use_bias:
            wide = wide + self.param("bias", axes(nn.initializers.zeros, "norm"), x.shape[-1:], jnp.float32)
        return wide.astype(self.dtype)


class RmsNorm(nn.Module):
    """x / rms(x) over the last axis in float32, eps 1e-6; then a scale unless ``use_scale`` is off (T5, UL2).

    ``zero_centered``: the parameter is the scale's distance from 1 (Gemma).
    """

    dtype: jnp.dtype
    use_scale: bool = True
    zero_centered: bool = False
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + self.epsilon)
        if self.use_scale:
            init = nn.initializers.zeros if self.zero_centered else nn.initializers.ones
            scale = self.param("scale", axes(init, "norm"), x.shape[-1:], jnp.float32)
            wide = wide * (1.0 + scale if self.zero_centered else scale)
        return wide.astype(self.dtype)


class Linear(nn.Module):
    """x @ kernel (+ bias), over the last axis of x."""

    features: int
    dtype: jnp.dtype
    kernel_axes: tuple[str, str]
    kernel_init: Initializer
    use_bias: bool = True
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*rows inputs"]) -> Float[Array, "*rows {self.features}"]:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", axes(self.kernel_init, *self.kernel_axes), shape, jnp.float32)
        # One row a token: with two batch axes the CPU backend computes the kernel's gradient several times slower.
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        y = adapted(self, rows, rescaled(self, rows @ kernel.astype(self.dtype)))
        y = y.reshape(*x.shape[:-1], self.features)
        if self.use_bias:
            bias_axis = "norm" if self.kernel_axes[1] == "embed" else self.kernel_axes[1]
            bias = self.param("bias", axes(self.bias_init, bias_axis), (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


class HeadsIn(nn.Module):
    """x to the queries, keys or values of every head."""

    heads: int
    head_dim: int
    dtype: jnp.dtype
    kernel_init: Initializer
    use_bias: bool
    heads_axis: str = "heads"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length width"]
    ) -> Float[Array, "batch length {self.heads} {self.head_dim}"]:
        shape = (x.shape[-1], self.heads, self.head_dim)
        kernel = self.param("kernel", axes(self.kernel_init, "embed", self.heads_axis, "head_dim"), shape, jnp.float32)
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])  # see `Linear`
        y = (rows @ kernel.astype(self.dtype).reshape(x.shape[-1], -1)).reshape(*x.shape[:-1], *shape[1:])
        y = adapted(self, x, rescaled(self, y))
        if self.use_bias:
            bias = self.param("bias", axes(nn.initializers.zeros, self.heads_axis, "head_dim"), shape[1:], jnp.float32)
            y = y + bias.astype(self.dtype)
        return constrain(y, "activation_batch", "activation_length", "activation_heads", "activation_head_dim")


class HeadsOut(nn.Module):
    """What the heads attended to, put together."""

    width: int
    dtype: jnp.dtype
    kernel_init: Initializer
    use_bias: bool

    @nn.compact
    def __call__(self, x: Float[Array, "batch length heads head_dim"]) -> Float[Array, "batch length {self.width}"]:
        shape = (*x.shape[-2:], self.width)
        kernel = self.param("kernel", axes(self.kernel_init, "heads", "head_dim", "embed"), shape, jnp.float32)
        inputs = math.prod(x.shape[-2:])
        y = x.reshape(-1, inputs) @ kernel.astype(self.dtype).reshape(inputs, -1)  # see `Linear`
        y = adapted(self, x, rescaled(self, y.reshape(*x.shape[:-2], self.width)))
        if self.use_bias:
            bias = self.param("bias", axes(nn.initializers.zeros, "norm"), (self.width,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return hidden(y)


class Dropout(nn.Module):
    """Dropout with one pattern along ``shared_axis`` (as in T5X); off when apply is given no "dropout" key."""

    rate: float
    shared_axis: int = -2

    @nn.compact
    def __call__(self, x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
        if self.rate == 0.0 or not self.has_rng("dropout"):
            return x
        return nn.Dropout(self.rate, broadcast_dims=(self.shared_axis,))(x, deterministic=False)


class GatedMlp(nn.Module):
    """x -> (act(x W_gate) * x W_up) W_down (arXiv 2002.05202), without biases."""

    mlp: int
    width: int
    activation: str
    dtype: jnp.dtype
    dropout_rate: float = 0.0
    branch_init: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
        gate = Linear(self.mlp, self.dtype, ("embed", "mlp"), FAN_IN, use_bias=False, name="gate")(x)
        up = Linear(self.mlp, self.dtype, ("embed", "mlp"), FAN_IN, use_bias=False, name="up")(x)
        x = gated(self.activation, gate, up)
        x = Dropout(self.dropout_rate)(constrain(x, "activation_batch", "activation_length", "activation_mlp"))
        down_init = scaled(FAN_IN, self.branch_init)
        return hidden(Linear(self.width, self.dtype, ("mlp", "embed"), down_init, use_bias=False, name="down")(x))
