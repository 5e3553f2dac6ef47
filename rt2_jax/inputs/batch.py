"""The Batch that every data path ends in, and how text becomes its rows."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.tokens.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Batch:
    """One step's examples.

    Attributes:
        images: uint8[B, N, H, W, 3].
        prompt: int32[B, T], pad 0 after the prompt's tokens.
        target: int32[B, L]: the answer's tokens, EOS, then pad 0.
        weights: float32[B, L]: 1 on the answer's tokens and EOS, 0 on pad.
        task: int32[B]: which task each row comes from, for per-task metrics.
    """

    images: np.ndarray
    prompt: np.ndarray
    target: np.ndarray
    weights: np.ndarray
    task: np.ndarray

    def tree(self) -> dict[str, np.ndarray]:
        """The arrays by name, a plain pytree; ``from_tree`` is the inverse."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_tree(cls, tree: Mapping[str, np.ndarray]) -> "Batch":
        """The batch whose arrays ``tree()`` gave."""
        return cls(**tree)


def prompt_tokens(vocabulary: Vocabulary, text: str, length: int) -> np.ndarray:
    """int32[length]: the prompt's tokens, no EOS, then pad.

    Raises:
        UserError: it is longer than `length`: cutting it would cut what the robot is told.
    """
    return _padded(vocabulary.encode(text), length, "prompt", text)


def target_tokens(vocabulary: Vocabulary, text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32[length], float32[length]): the target's tokens, EOS, then pad; and their weights.

    Raises:
        UserError: it is longer than `length`, EOS included.
    """
    ids = [*vocabulary.encode(text), vocabulary.eos_id]
    weights = np.zeros(length, np.float32)
    weights[: len(ids)] = 1.0
    return _padded(ids, length, "target", text), weights


def _padded(ids: Sequence[int], length: int, what: str, text: str) -> np.ndarray:
    if len(ids) > length:
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise UserError(f"{what} {shown!r} has {len(ids)} tokens, the limit is {length}; cut it or raise {what}_len")
    row = np.zeros(length, np.int32)
    row[: len(ids)] = ids
    return row
