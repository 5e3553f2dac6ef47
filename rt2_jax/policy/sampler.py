"""Autoregressive decoding under a grammar, one compiled program (RT-2, section 3.2, "output constraint").

The images and the prompt are read once (`Backbone.prefill`); each row carries its own grammar state and its own
`done`, so rows of different modes and embodiments share a batch.

An answer is decoded in two stages. Among text, the next token is chosen from the whole vocabulary, in a loop that ends
when no row is in text any more. What follows, an action, is settled (`Grammar.settled`): the model is asked for the
logits of the integers alone. Where every row starts there, the first stage is not in the program, and the second is a
loop of a fixed length.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray, UInt8

from rt2_jax.errors import UserError
from rt2_jax.models.backbone import Backbone, Cache, Params
from rt2_jax.policy.choice import Sampling, choose, likeliest
from rt2_jax.tokens.grammar import FORBIDDEN, Grammar
from rt2_jax.tokens.vocabulary import Vocabulary

_Rows = dict[str, Any]
_Carry = tuple[_Rows, Cache]


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
        token_logprob: the same of each token; 0 for an EOS that had to come, and after it.
        entropy: of the distribution that each token was chosen from, in nats; 0 as `token_logprob`.
    """

    tokens: Int32[Array | np.ndarray, "batch max_len"]
    lengths: Int32[Array | np.ndarray, " batch"]
    logprob: Float32[Array | np.ndarray, " batch"]
    token_logprob: Float32[Array | np.ndarray, "batch max_len"]
    entropy: Float32[Array | np.ndarray, "batch max_len"]


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
    best_of: int = 1,
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
        temperature, top_k, top_p, best_of: see `Sampling`.
        modes: the modes that rows will start in, None for all of the grammar; `max_len` must fit them all. Where all
            of them are settled from the start, a row of another mode is treated as padding.

    Raises:
        UserError: a value outside its limits; or, when called, a model whose vocabulary size is not the grammar's.
    """
    sampling = Sampling(temperature, top_k, top_p, best_of)
    modes = tuple(grammar.start) if modes is None else modes
    for mode in modes:
        if max_len < grammar.min_len(mode):
            raise UserError(f"max_len is {max_len}, mode {mode!r} needs at least {grammar.min_len(mode)}; raise it")
    starts = np.array([grammar.start_state(mode) for mode in modes])
    within = grammar.reached(starts)
    settled = grammar.settled & within
    settled[grammar.end] = True
    everything, rest = _Text(grammar), _Settled(grammar, np.flatnonzero(settled))
    # An EOS that must come costs no call of the model.
    fixed_len = int(grammar.steps_to_end[starts].max()) - 1 if settled[starts].all() else None

    def write(part: "_Text | _Settled", logits: Float[Array, "batch tokens"], rng: PRNGKeyArray, row: _Rows) -> _Rows:
        """The rows after their next token, `row["step"]`, of these logits."""
        index, state, done, samples = row["step"], row["state"], row["done"], row["samples"]
        allowed = part.allowed(state, max_len - index)
        place, logprob, entropy = choose(logits, part.tokens, allowed, jax.random.fold_in(rng, index), sampling)
        token = place if part.ids is None else jnp.asarray(part.ids)[place]
        state = jnp.where(done, state, part.after(state, token))
        # An EOS that must come next is written at once: an action costs `width` model calls, not one more.
        closing = ~done & jnp.asarray(grammar.ends_next)[state] & (index + 1 < max_len)
        tokens = samples.tokens.at[:, index].set(jnp.where(done, samples.tokens[:, index], token))
        tokens = tokens.at[:, index + 1].set(jnp.where(closing, Vocabulary.eos_id, Vocabulary.pad_id), mode="drop")
        state = jnp.where(closing, grammar.end, state)
        logprob, entropy = jnp.where(done, 0.0, logprob), jnp.where(done, 0.0, entropy)
        return {
            "step": index + 1,
            "state": state,
            "done": state == grammar.end,
            "token": token,
            "samples": Samples(
                tokens=tokens,
                lengths=samples.lengths + jnp.where(done, 0, 1 + closing.astype(jnp.int32)),
                logprob=samples.logprob + logprob,
                token_logprob=samples.token_logprob.at[:, index].set(logprob),
                entropy=samples.entropy.at[:, index].set(entropy),
            ),
        }

    def sample(
        params: Params,
        images: UInt8[Array, "batch images height width 3"],
        prompt: Int32[Array, "batch prompt"],
        start_state: Int32[Array, " batch"],
        rng: PRNGKeyArray,
    ) -> Samples:
        if backbone.config.vocab_size != len(grammar.token_class):
            raise UserError(
                f"the model has {backbone.config.vocab_size} tokens, the vocabulary {len(grammar.token_class)}; "
                "load the vocabulary it was trained with"
            )
        part = everything if fixed_len is None else rest
        if fixed_len is not None:
            start_state = jnp.where(jnp.isin(start_state, starts), start_state, grammar.end)
        logits, cache = backbone.prefill(params, images, prompt, max_len, ids=part.ids)
        empty = _empty_rows(start_state, grammar.end, max_len)

        def answers(rng: PRNGKeyArray) -> Samples:
            def step_of(part: "_Text | _Settled", carry: _Carry) -> _Carry:
                row, cache = carry
                logits, cache = backbone.decode_step(params, cache, row["token"], row["step"] - 1, ids=part.ids)
                return write(part, logits, rng, row), cache

            carry = (write(part, logits, rng, empty), cache)
            if fixed_len is not None:
                return jax.lax.fori_loop(1, fixed_len, lambda _, carry: step_of(rest, carry), carry)[0]["samples"]

            def in_text(carry: _Carry) -> Bool[Array, ""]:
                return (carry[0]["step"] < max_len) & ~jnp.asarray(settled)[carry[0]["state"]].all()

            def unfinished(carry: _Carry) -> Bool[Array, ""]:
                return (carry[0]["step"] < max_len) & ~carry[0]["done"].all()

            carry = jax.lax.while_loop(in_text, lambda carry: step_of(everything, carry), carry)
            if len(rest.ids):
                carry = jax.lax.while_loop(unfinished, lambda carry: step_of(rest, carry), carry)
            return carry[0]["samples"]

        if best_of == 1:
            return answers(rng)
        # One reading of images and prompt serves all: what the loops do not change is not copied.
        drawn = jax.vmap(answers)(jax.random.split(rng, best_of))
        best = likeliest(jnp.nan_to_num(drawn.logprob, nan=-jnp.inf).T)
        return jax.tree.map(lambda leaf: leaf[best, jnp.arange(len(best))], drawn)

    return jax.jit(sample)


class _Text:
    """Choosing from the whole vocabulary."""

    ids = None

    def __init__(self, grammar: Grammar):
        # numpy until traced: constants of the program, not arrays on some device of this process.
        self.tokens = np.arange(len(grammar.token_class), dtype=np.int32)
        self._token_class, self._next_state = grammar.token_class, grammar.next_state
        # The last entry answers for FORBIDDEN, -1.
        self._steps_to_end = np.append(grammar.steps_to_end, np.iinfo(np.int32).max)

    def allowed(self, state: Int32[Array, " batch"], remaining: Int32[Array, ""]) -> Bool[Array, "batch vocabulary"]:
        """Tokens of the grammar after which the end is still within `remaining` - 1 tokens."""
        after = jnp.asarray(self._next_state)[state]
        legal = after != FORBIDDEN
        in_time = legal & (jnp.asarray(self._steps_to_end)[after] < remaining)
        # Only a row whose start never fitted has no token in time: it stays within the grammar and gets no EOS.
        fits = in_time.any(axis=1, keepdims=True)
        return jnp.where(fits, in_time, legal)[:, self._token_class]

    def after(self, state: Int32[Array, " batch"], token: Int32[Array, " batch"]) -> Int32[Array, " batch"]:
        """The states after these tokens."""
        return jnp.asarray(self._next_state)[state, jnp.asarray(self._token_class)[token]]


class _Settled:
    """Choosing from the tokens that are allowed in some of the grammar's settled states; `_Text` has the methods."""

    def __init__(self, grammar: Grammar, states: np.ndarray):
        states = states[~grammar.ends_next[states]]
        allowed = grammar.next_state[:, grammar.token_class] != FORBIDDEN
        self.ids = self.tokens = np.flatnonzero(allowed[states].any(0)).astype(np.int32)
        self._allowed = allowed[:, self.ids]
        self._after = grammar.next_state.max(1)  # of a settled state there is one; see `Grammar.settled`
        self._after[grammar.end] = grammar.end

    def allowed(self, state: Int32[Array, " batch"], remaining: Int32[Array, ""]) -> Bool[Array, "batch tokens"]:
        del remaining  # the end comes when it comes
        return jnp.asarray(self._allowed)[state]

    def after(self, state: Int32[Array, " batch"], token: Int32[Array, " batch"]) -> Int32[Array, " batch"]:
        del token
        return jnp.asarray(self._after)[state]


def _empty_rows(start_state: Int32[Array, " batch"], end: int, max_len: int) -> _Rows:
    batch = start_state.shape[0]
    return {
        "step": jnp.int32(0),
        "state": start_state.astype(jnp.int32),
        "done": start_state == end,
        "token": jnp.full(batch, Vocabulary.pad_id, jnp.int32),
        "samples": Samples(
            tokens=jnp.full((batch, max_len), Vocabulary.pad_id, jnp.int32),
            lengths=jnp.zeros(batch, jnp.int32),
            logprob=jnp.zeros(batch, jnp.float32),
            token_logprob=jnp.zeros((batch, max_len), jnp.float32),
            entropy=jnp.zeros((batch, max_len), jnp.float32),
        ),
    }
