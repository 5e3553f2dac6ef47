"""T5's relative position bias: an attention logit's offset by the bucket of (key position - query position)."""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from rt2_jax.models.layers import axes


def buckets_by_distance(
    max_length: int, num_buckets: int, max_distance: int, bidirectional: bool
) -> Int32[np.ndarray, " 2*{max_length}-1"]:
    """The bucket of key - query, at index key - query + max_length - 1 (arXiv 1910.10683, 2.1).

    Half of the buckets hold one distance each, the rest grow logarithmically up to ``max_distance``, beyond which all
    share the last. ``bidirectional`` gives keys after the query their own half; otherwise they share bucket 0 (they are
    masked anyway).
    """
    relative = np.arange(-(max_length - 1), max_length)
    offset = np.zeros_like(relative)
    if bidirectional:
        num_buckets //= 2
        offset = np.where(relative > 0, num_buckets, 0)
        distance = np.abs(relative)
    else:
        distance = np.maximum(-relative, 0)
    exact = num_buckets // 2
    # float32 as in T5X and transformers: the logarithm's rounding decides a few boundaries.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.float32(math.log(max_distance / exact))
    large = exact + (ratio.astype(np.float32) * np.float32(num_buckets - exact)).astype(np.int32)
    return (offset + np.where(distance < exact, distance, np.minimum(large, num_buckets - 1))).astype(np.int32)


class RelativeBias(nn.Module):
    """What every head adds to the attention logits of queries and keys, by their bucket."""

    num_buckets: int
    heads: int

    @nn.compact
    def __call__(self, buckets: Int32[Array, "queries keys"]) -> Float32[Array, "1 {self.heads} queries keys"]:
        init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=-1, out_axis=-2)
        shape = (self.num_buckets, self.heads)
        table = self.param("table", axes(init, "relative_buckets", "heads"), shape, jnp.float32)
        # A product with one-hot rows: its transpose is a product too, where a gather's would be a slow scatter.
        return jnp.einsum("qkn,nh->hqk", nn.one_hot(buckets, self.num_buckets), table)[None]
