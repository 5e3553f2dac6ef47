"""One token from a row of logits: the likeliest, or a draw; always one that is allowed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray

from rt2_jax.errors import UserError

# A forbidden token's logit: finite, so that no sum or difference of logits makes NaN, and below every allowed one's.
FORBIDDEN_LOGIT = -1e30
_LOGIT_LIMIT = 1e9
_MOST_SAMPLES = 1024


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; greedy by default.

    Attributes:
        temperature: 0 takes the likeliest token; else logits are divided by it.
        top_k: 0, or keep the k likeliest tokens.
        top_p: keep the likeliest tokens whose probabilities first sum to it.
        best_of: answers drawn for each row, of which the likeliest is given; more than one needs a temperature.

    Raises:
        UserError: a value outside its limits.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    best_of: int = 1

    def __post_init__(self) -> None:
        if self.temperature != 0.0 and not 1e-3 <= self.temperature <= 100.0:
            raise UserError(f"temperature is {self.temperature}; choose 0 (greedy) or 0.001 to 100")
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}; choose 0 (all tokens) or more")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p is {self.top_p}; choose a value in (0, 1]")
        if not 1 <= self.best_of <= _MOST_SAMPLES:
            raise UserError(f"best_of is {self.best_of}; choose 1 to {_MOST_SAMPLES}")
        if self.best_of > 1 and self.temperature == 0.0:
            raise UserError(f"best_of is {self.best_of} at temperature 0, where all answers are one; set a temperature")


def choose(
    logits: Float[Array, "batch tokens"],
    ids: Int32[np.ndarray, " tokens"],
    allowed: Bool[Array, "batch tokens"],
    key: PRNGKeyArray,
    sampling: Sampling,
) -> tuple[Int32[Array, " batch"], Float32[Array, " batch"], Float32[Array, " batch"]]:
    """(place, log-probability, entropy) of a token for each row, an allowed one whatever the logits.

    Log-probability and entropy (in nats) are those of the softmax over the allowed tokens, at temperature 1 and before
    top-k and top-p; NaN where the row's logits hold a NaN. A row's draw depends on its place in the batch, not on the
    batch's size, and on the logits of the allowed tokens, not on which others are among `ids`.
    """
    finite = jnp.nan_to_num(logits.astype(jnp.float32), nan=-_LOGIT_LIMIT)
    masked = jnp.where(allowed, jnp.clip(finite, -_LOGIT_LIMIT, _LOGIT_LIMIT), FORBIDDEN_LOGIT)
    if sampling.temperature == 0.0:
        place = likeliest(masked)
    else:
        kept = truncate(masked / sampling.temperature, sampling.top_k, sampling.top_p)
        place = likeliest(kept + _noise(key, len(kept), ids))
    shifted = masked - jnp.max(masked, axis=-1, keepdims=True)
    odds = jnp.exp(shifted)
    total = jnp.sum(odds, axis=-1)
    logprob = jnp.take_along_axis(shifted, place[:, None], axis=-1)[:, 0] - jnp.log(total)
    entropy = jnp.log(total) - jnp.sum(odds * shifted, axis=-1) / total
    poisoned = jnp.isnan(logits).any(-1)
    return place, jnp.where(poisoned, jnp.nan, logprob), jnp.where(poisoned, jnp.nan, entropy)


def _noise(key: PRNGKeyArray, batch: int, ids: Int32[np.ndarray, " tokens"]) -> Float32[Array, "batch tokens"]:
    """Gumbel noise, which makes the likeliest token a draw; each row's and token's own."""

    def of(row: Int32[Array, ""], token: Int32[Array, ""]) -> Float32[Array, ""]:
        return jax.random.gumbel(jax.random.fold_in(jax.random.fold_in(key, row), token))

    return jax.vmap(jax.vmap(of, (None, 0)), (0, None))(jnp.arange(batch), jnp.asarray(ids))


def likeliest(x: Float32[Array, "batch tokens"]) -> Int32[Array, " batch"]:
    """The first place of each row's largest number.

    As two plain reductions: XLA computes an argmax, which reduces pairs, several times slower on a CPU.
    """
    places = jnp.arange(x.shape[-1], dtype=jnp.int32)
    return jnp.min(jnp.where(x == jnp.max(x, axis=-1, keepdims=True), places, x.shape[-1] - 1), axis=-1)


def truncate(logits: Float32[Array, "batch tokens"], top_k: int, top_p: float) -> Float32[Array, "batch tokens"]:
    """The logits with what top-k, then top-p, leave out at the forbidden one; the likeliest token always stays.

    Of equal logits the lowest places stay, so that exactly k tokens do.
    """
    if not top_k and top_p == 1.0:
        return logits
    order = jnp.argsort(logits, axis=-1, descending=True)
    ordered = jnp.take_along_axis(logits, order, axis=-1)
    if top_k:
        ordered = jnp.where(jnp.arange(logits.shape[-1]) < top_k, ordered, FORBIDDEN_LOGIT)
    if top_p < 1.0:
        probability = jax.nn.softmax(ordered)
        # A token stays while those before it sum to less than top_p.
        before = jnp.cumsum(probability, axis=-1) - probability
        ordered = jnp.where(before < top_p, ordered, FORBIDDEN_LOGIT)
    return jnp.put_along_axis(logits, order, ordered, axis=-1, inplace=False)
