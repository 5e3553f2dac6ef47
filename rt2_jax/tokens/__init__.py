"""Vocabularies, action tokens and output grammars. No TensorFlow."""

from rt2_jax.tokens.action_text import action_text, action_tokens, bins_of_tokens, parse_action_text
from rt2_jax.tokens.grammar import Grammar, build_grammar
from rt2_jax.tokens.vocabulary import DEFAULT_VOCABULARY, Vocabulary

__all__ = [
    "DEFAULT_VOCABULARY",
    "Grammar",
    "Vocabulary",
    "action_text",
    "action_tokens",
    "bins_of_tokens",
    "build_grammar",
    "parse_action_text",
]
