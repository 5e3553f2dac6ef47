"""The T5 1.1 style encoder and decoder stacks. Caches are explicit pytrees."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from rt2_jax.models.attention import (
    Attention,
    AttentionBias,
    Layers,
    keys_layout,
    keys_written,
    padding_bias,
    values_layout,
    values_written,
)
from rt2_jax.models.config import EncoderDecoderConfig
from rt2_jax.models.layers import HEADS_IN, HEADS_OUT, MASKED, Dropout, GatedMlp, Initializer, RmsNorm, hidden, scaled
from rt2_jax.models.relative_bias import RelativeBias, buckets_by_distance
from rt2_jax.models.stack import per_layer, stacked


@flax.struct.dataclass
class Cache:
    """What a decoder remembers of a batch: K and V of each layer, compute dtype.

    Of all layers in one array each, or a tuple of the layers' arrays where these are apart (models/stack.py).

    key, value: of the tokens decoded so far; max_len is the most tokens this cache can take.
    cross_key, cross_value: of the encoder's output, computed once; cross_mask is False on its padding.
    """

    key: Layers[Float[Array, "*layers batch heads head_dim max_len"]]
    value: Layers[Float[Array, "*layers batch heads max_len head_dim"]]
    cross_key: Layers[Float[Array, "*layers batch heads head_dim source"]]
    cross_value: Layers[Float[Array, "*layers batch heads source head_dim"]]
    cross_mask: Bool[Array, "batch source"]


def query_init(head_dim: int) -> Initializer:
    """T5 attention has no 1 / sqrt(head_dim): the query's initialiser carries it."""
    return nn.initializers.variance_scaling(1.0 / head_dim, "fan_in", "normal", in_axis=-3, out_axis=(-2, -1))


def make_attention(config: EncoderDecoderConfig, dtype: jnp.dtype, branch_init: float = 1.0) -> Attention:
    """T5's attention: no biases, no scaling of the query."""
    return Attention(
        config.heads, config.head_dim, config.width, dtype,
        kernel_init=HEADS_IN, query_init=query_init(config.head_dim),
        out_init=scaled(HEADS_OUT, branch_init), dropout_rate=config.dropout_rate,
    )  # fmt: skip


def make_mlp(config: EncoderDecoderConfig, dtype: jnp.dtype, branch_init: float = 1.0) -> GatedMlp:
    """T5 1.1's gated MLP."""
    return GatedMlp(config.mlp, config.width, config.activation, dtype, config.dropout_rate, branch_init)


def layer_bias(
    block: nn.Module, mask: AttentionBias, buckets: Int32[Array, "#queries keys"] | None
) -> Float32[Array, "#batch #heads #queries keys"]:
    """``mask`` plus the block's own relative bias; ``buckets`` None: the stack shares one, already in ``mask``."""
    return mask if buckets is None else mask + block.relative_bias(buckets)


