"""From an instruction to a prompt's tokens inside a TensorFlow graph, as `inputs.prompts` and the vocabulary do."""

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text

from rt2_jax.actions.bins import ActionBins
from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.actions.space import BINARY
from rt2_jax.export.artifact import prompt_parts
from rt2_jax.inputs.prompts import MAX_CHARACTERS
from rt2_jax.tokens.vocabulary import Vocabulary

# What str.split() takes for white space.
_SPACE = r"[\x{09}-\x{0d}\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"


class PromptTokens(tf.Module):
    """Instructions (and states) to int32[B, length] prompts of one embodiment, and tokens back to text.

    Args:
        vocabulary: the model's.
        length: tokens that a prompt is padded to; a longer one is refused.
    """

    def __init__(self, vocabulary: Vocabulary, length: int):
        super().__init__()
        self._length = length
        self._vocabulary = vocabulary
        ids: Any = tf.int32  # tensorflow-text knows the type by another name
        self.tokenizer = tensorflow_text.SentencepieceTokenizer(vocabulary.path.read_bytes(), out_type=ids)

    def tokens(self, mode: str, robot: Embodiment, instruction: Any, state: Any = None) -> Any:
        """int32[B, length] of string[B] and, where the embodiment has proprioception, float32[B, S]."""
        before, between, after = prompt_parts(mode, robot, self._vocabulary)
        text = tf.strings.join([before, cleaned(instruction), between])
        if robot.proprioception:
            said = state_text(robot.proprioception, state, self._vocabulary)
            text = tf.strings.join([text, " State: ", said])
        ids: Any = self.tokenizer.tokenize(tf.strings.join([text, after]))
        longest = tf.reduce_max(ids.row_lengths())
        check = tf.debugging.Assert(
            longest <= self._length, ["a prompt has more tokens than the model reads:", longest]
        )
        with tf.control_dependencies([check]):
            return ids.to_tensor(default_value=self._vocabulary.pad_id, shape=(None, self._length))

    def text(self, tokens: Any) -> Any:
        """string[B] of int32[B, L]: up to EOS, without pad and unused ids."""
        vocabulary = self._vocabulary
        before_end = tf.cumsum(tf.cast(tokens == vocabulary.eos_id, tf.int32), axis=1) == 0
        kept = before_end & (tokens != vocabulary.pad_id) & (tokens < vocabulary.num_pieces)
        return self.tokenizer.detokenize(tf.ragged.boolean_mask(tokens, kept))


def cleaned(text: Any) -> Any:
    """string[B] without white space around it and with one space between words; empty ones are refused."""
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="strict")
    length = tf.reduce_max(tf.strings.length(text, unit="UTF8_CHAR"))
    text = tf.strings.regex_replace(tf.strings.regex_replace(text, _SPACE, " "), "^ | $", "")
    checks = [
        tf.debugging.Assert(length <= MAX_CHARACTERS, ["an instruction is too long; characters:", length]),
        tf.debugging.Assert(tf.reduce_all(text != ""), ["an instruction is empty; give at least one word"]),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(text)


def state_text(bins: ActionBins, state: Any, vocabulary: Vocabulary) -> Any:
    """string[B]: the integers of float32[B, S] as a prompt has them, cut as `ActionBins.encode` does."""
    with tf.control_dependencies([tf.debugging.check_numerics(state, "a state is not finite")]):
        dtype = tf.float64 if bins.decoding == "centre" else tf.float32
        low, high = (tf.constant(bound, dtype) for bound in (bins.space.low, bins.space.high))
        unit = (tf.clip_by_value(tf.cast(state, dtype), low, high) - low) / (high - low)
        cells = bins.num_bins if bins.decoding == "centre" else bins.num_bins - 1
        cut = tf.clip_by_value(tf.cast(tf.floor(unit * cells), tf.int32), 0, bins.num_bins - 1)
    middle = (np.asarray(bins.space.low) + np.asarray(bins.space.high)) / 2
    ends = tf.where(tf.cast(state, tf.float64) >= middle, bins.num_bins - 1, 0)
    cut = bins.first + tf.where([kind == BINARY for kind in bins.space.kinds], ends, cut)
    words = tf.gather(tf.constant(vocabulary.integer_words), cut)
    return tf.strings.join([vocabulary.word_start, tf.strings.reduce_join(words, axis=1, separator=" ")])
