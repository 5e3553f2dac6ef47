"""Layers that the vision and the text model share. B batch, Q and K query and key lengths, H heads, D head width."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from rt2_jax.parallel.rules import constrain

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"gelu": nn.gelu, "silu": nn.silu}  # gelu: tanh form, as T5
MASKED = -1e9  # added to an attention logit in float32: far below any real one, and finite, so no NaN in an empty row

Initializer = Callable[..., jax.Array]


def axes(init: Initializer, *names: str) -> Initializer:
    """``init`` whose result carries the logical axis ``names``."""
    return nn.with_logical_partitioning(init, names)


def scaled(init: Initializer, factor: float) -> Initializer:
    """``init`` times ``factor``."""
    return init if factor == 1.0 else lambda *arguments: init(*arguments) * factor


def hidden(x: jax.Array) -> jax.Array:
    """The layout of the residual stream [B, S, width]."""
    return constrain(x, "activation_batch", "activation_length", "activation_embed")


class LayerNorm(nn.Module):
    """(x - mean) / std over the last axis in float32, eps 1e-6; then a scale, and a bias unless ``use_bias`` is off."""

    dtype: jnp.dtype
    use_bias: bool = True
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x):
        wide = x.astype(jnp.float32)
        mean = jnp.mean(wide, -1, keepdims=True)
        variance = jnp.mean(jnp.square(wide - mean), -1, keepdims=True)
        scale = self.param("scale", axes(nn.initializers.ones, "norm"), x.shape[-1:], jnp.float32)
        wide = (wide - mean) * (jax.lax.rsqrt(variance + self.epsilon) * scale)
        if self.use_bias:
            wide = wide + self.param("bias", axes(nn.initializers.zeros, "norm"), x.shape[-1:], jnp.float32)
        return wide.astype(self.dtype)


class RmsNorm(nn.Module):
    """x / rms(x) over the last axis in float32, eps 1e-6; then a scale unless ``use_scale`` is off (T5, UL2)."""

    dtype: jnp.dtype
    use_scale: bool = True
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x):
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + self.epsilon)
        if self.use_scale:
            wide = wide * self.param("scale", axes(nn.initializers.ones, "norm"), x.shape[-1:], jnp.float32)
        return wide.astype(self.dtype)


class Linear(nn.Module):
    """x @ kernel (+ bias): the last axis of x goes to an axis of ``features`` entries."""

    features: int
    dtype: jnp.dtype
    kernel_axes: tuple[str, str]
    kernel_init: Initializer
    use_bias: bool = True
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x):
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", axes(self.kernel_init, *self.kernel_axes), shape, jnp.float32)
        # One row a token: with two batch axes the CPU backend computes the kernel's gradient several times slower.
        y = x.astype(self.dtype).reshape(-1, x.shape[-1]) @ kernel.astype(self.dtype)
        y = y.reshape(*x.shape[:-1], self.features)
        if self.use_bias:
            bias_axis = "norm" if self.kernel_axes[1] == "embed" else self.kernel_axes[1]
            bias = self.param("bias", axes(self.bias_init, bias_axis), (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


class HeadsIn(nn.Module):
    """x[B, S, width] -> [B, S, H, D]."""

    heads: int
    head_dim: int
    dtype: jnp.dtype
    kernel_init: Initializer
    use_bias: bool

    @nn.compact
    def __call__(self, x):
        shape = (x.shape[-1], self.heads, self.head_dim)
        kernel = self.param("kernel", axes(self.kernel_init, "embed", "heads", "head_dim"), shape, jnp.float32)
        y = jnp.einsum("bsw,whd->bshd", x, kernel.astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", axes(nn.initializers.zeros, "heads", "head_dim"), shape[1:], jnp.float32)
            y = y + bias.astype(self.dtype)
        return constrain(y, "activation_batch", "activation_length", "activation_heads", "activation_head_dim")


class HeadsOut(nn.Module):
    """x[B, S, H, D] -> [B, S, width]."""

    width: int
    dtype: jnp.dtype
    kernel_init: Initializer
    use_bias: bool

    @nn.compact
    def __call__(self, x):
        shape = (*x.shape[-2:], self.width)
        kernel = self.param("kernel", axes(self.kernel_init, "heads", "head_dim", "embed"), shape, jnp.float32)
        y = jnp.einsum("bshd,hdw->bsw", x, kernel.astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", axes(nn.initializers.zeros, "norm"), (self.width,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return hidden(y)


class Dropout(nn.Module):
    """Dropout with one pattern along ``shared_axis`` (as in T5X); off when apply is given no "dropout" key."""

    rate: float
    shared_axis: int = -2

    @nn.compact
    def __call__(self, x):
        if self.rate == 0.0 or not self.has_rng("dropout"):
            return x
        return nn.Dropout(self.rate, broadcast_dims=(self.shared_axis,))(x, deterministic=False)


class Attention(nn.Module):
    """Multi-head attention: softmax(scale * q k + bias) v, the softmax in float32.

    ``query_scale`` multiplies q (1 for T5, which folds it into the initialiser; head_dim ** -0.5 for the ViT).
    ``qk_norm`` puts a bias-free LayerNorm over head_dim on q and k (ViT-22B).
    """

    heads: int
    head_dim: int
    width: int
    dtype: jnp.dtype
    kernel_init: Initializer
    query_init: Initializer
    out_init: Initializer
    query_scale: float = 1.0
    use_qkv_bias: bool = False
    use_out_bias: bool = False
    qk_norm: bool = False
    dropout_rate: float = 0.0

    def setup(self):
        heads = {"heads": self.heads, "head_dim": self.head_dim, "dtype": self.dtype, "use_bias": self.use_qkv_bias}
        self.query = HeadsIn(kernel_init=self.query_init, **heads)
        self.key = HeadsIn(kernel_init=self.kernel_init, **heads)
        self.value = HeadsIn(kernel_init=self.kernel_init, **heads)
        self.out = HeadsOut(self.width, self.dtype, self.out_init, self.use_out_bias)
        self.dropout = Dropout(self.dropout_rate)
        if self.qk_norm:
            self.query_norm = LayerNorm(self.dtype, use_bias=False)
            self.key_norm = LayerNorm(self.dtype, use_bias=False)

    def __call__(self, x, source, bias=None):
        """x[B, Q, width] attends over source[B, K, width]; bias float32, broadcastable to [B, H, Q, K]."""
        return self.attend(x, *self.keys_values(source), bias)

    def keys_values(self, source):
        """k and v [B, K, H, D] of source[B, K, width]."""
        key = self.key(source)
        return (self.key_norm(key) if self.qk_norm else key), self.value(source)

    def attend(self, x, key, value, bias=None):
        """x[B, Q, width] over keys and values [B, K, H, D] already computed."""
        query = self.query(x)
        query = self.query_norm(query) if self.qk_norm else query
        logits = jnp.einsum("bqhd,bkhd->bhqk", query * self.query_scale, key, preferred_element_type=jnp.float32)
        weights = nn.softmax(logits if bias is None else logits + bias).astype(self.dtype)
        return self.out(jnp.einsum("bhqk,bkhd->bqhd", self.dropout(weights), value))