class EncoderBlock(nn.Module):
    """Self-attention and gated MLP, each on a normed copy and added back."""

    config: EncoderDecoderConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        config = self.config
        self.norm_attention = RmsNorm(self.dtype)
        self.attention = make_attention(config, self.dtype, config.encoder_branch_init)
        self.norm_mlp = RmsNorm(self.dtype)
        self.mlp = make_mlp(config, self.dtype, config.encoder_branch_init)
        self.dropout = Dropout(config.dropout_rate)
        if config.per_layer_bias:
            self.relative_bias = RelativeBias(config.relative_buckets, config.heads)

    def __call__(
        self,
        x: Float[Array, "batch length width"],
        bias: AttentionBias,
        buckets: Int32[Array, "length length"] | None,
    ) -> tuple[Float[Array, "batch length width"], None]:
        y = self.norm_attention(x)
        x = x + self.dropout(self.attention(y, y, layer_bias(self, bias, buckets)))
        return x + self.dropout(self.mlp(self.norm_mlp(x))), None


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention over the encoder's output, gated MLP."""

    config: EncoderDecoderConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        config = self.config
        self.norm_self_attention = RmsNorm(self.dtype)
        self.self_attention = make_attention(config, self.dtype)
        self.norm_cross_attention = RmsNorm(self.dtype)
        self.cross_attention = make_attention(config, self.dtype)
        self.norm_mlp = RmsNorm(self.dtype)
        self.mlp = make_mlp(config, self.dtype)
        self.dropout = Dropout(config.dropout_rate)
        if config.per_layer_bias:
            self.relative_bias = RelativeBias(config.relative_buckets, config.heads)

    def __call__(
        self,
        x: Float[Array, "batch length width"],
        encoded: Float[Array, "batch source width"],
        bias: Float32[Array, "1 #heads length length"],
        buckets: Int32[Array, "length length"] | None,
        cross_bias: Float32[Array, "batch 1 1 source"],
    ) -> tuple[Float[Array, "batch length width"], None]:
        """One layer on a whole sequence."""
        y = self.norm_self_attention(x)
        x = x + self.dropout(self.self_attention(y, y, layer_bias(self, bias, buckets)))
        return self._after_self_attention(x, *self.cross_attention.keys_values(encoded), cross_bias), None

    def cross_keys_values(
        self, carry: tuple[()], encoded: Float[Array, "batch source width"]
    ) -> tuple[
        tuple[()], tuple[Float[Array, "batch heads head_dim source"], Float[Array, "batch heads source head_dim"]]
    ]:
        """This layer's K and V of the encoder's output, for the cache."""
        return carry, self.cross_attention.keys_values(encoded)

    def step(
        self,
        x: Float[Array, "batch 1 width"],
        key: Float[Array, "batch heads head_dim max_len"],
        value: Float[Array, "batch heads max_len head_dim"],
        cross_key: Float[Array, "batch heads head_dim source"],
        cross_value: Float[Array, "batch heads source head_dim"],
        bias: Float32[Array, "1 #heads 1 max_len"],
        buckets: Int32[Array, "1 max_len"] | None,
        cross_bias: Float32[Array, "batch 1 1 source"],
        index: Int[Array, ""] | int,
    ) -> tuple[
        Float[Array, "batch 1 width"],
        tuple[
            tuple[Float[Array, "batch heads head_dim 1"], Float[Array, "batch heads 1 head_dim"]],
            tuple[Float[Array, "batch heads head_dim max_len"], Float[Array, "batch heads max_len head_dim"]],
        ],
    ]:
        """One layer on the token at ``index``, over its cache; gives its K and V too, and the cache with them."""
        y = self.norm_self_attention(x)
        new_key, new_value = self.self_attention.keys_values(y)
        key, value = keys_written(key, new_key, index), values_written(value, new_value, index)
        x = x + self.self_attention.attend(y, key, value, layer_bias(self, bias, buckets))
        return self._after_self_attention(x, cross_key, cross_value, cross_bias), ((new_key, new_value), (key, value))

    def _after_self_attention(
        self,
        x: Float[Array, "batch length width"],
        cross_key: Float[Array, "batch heads head_dim source"],
        cross_value: Float[Array, "batch heads source head_dim"],
        cross_bias: Float32[Array, "batch 1 1 source"],
    ) -> Float[Array, "batch length width"]:
        attended = self.cross_attention.attend(self.norm_cross_attention(x), cross_key, cross_value, cross_bias)
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(self.norm_mlp(x)))


class Encoder(nn.Module):
    """The encoder stack; its mask is True where there is a token."""

    config: EncoderDecoderConfig
    dtype: jnp.dtype
    remat: str
    unroll: bool
    apart: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch source width"], mask: Bool[Array, "batch source"]
    ) -> Float[Array, "batch source width"]:
        config = self.config
        length = x.shape[1]
        positions = jnp.arange(length)
        relative = positions[None] - positions[:, None]
        buckets = _buckets(config, length, bidirectional=True)[relative + length - 1]
        bias = padding_bias(mask)
        if not config.per_layer_bias:
            shared = RelativeBias(config.relative_buckets, config.heads, name="relative_bias")
            bias, buckets = bias + shared(buckets), None
        methods = {"__call__": (nn.broadcast, nn.broadcast)}
        blocks = stacked(
            EncoderBlock, config.encoder_layers, methods, remat=self.remat, unroll=self.unroll, apart=self.apart
        )
        dropout = Dropout(config.dropout_rate)
        x, _ = blocks(config, self.dtype, name="blocks")(dropout(hidden(x)), bias, buckets)
        return hidden(dropout(RmsNorm(self.dtype, name="norm")(x)))


