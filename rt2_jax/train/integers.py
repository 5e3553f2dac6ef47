"""Integers that start as neighbours: 41 lies between 40 and 42, which a model from random weights cannot know.

A language model that has read the web has an ordered, partly periodic picture of numbers (arXiv 2502.00873). RT-2
reuses the integer tokens as action bins and so starts with it; a model trained from nothing gets one drawn.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, PRNGKeyArray

from rt2_jax.models.backbone import Params

# Waves over the range of values: from half a period to one every eighth value of 256, evenly in the logarithm.
LOWEST_FREQUENCY = 0.5
HIGHEST_FREQUENCY = 32.0


def order_integers(params: Params, integer_ids: Int[Array | np.ndarray, " count"], rng: PRNGKeyArray) -> Params:
    """Parameters whose integer tokens' embeddings, and rows of the logits head if it has its own, are smooth in value.

    Args:
        params: a fresh model's; the table "token_embedding/embedding" [V, width], and "logits/kernel" [width, V].
        integer_ids: the tokens of 0 to count - 1.
        rng: draws the waves' frequencies and phases.

    Returns:
        A new tree; each replaced row keeps the scale that its table's rows were drawn with.
    """
    table = params["token_embedding"]["embedding"]
    embed_rng, logits_rng = jax.random.split(rng)
    rows = _waves(embed_rng, len(integer_ids), table.shape[1]) * jnp.std(table)
    params = params | {"token_embedding": {"embedding": table.at[integer_ids].set(rows)}}
    if "logits" in params:
        kernel = params["logits"]["kernel"]
        columns = _waves(logits_rng, len(integer_ids), kernel.shape[0]).T * jnp.std(kernel)
        params = params | {"logits": params["logits"] | {"kernel": kernel.at[:, integer_ids].set(columns)}}
    return params


def _waves(rng: PRNGKeyArray, count: int, width: int) -> Float32[Array, "{count} {width}"]:
    """Of unit variance: each column a cosine of the row's number."""
    frequency_rng, phase_rng = jax.random.split(rng)
    low, high = np.log(LOWEST_FREQUENCY), np.log(HIGHEST_FREQUENCY)
    frequency = jnp.exp(jax.random.uniform(frequency_rng, (width,), minval=low, maxval=high))
    phase = jax.random.uniform(phase_rng, (width,), maxval=2 * np.pi)
    value = jnp.arange(count, dtype=jnp.float32)[:, None] / count
    return np.sqrt(2.0) * jnp.cos(2 * np.pi * frequency * value + phase)
