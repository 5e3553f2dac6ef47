"""Autoregressive decoding under a grammar, one compiled loop (RT-2, section 3.2, "output constraint").

The images and the prompt are read once (`Backbone.prefill`); each row carries its own grammar state and its own
`done`, so rows of different modes share a batch and the loop ends when the last of them has.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray, UInt8

from rt2_jax.errors import UserError
from rt2_jax.models.backbone import Backbone, Cache, Params
from rt2_jax.tokens.grammar import FORBIDDEN, Grammar
from rt2_jax.tokens.vocabulary import Vocabulary

# A forbidden token's logit: finite, so that no sum or difference of logits makes NaN, and below every allowed one's.
_FORBIDDEN_LOGIT = -1e30
_LOGIT_LIMIT = 1e9


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """What was decoded, on a device or fetched from it.

    Attributes:
        tokens: pad after EOS.
        lengths: tokens of each row, EOS included.
        logprob: log-probability of the row under the model's softmax over the tokens that the grammar allowed
            (temperature 1, before top-k and top-p). NaN where the model's logits held a NaN: the tokens are then valid,
            but mean nothing.
    """

    tokens: Int32[Array | np.ndarray, "batch max_len"]
    lengths: Int32[Array | np.ndarray, " batch"]
    logprob: Float32[Array | np.ndarray, " batch"]


@runtime_checkable
class Sampler(Protocol):
    """Decodes a batch, from arrays of a device or of numpy."""

    def __call__(
        self,
        params: Params,
        images: UInt8[Array | np.ndarray, "batch images height width 3"],
        prompt: Int32[Array | np.ndarray, "batch prompt"],
        start_state: Int32[Array | np.ndarray, " batch"],
        rng: PRNGKeyArray,
        /,
    ) -> Samples:
        """See `make_sampler`."""
        ...


def make_sampler(
    backbone: Backbone,
    grammar: Grammar,
    max_len: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    modes: tuple[str, ...] | None = None,
) -> Sampler:
    """A jitted ``sample(params, images, prompt, start_state, rng) -> Samples``.

    Of its arguments, `start_state` is each row's ``grammar.start[mode]``, or ``grammar.end`` for a padding row, which
    stays empty and keeps nobody waiting; `rng` is unused when greedy. A row's draw depends on its index in the batch
    but not on the batch's size.

    Args:
        backbone: the model.
        grammar: of the model's vocabulary.
        max_len: the most tokens of a row, EOS included; a row that comes near it is led to its end in time.
        temperature: 0 takes the likeliest token; else logits are divided by it.
        top_k: 0, or keep the k likeliest tokens.
        top_p: keep the likeliest tokens whose probabilities first sum to it.
        modes: the modes that rows will start in, None for all of the grammar; `max_len` must fit them all.

    Raises:
        UserError: a value outside its limits; or, when called, a model whose vocabulary size is not the grammar's.
    """
    if temperature != 0.0 and not 1e-3 <= temperature <= 100.0:
        raise UserError(f"temperature is {temperature}; choose 0 (greedy) or 0.001 to 100")
    if top_k < 0:
        raise UserError(f"top_k is {top_k}; choose 0 (all tokens) or more")
    if not 0.0 < top_p <= 1.0:
        raise UserError(f"top_p is {top_p}; choose a value in (0, 1]")
    for mode in grammar.start if modes is None else modes:
        if max_len < grammar.min_len(mode):
            raise UserError(f"max_len is {max_len}, mode {mode!r} needs at least {grammar.min_len(mode)}; raise it")

    # numpy until traced: constants of the program, not arrays on some device of this process.
    token_class, next_state, ends_next = grammar.token_class, grammar.next_state, grammar.ends_next
    steps_to_end = np.append(grammar.steps_to_end, np.iinfo(np.int32).max)  # the last entry answers for FORBIDDEN, -1

    def allowed_tokens(state: Int32[Array, " batch"], remaining: Int32[Array, ""]) -> Bool[Array, "batch vocabulary"]:
        """Tokens of the grammar after which the end is still within `remaining` - 1 tokens."""
        after = jnp.asarray(next_state)[state]
        legal = after != FORBIDDEN
        in_time = legal & (jnp.asarray(steps_to_end)[after] < remaining)
        # Only a row whose start never fitted has no token in time: it stays within the grammar and gets no EOS.
        fits = in_time.any(axis=1, keepdims=True)
        return jnp.where(fits, in_time, legal)[:, token_class]

    def choose(
        logits: Float[Array, "batch vocabulary"], allowed: Bool[Array, "batch vocabulary"], key: PRNGKeyArray
    ) -> tuple[Int32[Array, " batch"], Float32[Array, " batch"]]:
        """(token, its logprob); always an allowed token, whatever the logits."""
        finite = jnp.nan_to_num(logits.astype(jnp.float32), nan=-_LOGIT_LIMIT)
        masked = jnp.where(allowed, jnp.clip(finite, -_LOGIT_LIMIT, _LOGIT_LIMIT), _FORBIDDEN_LOGIT)
        if temperature == 0.0:
            token = jnp.argmax(masked, axis=-1)
        else:
            kept = _truncate(masked / temperature, top_k, top_p)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(kept)))
            drawn = kept + jax.vmap(lambda row_key: jax.random.gumbel(row_key, kept.shape[1:]))(keys)
            token = jnp.argmax(drawn, axis=-1)
        logprob = jnp.take_along_axis(jax.nn.log_softmax(masked), token[:, None], axis=-1)[:, 0]
        return token.astype(jnp.int32), jnp.where(jnp.isnan(logits).any(-1), jnp.nan, logprob)

    def write(logits: Float[Array, "batch vocabulary"], rng: PRNGKeyArray, row: dict[str, Any]) -> dict[str, Any]:
        """The rows after their next token, `row["step"]`, of these logits."""
        if logits.shape[-1] != len(token_class):
            raise UserError(
                f"the model has {logits.shape[-1]} tokens, the vocabulary {len(token_class)}; "
                "load the vocabulary it was trained with"
            )
        index, state, done, samples = row["step"], row["state"], row["done"], row["samples"]
        allowed = allowed_tokens(state, max_len - index)
        token, logprob = choose(logits, allowed, jax.random.fold_in(rng, index))
        state = jnp.where(done, state, jnp.asarray(next_state)[state, jnp.asarray(token_class)[token]])
        # An EOS that must come next is written at once: an action costs `width` model calls, not one more.
        closing = ~done & jnp.asarray(ends_next)[state] & (index + 1 < max_len)
        tokens = samples.tokens.at[:, index].set(jnp.where(done, samples.tokens[:, index], token))
        tokens = tokens.at[:, index + 1].set(jnp.where(closing, Vocabulary.eos_id, Vocabulary.pad_id), mode="drop")
        state = jnp.where(closing, grammar.end, state)
        return {
            "step": index + 1,
            "state": state,
            "done": state == grammar.end,
            "token": token,
            "samples": Samples(
                tokens=tokens,
                lengths=samples.lengths + jnp.where(done, 0, 1 + closing.astype(jnp.int32)),
                logprob=samples.logprob + jnp.where(done, 0.0, logprob),
            ),
        }

    def sample(
        params: Params,
        images: UInt8[Array, "batch images height width 3"],
        prompt: Int32[Array, "batch prompt"],
        start_state: Int32[Array, " batch"],
        rng: PRNGKeyArray,
    ) -> Samples:
        batch = prompt.shape[0]
        empty = {
            "step": jnp.int32(0),
            "state": start_state.astype(jnp.int32),
            "done": start_state == grammar.end,
            "token": jnp.full(batch, Vocabulary.pad_id, jnp.int32),
            "samples": Samples(
                tokens=jnp.full((batch, max_len), Vocabulary.pad_id, jnp.int32),
                lengths=jnp.zeros(batch, jnp.int32),
                logprob=jnp.zeros(batch, jnp.float32),
            ),
        }
        logits, cache = backbone.prefill(params, images, prompt, max_len)

        def unfinished(carry: tuple[dict[str, Any], Cache]) -> Bool[Array, ""]:
            row, _ = carry
            return (row["step"] < max_len) & ~row["done"].all()

        def step(carry: tuple[dict[str, Any], Cache]) -> tuple[dict[str, Any], Cache]:
            row, cache = carry
            logits, cache = backbone.decode_step(params, cache, row["token"], row["step"] - 1)
            return write(logits, rng, row), cache

        return jax.lax.while_loop(unfinished, step, (write(logits, rng, empty), cache))[0]["samples"]

    return jax.jit(sample)


def _truncate(
    logits: Float32[Array, "batch vocabulary"], top_k: int, top_p: float
) -> Float32[Array, "batch vocabulary"]:
    """The logits with what top-k, then top-p, leave out at the forbidden one; the likeliest token always stays.

    Of equal logits the lowest ids stay, so that exactly k tokens do.
    """
    if not top_k and top_p == 1.0:
        return logits
    order = jnp.argsort(logits, axis=-1, descending=True)
    ordered = jnp.take_along_axis(logits, order, axis=-1)
    if top_k:
        ordered = jnp.where(jnp.arange(logits.shape[-1]) < top_k, ordered, _FORBIDDEN_LOGIT)
    if top_p < 1.0:
        probability = jax.nn.softmax(ordered)
        # A token stays while those before it sum to less than top_p.
        before = jnp.cumsum(probability, axis=-1) - probability
        ordered = jnp.where(before < top_p, ordered, _FORBIDDEN_LOGIT)
    return jnp.put_along_axis(logits, order, ordered, axis=-1, inplace=False)
