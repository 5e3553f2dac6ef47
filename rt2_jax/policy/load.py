"""From a bundle to something that acts or answers."""

import pathlib
from typing import Any

import jax
from jax.sharding import Mesh

from rt2_jax.bundle.spec import grammar_of, read_spec
from rt2_jax.bundle.store import LoadedBundle, load_bundle
from rt2_jax.errors import UserError
from rt2_jax.models.backbone import for_decoding, make_backbone
from rt2_jax.parallel.rules import shardings
from rt2_jax.policy.policy import Policy, TextModel
from rt2_jax.tokens.grammar import text_grammar

# Tokens of a prompt and of an answer by a model that was never told how long they are.
PROMPT_LEN = ANSWER_LEN = 64


def load_policy(path: str | pathlib.Path, *, mesh: Mesh | None = None, verify: bool = True, **sampling: Any) -> Policy:
    """The policy of a bundle or a run, ready to act; see `rt2_jax.load_policy`."""
    if mesh is None:
        return make_policy(load_bundle(path, verify=verify), **sampling)
    backbone = make_backbone(read_spec(pathlib.Path(path)).model)
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    places = shardings(backbone.logical_axes(), mesh, shapes)
    return make_policy(load_bundle(path, places, verify), mesh, **sampling)


def make_policy(bundle: LoadedBundle, mesh: Mesh | None = None, **sampling: Any) -> Policy:
    """The bundle's policy: greedy, unless `sampling` gives a temperature, top_k, top_p or best_of.

    Args:
      bundle: as `load_bundle` gives it.
      mesh: the devices that its parameters are laid out over; None where one device has them all.
      sampling: see `Sampling`.

    Raises:
      UserError: a model that was shown no robot.
    """
    if not bundle.embodiments:
        raise UserError(
            f"{bundle.path} holds pretrained weights that know no robot (rt2 sample --prompt asks them in text); "
            f"train from them: config.init_from = {bundle.path}"
        )
    backbone, params = for_decoding(bundle.backbone, bundle.params)
    return Policy(
        backbone=backbone,
        params=params,
        vocabulary=bundle.vocabulary,
        embodiments=bundle.embodiments,
        grammar=grammar_of(bundle.vocabulary, bundle.embodiments),
        image_size=bundle.spec.model.image_size,
        prompt_len=bundle.spec.prompt_len or PROMPT_LEN,
        plan_len=bundle.spec.target_len or ANSWER_LEN,
        mesh=mesh,
        **sampling,
    )


def make_text_model(bundle: LoadedBundle, prompt_len: int, **sampling: Any) -> TextModel:
    """Any bundle as a model to be asked in text, with room for prompts of `prompt_len` tokens."""
    return TextModel(
        *for_decoding(bundle.backbone, bundle.params),
        bundle.vocabulary,
        text_grammar(bundle.vocabulary),
        image_size=bundle.backbone.config.image_size,
        prompt_len=prompt_len,
        **sampling,
    )
