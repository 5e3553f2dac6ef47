"""Multi-head attention, with the switches that the ViT, T5, Gemma and PaLM need of it."""

from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from rt2_jax.models.layers import MASKED, Dropout, HeadsIn, HeadsOut, Initializer, LayerNorm
from rt2_jax.models.nonlinear import softmax
from rt2_jax.parallel.rules import constrain

# Added to attention logits; an axis of size 1 stands for all of it.
AttentionBias = Float32[Array, "#batch #heads #queries keys"]

_Stack = TypeVar("_Stack")
# What a stack's layers remember: one array, or one for each.
Layers = _Stack | tuple[_Stack, ...]


def rotate(
    x: Float[Array, "batch length heads head_dim"], positions: Int[Array, "batch length"], theta: float
) -> Float[Array, "batch length heads head_dim"]:
    """Rotary position embedding (arXiv 2104.09864, 3.2): pairs of x's last axis turned by their positions.

    The pair (i, i + D / 2) of D turns by position * theta ** (-2 i / D) radians, computed in float32.
    """
    half = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1).astype(x.dtype)


def softcap(x: Float[Array, "*axes"], cap: float) -> Float[Array, "*axes"]:
    """cap * tanh(x / cap), between -cap and cap; x itself where cap is 0."""
    return x if cap == 0.0 else cap * jnp.tanh(x / cap)


def mask_bias(mask: Bool[Array, "*axes"]) -> Float32[Array, "*axes"]:
    """What to add to attention logits: 0 where True, MASKED where False."""
    return jnp.where(mask, 0.0, MASKED)


def padding_bias(mask: Bool[Array, "batch keys"]) -> Float32[Array, "batch 1 1 keys"]:
    """`mask_bias` of a padding mask, for all heads and queries."""
    return mask_bias(mask)[:, None, None, :]


def keys_layout(
    x: Float[Array, "*layers batch heads head_dim keys"],
) -> Float[Array, "*layers batch heads head_dim keys"]:
    """The layout of keys, of a stack or of one layer."""
    return _layout(x, "activation_head_dim", "activation_length")


def values_layout(
    x: Float[Array, "*layers batch heads keys head_dim"],
) -> Float[Array, "*layers batch heads keys head_dim"]:
    """The layout of values, of a stack or of one layer."""
    return _layout(x, "activation_length", "activation_head_dim")


def _layout(x: Float[Array, "*axes"], *last: str) -> Float[Array, "*axes"]:
    return constrain(x, *(None,) * (x.ndim - 4), "activation_batch", "activation_heads", *last)


def keys_written(
    cache: Float[Array, "*layers batch heads head_dim keys"],
    new: Float[Array, "*layers batch heads head_dim 1"],
    place: Int[Array, ""] | int,
) -> Float[Array, "*layers batch heads head_dim keys"]:
    """Keys with those of one token in their place."""
    return keys_layout(jax.lax.dynamic_update_slice_in_dim(cache, new, place, axis=cache.ndim - 1))


def values_written(
    cache: Float[Array, "*layers batch heads keys head_dim"],
    new: Float[Array, "*layers batch heads 1 head_dim"],
    place: Int[Array, ""] | int,
) -> Float[Array, "*layers batch heads keys head_dim"]:
    """Values with those of one token in their place."""
    return values_layout(jax.lax.dynamic_update_slice_in_dim(cache, new, place, axis=cache.ndim - 2))


def _products(
    x: Float[Array, "batch heads rows inner"], y: Float[Array, "batch heads inner columns"], dtype: jnp.dtype
) -> Float[Array, "batch heads rows columns"]:
    """x y of each example and head. `jnp.matmul` would drop axes of size 1, and remat policies look at batch axes."""
    return jax.lax.dot_general(x, y, (((3,), (2,)), ((0, 1), (0, 1))), preferred_element_type=dtype)


