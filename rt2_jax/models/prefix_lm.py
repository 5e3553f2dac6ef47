"""The decoder-only stack over a prefix: Gemma 1 and 2, PaLM. Its cache is an explicit pytree."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from rt2_jax.models.attention import (
    Attention,
    Layers,
    keys_layout,
    keys_written,
    mask_bias,
    values_layout,
    values_written,
)
from rt2_jax.models.config import PrefixLmConfig
from rt2_jax.models.layers import HEADS_IN, HEADS_OUT, Dropout, GatedMlp, LayerNorm, RmsNorm, hidden, scaled
from rt2_jax.models.stack import per_layer, stacked


@flax.struct.dataclass
class PrefixCache:
    """What the stack remembers of a batch, all layers in one array or each in one of its own (models/stack.py).

    key, value: compute dtype, the prefix's slots, then the target's.
    mask: False on the prefix's padding; its tokens are positions 0, 1, ... of a row, padding left out.
    """

    key: Layers[Float[Array, "*layers batch kv_heads head_dim slots"]]
    value: Layers[Float[Array, "*layers batch kv_heads slots head_dim"]]
    mask: Bool[Array, "batch prefix"]


def make_norm(config: PrefixLmConfig, dtype: jnp.dtype) -> nn.Module:
    """Gemma's RMSNorm or PaLM's LayerNorm."""
    return RmsNorm(dtype, zero_centered=True) if config.norm == "rms" else LayerNorm(dtype, use_bias=False)


class Block(nn.Module):
    """x + attention(norm(x)), then + mlp(norm(x)); or both at once from one norm (``parallel_block``, PaLM)."""

    config: PrefixLmConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        config = self.config
        self.norm_attention = make_norm(config, self.dtype)
        self.attention = Attention(
            config.heads, config.head_dim, config.width, self.dtype,
            kernel_init=HEADS_IN, query_init=HEADS_IN, out_init=scaled(HEADS_OUT, config.branch_init),
            kv_heads=config.kv_heads, query_scale=config.query_scale or config.head_dim**-0.5,
            rope_theta=config.rope_theta, logits_softcap=config.attention_softcap, dropout_rate=config.dropout_rate,
        )  # fmt: skip
        self.mlp = GatedMlp(
            config.mlp, config.width, config.activation, self.dtype, config.dropout_rate, config.branch_init
        )
        self.dropout = Dropout(config.dropout_rate)
        if not config.parallel_block:
            self.norm_mlp = make_norm(config, self.dtype)
        if config.post_norms:
            self.post_norm_attention = make_norm(config, self.dtype)
            self.post_norm_mlp = make_norm(config, self.dtype)

    def __call__(
        self,
        x: Float[Array, "batch length width"],
        is_global: Bool[Array, ""],
        positions: Int[Array, "batch length"],
        bias: Float32[Array, "batch 1 length length"],
        local_bias: Float32[Array, "batch 1 length length"] | None,
    ) -> tuple[Float[Array, "batch length width"], None]:
        """One layer on a whole sequence."""
        return self.prefill(x, is_global, positions, bias, local_bias)[0], None

    def prefill(
        self,
        x: Float[Array, "batch length width"],
        is_global: Bool[Array, ""],
        positions: Int[Array, "batch length"],
        bias: Float32[Array, "batch 1 length length"],
        local_bias: Float32[Array, "batch 1 length length"] | None,
    ) -> tuple[
        Float[Array, "batch length width"],
        tuple[Float[Array, "batch kv_heads head_dim length"], Float[Array, "batch kv_heads length head_dim"]],
    ]:
        """As ``__call__``, and the layer's K and V for the cache."""
        y = self.norm_attention(x)
        key, value = self.attention.keys_values(y, positions)
        return self._layer(x, y, key, value, _choose(is_global, bias, local_bias), positions), (key, value)

    def step(
        self,
        x: Float[Array, "batch 1 width"],
        key: Float[Array, "batch kv_heads head_dim slots"],
        value: Float[Array, "batch kv_heads slots head_dim"],
        is_global: Bool[Array, ""],
        slot: Int[Array, ""] | int,
        positions: Int[Array, "batch 1"],
        bias: Float32[Array, "batch 1 1 slots"],
        local_bias: Float32[Array, "batch 1 1 slots"] | None,
    ) -> tuple[
        Float[Array, "batch 1 width"],
        tuple[
            tuple[Float[Array, "batch kv_heads head_dim 1"], Float[Array, "batch kv_heads 1 head_dim"]],
            tuple[Float[Array, "batch kv_heads head_dim slots"], Float[Array, "batch kv_heads slots head_dim"]],
        ],
    ]:
        """One layer on one token a row, in ``slot`` of the cache; gives its K and V too, and the cache with them."""
        y = self.norm_attention(x)
        new_key, new_value = self.attention.keys_values(y, positions)
        key, value = keys_written(key, new_key, slot), values_written(value, new_value, slot)
        x = self._layer(x, y, key, value, _choose(is_global, bias, local_bias), positions)
        return x, ((new_key, new_value), (key, value))

    def _layer(
        self,
        x: Float[Array, "batch queries width"],
        y: Float[Array, "batch queries width"],
        key: Float[Array, "batch kv_heads head_dim keys"],
        value: Float[Array, "batch kv_heads keys head_dim"],
        bias: Float32[Array, "batch 1 queries keys"],
        positions: Int[Array, "batch queries"],
    ) -> Float[Array, "batch queries width"]:
        attended = self.attention.attend(y, key, value, bias, positions)
        if self.config.post_norms:
            attended = self.post_norm_attention(attended)
        if self.config.parallel_block:
            branch = self.mlp(y)
            return x + self.dropout(attended + (self.post_norm_mlp(branch) if self.config.post_norms else branch))
        x = x + self.dropout(attended)
        branch = self.mlp(self.norm_mlp(x))
        return x + self.dropout(self.post_norm_mlp(branch) if self.config.post_norms else branch)


