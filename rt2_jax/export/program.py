"""The one function that artifacts hold: uint8 frames and a prompt's tokens in, physical actions out.

The constrained sampler is inside, and so is what turns its tokens into bins and bins into the numbers that
`ActionBins.decode` gives, by a table. A row does not depend on the others, so that rows that fill a batch up may hold
anything.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, UInt8

from rt2_jax.actions.bins import NUM_INTEGERS, ActionBins
from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.bundle.spec import BundleSpec, grammar_of
from rt2_jax.bundle.store import LoadedBundle
from rt2_jax.errors import UserError
from rt2_jax.policy.load import ANSWER_LEN, PROMPT_LEN
from rt2_jax.policy.policy import PROMPTS
from rt2_jax.policy.sampler import make_sampler
from rt2_jax.tokens.grammar import mode_of

MODES = tuple(PROMPTS)

FlatParams = Mapping[str, Array]
Outputs = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ActionProgram:
    """What acts for one embodiment in one mode.

    Attributes:
        mode: "action" or "plan".
        embodiment: whose actions come out.
        max_len: tokens of an answer, EOS included.
        act: a pure function of (params, images uint8[B, N, H, W, 3], prompt int32[B, T]), greedy; see `make_programs`.
    """

    mode: str
    embodiment: Embodiment
    max_len: int
    act: Callable[[FlatParams, Array, Array], Outputs]


def make_programs(bundle: LoadedBundle, modes: tuple[str, ...] = MODES) -> list[ActionProgram]:
    """The programs of every embodiment of a bundle.

    Their params are the bundle's by path, "encoder/blocks/mlp/up/kernel" (`flat_params`). They return

    * actions float32[B, k, width] in physical units, what to do now and in the k - 1 steps that follow;
    * bins int32[B, k, width], the integers of these;
    * tokens int32[B, max_len], pad after EOS; lengths int32[B], EOS included;
    * logprob float32[B], NaN where the model's logits held a NaN: such a row's action means nothing.

    Raises:
        UserError: a model that was shown no robot, or an unknown mode.
    """
    if not bundle.embodiments:
        raise UserError(f"{bundle.path} was shown no robot, so it has no actions to export; train it on robot data")
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise UserError(f"mode {unknown[0] if unknown else ''!r} is unknown; choose of {', '.join(MODES)}")
    return [_program(bundle, mode, robot) for robot in bundle.embodiments.values() for mode in modes]


def _program(bundle: LoadedBundle, mode: str, robot: Embodiment) -> ActionProgram:
    grammar = grammar_of(bundle.vocabulary, bundle.embodiments)
    in_grammar = mode_of(mode, bundle.embodiments, robot.name)
    max_len = bundle.spec.target_len or ANSWER_LEN if mode == "plan" else grammar.min_len(in_grammar)
    sampler = make_sampler(bundle.backbone, grammar, max_len, modes=(in_grammar,))
    start, integer_ids, values = (
        grammar.start_state(in_grammar),
        bundle.vocabulary.integer_ids,
        action_values(robot.bins),
    )

    def act(
        params: FlatParams,
        images: UInt8[Array, "batch images height width 3"],
        prompt: Int32[Array, "batch prompt"],
    ) -> Outputs:
        batch = prompt.shape[0]
        tree = flax.traverse_util.unflatten_dict(dict(params), sep="/")
        samples = sampler(tree, images, prompt, jnp.full((batch,), start, jnp.int32), jax.random.key(0))
        # The action stands just before EOS in both modes.
        ends = samples.lengths[:, None] - 1 - robot.num_integers + jnp.arange(robot.num_integers)
        spoken = jnp.take_along_axis(samples.tokens, ends, axis=1)
        bins = jnp.argmax(spoken[..., None] == jnp.asarray(integer_ids), axis=-1).astype(jnp.int32)
        bins = bins.reshape(batch, robot.chunk, robot.bins.width)
        return {
            "actions": jnp.asarray(values)[jnp.arange(robot.bins.width), bins],
            "bins": bins,
            "tokens": samples.tokens,
            "lengths": samples.lengths,
            "logprob": samples.logprob,
        }

    return ActionProgram(mode, robot, max_len, act)


def action_values(bins: ActionBins) -> Float32[np.ndarray, "width 256"]:
    """The physical number of every integer in every dimension; NaN where the dimension does not take it."""
    values = np.full((bins.width, NUM_INTEGERS), np.nan, np.float32)
    allowed = bins.allowed
    some = np.argmax(allowed, axis=1)
    for integer in range(allowed.shape[1]):
        takes = allowed[:, integer]
        values[takes, integer] = bins.decode(np.where(takes, integer, some))[takes]
    return values


def flat_params(params: Any) -> dict[str, Array]:
    """Parameters by path, "encoder/blocks/mlp/up/kernel", sorted."""
    return dict(sorted(flax.traverse_util.flatten_dict(params, sep="/").items()))


def prompt_len(spec: BundleSpec) -> int:
    """Tokens that a prompt is padded to."""
    return spec.prompt_len or PROMPT_LEN
