"""From a bundle to something that acts or answers."""

import pathlib
from typing import Any

from rt2_jax.bundle.spec import grammar_of
from rt2_jax.bundle.store import LoadedBundle, load_bundle
from rt2_jax.errors import UserError
from rt2_jax.policy.policy import Policy, TextModel
from rt2_jax.tokens.grammar import text_grammar

# Tokens of a prompt and of an answer by a model that was never told how long they are.
PROMPT_LEN = ANSWER_LEN = 64


def load_policy(path: str | pathlib.Path, *, verify: bool = True, **sampling: Any) -> Policy:
    """The policy of a bundle or a run, ready to act; see `rt2_jax.load_policy`."""
    return make_policy(load_bundle(path, verify=verify), **sampling)


def make_policy(bundle: LoadedBundle, **sampling: Any) -> Policy:
    """The bundle's policy: greedy, unless `sampling` gives a temperature, top_k or top_p.

    Raises:
      UserError: a model that was shown no robot.
    """
    if not bundle.embodiments:
        raise UserError(
            f"{bundle.path} holds pretrained weights that know no robot (rt2 sample --prompt asks them in text); "
            f"train from them: config.init_from = {bundle.path}"
        )
    return Policy(
        backbone=bundle.backbone,
        params=bundle.params,
        vocabulary=bundle.vocabulary,
        embodiments=bundle.embodiments,
        grammar=grammar_of(bundle.vocabulary, bundle.embodiments),
        image_size=bundle.spec.model.image_size,
        prompt_len=bundle.spec.prompt_len or PROMPT_LEN,
        plan_len=bundle.spec.target_len or ANSWER_LEN,
        **sampling,
    )


def make_text_model(bundle: LoadedBundle, prompt_len: int, **sampling: Any) -> TextModel:
    """Any bundle as a model to be asked in text, with room for prompts of `prompt_len` tokens."""
    return TextModel(
        bundle.backbone,
        bundle.params,
        bundle.vocabulary,
        text_grammar(bundle.vocabulary),
        image_size=bundle.backbone.config.image_size,
        prompt_len=prompt_len,
        **sampling,
    )