class Attention(nn.Module):
    """softmax(scale * q k + bias) v, the softmax in float32.

    ``kv_heads`` keys and values are shared by groups of ``heads / kv_heads`` queries (0: one each). ``query_scale``
    multiplies q (1 for T5, which folds it into the initialiser; head_dim ** -0.5 for the ViT). ``qk_norm`` puts a
    bias-free LayerNorm over head_dim on q and k (ViT-22B). ``rope_theta`` turns q and k by their positions (0: no).
    ``logits_softcap`` bounds the attention logits (0: no).
    """

    heads: int
    head_dim: int
    width: int
    dtype: jnp.dtype
    kernel_init: Initializer
    query_init: Initializer
    out_init: Initializer
    kv_heads: int = 0
    query_scale: float = 1.0
    use_qkv_bias: bool = False
    use_out_bias: bool = False
    qk_norm: bool = False
    rope_theta: float = 0.0
    logits_softcap: float = 0.0
    dropout_rate: float = 0.0

    def setup(self) -> None:
        common: dict[str, Any] = {"head_dim": self.head_dim, "dtype": self.dtype, "use_bias": self.use_qkv_bias}
        shared: dict[str, Any] = {
            **common,
            "heads": self.kv_heads or self.heads,
            "heads_axis": "kv_heads" if self.kv_heads else "heads",
        }
        self.query = HeadsIn(heads=self.heads, kernel_init=self.query_init, **common)
        self.key = HeadsIn(kernel_init=self.kernel_init, **shared)
        self.value = HeadsIn(kernel_init=self.kernel_init, **shared)
        self.out = HeadsOut(self.width, self.dtype, self.out_init, self.use_out_bias)
        self.dropout = Dropout(self.dropout_rate)
        if self.qk_norm:
            self.query_norm = LayerNorm(self.dtype, use_bias=False)
            self.key_norm = LayerNorm(self.dtype, use_bias=False)

    def __call__(
        self,
        x: Float[Array, "batch queries width"],
        source: Float[Array, "batch keys width"],
        bias: AttentionBias | None = None,
    ) -> Float[Array, "batch queries width"]:
        """``x`` attends over ``source``."""
        return self.attend(x, *self.keys_values(source), bias)

    def keys_values(
        self, source: Float[Array, "batch keys width"], positions: Int[Array, "batch keys"] | None = None
    ) -> tuple[Float[Array, "batch kv_heads head_dim keys"], Float[Array, "batch kv_heads keys head_dim"]]:
        """k and v of ``source``; it needs ``positions`` where there is a rotation.

        Their axes stand as the products of `attend` want them, so that a cache is not transposed at every token.
        """
        key = self.key(source)
        key = self.key_norm(key) if self.qk_norm else key
        return self._rotated(key, positions).transpose(0, 2, 3, 1), self.value(source).swapaxes(1, 2)

    def attend(
        self,
        x: Float[Array, "batch queries width"],
        key: Float[Array, "batch kv_heads head_dim keys"],
        value: Float[Array, "batch kv_heads keys head_dim"],
        bias: AttentionBias | None = None,
        positions: Int[Array, "batch queries"] | None = None,
    ) -> Float[Array, "batch queries width"]:
        """``x``, at ``positions`` where there is a rotation, over keys and values already computed."""
        query = self.query(x)
        query = self.query_norm(query) if self.qk_norm else query
        query = (self._rotated(query, positions) * self.query_scale).swapaxes(1, 2)
        # The queries of the heads that share keys stand one after another: one product for all of them.
        grouped = (*key.shape[:2], -1)
        logits = _products(query.reshape(*grouped, self.head_dim), key, jnp.dtype(jnp.float32))
        logits = softcap(logits.reshape(*query.shape[:3], -1), self.logits_softcap)
        weights = softmax(logits if bias is None else logits + bias).astype(self.dtype)
        weights = self.dropout(weights)
        attended = _products(weights.reshape(*grouped, weights.shape[-1]), value, self.dtype)
        return self.out(attended.reshape(query.shape).swapaxes(1, 2))

    def _rotated(
        self, x: Float[Array, "batch length heads head_dim"], positions: Int[Array, "batch length"] | None
    ) -> Float[Array, "batch length heads head_dim"]:
        if not self.rope_theta:
            return x
        if positions is None:
            raise TypeError("a rotation needs positions")
        return rotate(x, positions, self.rope_theta)
