"""Held-out examples of prepared data, and batches of them."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rt2_jax.data.reader import PreparedSplit
from rt2_jax.data.records import PreparedIndex, again
from rt2_jax.errors import UserError
from rt2_jax.tokens.vocabulary import Vocabulary

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Example:
    """A held-out example as text: `images` is uint8[N, H, W, 3]."""

    images: np.ndarray
    prompt: str
    target: str


def read_examples(data_dir: Path, index: PreparedIndex, vocabulary: Vocabulary, count: int) -> list[Example]:
    """At most `count` examples, evenly spread over the prepared split, so that they come from many episodes.

    Raises:
      UserError: the split is not prepared or damaged, or was prepared with another vocabulary.
    """
    if index.vocabulary != vocabulary.sha256:
        raise UserError(
            f"{index.task}/{index.split} was prepared with vocabulary {index.vocabulary[:12]}, the checkpoint has "
            f"{vocabulary.sha256[:12]}; with --vocabulary of the checkpoint, {again(data_dir, index.task)}"
        )
    prepared = PreparedSplit(data_dir, index.task, index.split)
    keys = np.unique(np.linspace(0, len(prepared) - 1, min(count, len(prepared))).round().astype(int))
    return [
        Example(images, vocabulary.decode(record.prompt), vocabulary.decode(record.target))
        for record, images in prepared.read(keys.tolist())
    ]


def batches(examples: Sequence[Example], size: int = BATCH) -> Iterator[tuple[np.ndarray, Sequence[Example]]]:
    """Images uint8[size, N, H, W, 3] and the examples in them; a short last batch repeats a frame to keep its size."""
    for start in range(0, len(examples), size):
        part = examples[start : start + size]
        padded = [*part, *[part[0]] * (min(size, len(examples)) - len(part))]
        yield np.stack([example.images for example in padded]), part


def padded(texts: Sequence[str], count: int) -> list[str]:
    """`count` texts, the first one repeated at the end."""
    return [*texts, *[texts[0]] * (count - len(texts))]
