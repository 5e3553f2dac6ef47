"""The action string, ``"1 128 91 241 5 101 127 217"`` (RT-2, section 3.2): bins <-> text <-> token ids.

How an integer is spelt is the vocabulary's matter: where it has no whole ones, the string is ``"<1> <128> <91> ..."``.
"""

from collections.abc import Sequence

import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.tokens.vocabulary import NUM_INTEGERS, Vocabulary

# Stands before the action string in a chain-of-thought target (RT-2, section 4.4).
ACTION_MARKER = "Action:"


def action_text(vocabulary: Vocabulary, bins: Sequence[int] | np.ndarray) -> str:
    """One action's bins as text, single spaces between them.

    Args:
        vocabulary: which spells the integers.
        bins: int[width], each in 0..255.

    Raises:
        UserError: not one row of integers in 0..255.
    """
    return vocabulary.word_start + " ".join(vocabulary.integer_words[value] for value in _check(bins))


def parse_action_text(vocabulary: Vocabulary, text: str, width: int) -> np.ndarray:
    """int32[width] of an action string.

    Raises:
        UserError: another number of words than `width`, or a word that is not one of the vocabulary's integers.
    """
    integers = {word: integer for integer, word in enumerate(vocabulary.integer_words)}
    words = text.split()
    if len(words) != width or not all(word in integers for word in words):
        first, *_, last = vocabulary.integer_words
        raise UserError(f"action text {text!r} is not {width} integers of {first}..{last} with spaces between")
    return np.array([integers[word] for word in words], np.int32)


def action_tokens(vocabulary: Vocabulary, bins: Sequence[int] | np.ndarray) -> np.ndarray:
    """int32[width]: one token a bin, the same ids as ``vocabulary.encode(action_text(vocabulary, bins))``.

    Raises:
        UserError: not one row of integers in 0..255.
    """
    return vocabulary.integer_ids[_check(bins)]


def bins_of_tokens(vocabulary: Vocabulary, tokens: np.ndarray) -> np.ndarray:
    """int32[...]: the integer of each token of int[...].

    Raises:
        UserError: a token that is no integer of 0..255. Tokens decoded under the grammar never are.
    """
    tokens = np.asarray(tokens)
    order = np.argsort(vocabulary.integer_ids)
    slot = np.searchsorted(vocabulary.integer_ids, tokens, sorter=order)
    bins = order[np.minimum(slot, NUM_INTEGERS - 1)].astype(np.int32)
    wrong = vocabulary.integer_ids[bins] != tokens
    if wrong.any():
        raise UserError(f"token {tokens[wrong][0]} is no integer of 0..{NUM_INTEGERS - 1}; decode under the grammar")
    return bins


def _check(bins: Sequence[int] | np.ndarray) -> np.ndarray:
    array = np.asarray(bins)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"action bins: {array.dtype}{list(array.shape)}, needs one row of integers; convert it")
    if array.size and not (array.min() >= 0 and array.max() < NUM_INTEGERS):
        value = array[(array < 0) | (array >= NUM_INTEGERS)][0]
        raise UserError(f"action bins: {value}, the limit is 0..{NUM_INTEGERS - 1}; encode the action with ActionBins")
    return array.astype(np.int32)