class Decoder(nn.Module):
    """The decoder stack, on a whole sequence or one token at a time."""

    config: EncoderDecoderConfig
    dtype: jnp.dtype
    remat: str
    unroll: bool
    apart: bool

    def setup(self) -> None:
        config = self.config
        each, same = 0, nn.broadcast
        methods = {
            "__call__": (same,) * 4,
            "cross_keys_values": (same,),
            "step": (each,) * 4 + (same,) * 4,
        }
        blocks = stacked(
            DecoderBlock, config.decoder_layers, methods, remat=self.remat, unroll=self.unroll, apart=self.apart
        )
        self.blocks = blocks(config, self.dtype)
        self.norm = RmsNorm(self.dtype, use_scale=config.decoder_norm_scale)
        self.dropout = Dropout(config.dropout_rate)
        if not config.per_layer_bias:
            self.relative_bias = RelativeBias(config.relative_buckets, config.heads)

    def __call__(
        self,
        x: Float[Array, "batch length width"],
        encoded: Float[Array, "batch source width"],
        mask: Bool[Array, "batch source"],
    ) -> Float[Array, "batch length width"]:
        """The target ``x``, already shifted right, over the encoder's output and its mask."""
        length = x.shape[1]
        positions = jnp.arange(length)
        bias, buckets = self._bias(positions, length)
        x, _ = self.blocks(self.dropout(hidden(x)), encoded, bias, buckets, padding_bias(mask))
        return hidden(self.dropout(self.norm(x)))

    def start_cache(
        self, encoded: Float[Array, "batch source width"], mask: Bool[Array, "batch source"], max_len: int
    ) -> Cache:
        """An empty cache for ``max_len`` tokens, over the encoder's output and its mask."""
        config = self.config
        _, (cross_key, cross_value) = self.blocks.cross_keys_values((), encoded)
        batch = (encoded.shape[0],) if self.apart else (config.decoder_layers, encoded.shape[0])
        key = keys_layout(jnp.zeros((*batch, config.heads, config.head_dim, max_len), self.dtype))
        value = values_layout(jnp.zeros((*batch, config.heads, max_len, config.head_dim), self.dtype))
        if self.apart:
            key, value = (key,) * config.decoder_layers, (value,) * config.decoder_layers
        return Cache(key, value, per_layer(keys_layout, cross_key), per_layer(values_layout, cross_value), mask)

    def step(
        self, x: Float[Array, "batch 1 width"], cache: Cache, index: Int[Array, ""] | int
    ) -> tuple[Float[Array, "batch 1 width"], Cache]:
        """The token at position ``index`` < max_len, and the cache with its K and V."""
        bias, buckets = self._bias(jnp.reshape(index, (1,)), jax.tree.leaves(cache.key)[0].shape[-1])
        stacks = (cache.key, cache.value, cache.cross_key, cache.cross_value)
        x, ((new_key, new_value), (key, value)) = self.blocks.step(
            hidden(x), *stacks, bias, buckets, padding_bias(cache.cross_mask), index
        )
        # Into a stack the token alone is written; layers that are apart have been written to.
        if not isinstance(cache.key, tuple):
            key = keys_written(cache.key, new_key, index)
        if not isinstance(cache.value, tuple):
            value = values_written(cache.value, new_value, index)
        return self.norm(x), dataclasses.replace(cache, key=key, value=value)

    def _bias(
        self, query_positions: Int[Array, " queries"], length: int
    ) -> tuple[Float32[Array, "1 #heads queries {length}"], Int32[Array, "queries {length}"] | None]:
        """Causal mask and shared bias over ``length`` keys; the buckets too if layers have tables of their own."""
        config = self.config
        relative = jnp.arange(length)[None] - query_positions[:, None]
        bias = jnp.where(relative > 0, MASKED, 0.0)[None, None]
        buckets = _buckets(config, length, bidirectional=False)[relative + length - 1]
        return (bias, buckets) if config.per_layer_bias else (bias + self.relative_bias(buckets), None)


def _buckets(config: EncoderDecoderConfig, length: int, bidirectional: bool) -> Int32[Array, " 2*{length}-1"]:
    return jnp.asarray(
        buckets_by_distance(length, config.relative_buckets, config.relative_max_distance, bidirectional)
    )