class PrefixLm(nn.Module):
    """The stack: on prefix and target at once, on a prefix, or on one token at a time."""

    config: PrefixLmConfig
    dtype: jnp.dtype
    remat: str
    unroll: bool
    apart: bool

    def setup(self) -> None:
        config = self.config
        each, same = 0, nn.broadcast
        methods = {
            "__call__": (each,) + (same,) * 3,
            "prefill": (each,) + (same,) * 3,
            "step": (each,) * 3 + (same,) * 4,
        }
        blocks = stacked(Block, config.layers, methods, remat=self.remat, unroll=self.unroll, apart=self.apart)
        self.blocks = blocks(config, self.dtype)
        self.norm = make_norm(config, self.dtype)
        self.dropout = Dropout(config.dropout_rate)

    def __call__(
        self,
        prefix: Float[Array, "batch prefix width"],
        mask: Bool[Array, "batch prefix"],
        target: Float[Array, "batch inputs width"],
    ) -> Float[Array, "batch prefix+inputs width"]:
        """The prefix with its mask, then the target's inputs."""
        steps = target.shape[1]
        positions = all_positions(mask, steps)
        is_prefix = jnp.arange(mask.shape[1] + steps) < mask.shape[1]
        valid = jnp.pad(mask, ((0, 0), (0, steps)), constant_values=True)
        biases = self._biases(positions, is_prefix, positions, is_prefix, valid)
        x = self.dropout(hidden(jnp.concatenate([prefix, target], axis=1)))
        x, _ = self.blocks(x, self._is_global(), positions, *biases)
        return hidden(self.dropout(self.norm(x)))

    def prefill(
        self, prefix: Float[Array, "batch prefix width"], mask: Bool[Array, "batch prefix"], steps: int
    ) -> tuple[Float[Array, "batch prefix width"], PrefixCache]:
        """The prefix alone, and a cache with room for ``steps`` tokens more."""
        positions = all_positions(mask, 0)
        is_prefix = jnp.ones(mask.shape[1], bool)
        biases = self._biases(positions, is_prefix, positions, is_prefix, mask)
        x, (key, value) = self.blocks.prefill(hidden(prefix), self._is_global(), positions, *biases)
        no = (0, 0)
        key = per_layer(lambda one: jnp.pad(one, (*(no,) * (one.ndim - 1), (0, steps))), key)
        value = per_layer(lambda one: jnp.pad(one, (*(no,) * (one.ndim - 2), (0, steps), no)), value)
        return self.norm(x), PrefixCache(per_layer(keys_layout, key), per_layer(values_layout, value), mask)

    def step(
        self, x: Float[Array, "batch 1 width"], cache: PrefixCache, index: Int[Array, ""] | int
    ) -> tuple[Float[Array, "batch 1 width"], PrefixCache]:
        """The target's token number ``index``, and the cache with its K and V."""
        length = cache.mask.shape[1]
        steps = jax.tree.leaves(cache.key)[0].shape[-1] - length
        slot = length + index
        keys = all_positions(cache.mask, steps)
        positions = jax.lax.dynamic_slice_in_dim(keys, slot, 1, axis=1)
        valid = jnp.pad(cache.mask, ((0, 0), (0, steps)), constant_values=True)
        is_prefix = jnp.arange(length + steps) < length
        biases = self._biases(positions, jnp.zeros(1, bool), keys, is_prefix, valid)
        stacks = (cache.key, cache.value, self._is_global())
        x, ((new_key, new_value), (key, value)) = self.blocks.step(hidden(x), *stacks, slot, positions, *biases)
        # Into a stack the token alone is written; layers that are apart have been written to.
        if not isinstance(cache.key, tuple):
            key = keys_written(cache.key, new_key, slot)
        if not isinstance(cache.value, tuple):
            value = values_written(cache.value, new_value, slot)
        return self.norm(x), dataclasses.replace(cache, key=key, value=value)

    def _biases(
        self,
        queries: Int[Array, "batch queries"],
        queries_in_prefix: Bool[Array, " queries"],
        keys: Int[Array, "batch keys"],
        keys_in_prefix: Bool[Array, " keys"],
        valid: Bool[Array, "batch keys"],
    ) -> tuple[Float32[Array, "batch 1 queries keys"], Float32[Array, "batch 1 queries keys"] | None]:
        """Biases of global and of local layers; the second None where no layer is local.

        Takes the positions of queries and keys; ``valid`` is False on padding. A bidirectional prefix is seen whole by
        itself in local layers too, as PaliGemma 2 does.
        """
        distance = queries[:, :, None] - keys[:, None, :]
        causal = distance >= 0
        together = queries_in_prefix[:, None] & keys_in_prefix[None, :] & self.config.bidirectional_prefix
        valid = valid[:, None, :]
        bias = mask_bias(valid & (causal | together))[:, None]
        if not self.config.sliding_window:
            return bias, None
        near = causal & (distance < self.config.sliding_window)
        return bias, mask_bias(valid & (near | together))[:, None]

    def _is_global(self) -> Bool[Array, " {self.config.layers}"]:
        """The layers that see everything."""
        config = self.config
        every = config.global_every if config.sliding_window else 1
        return jnp.asarray((np.arange(config.layers) + 1) % every == 0)


def all_positions(mask: Bool[Array, "batch prefix"], steps: int) -> Int32[Array, "batch prefix+{steps}"]:
    """The position of each slot, of a prefix and ``steps`` slots after it.

    Padding takes no position of its own (and is never seen), so that a row is the same whatever its padding.
    """
    prefix = jnp.cumsum(mask.astype(jnp.int32), axis=1) - 1
    length = jnp.sum(mask.astype(jnp.int32), axis=1, keepdims=True)
    return jnp.concatenate([jnp.maximum(prefix, 0), length + jnp.arange(steps, dtype=jnp.int32)], axis=1)


def _choose(
    is_global: Bool[Array, ""],
    bias: Float32[Array, "batch 1 queries keys"],
    local_bias: Float32[Array, "batch 1 queries keys"] | None,
) -> Float32[Array, "batch 1 queries keys"]:
    return bias if local_bias is None else jnp.where(is_global, bias, local_bias)
