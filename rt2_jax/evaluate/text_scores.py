"""Scores of free text against a reference. They take any text: a model may answer anything."""

import collections
import string
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, no ASCII punctuation, single spaces: what two answers are compared by."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def exact_match(answer: str, target: str) -> bool:
    """Whether two answers are the same after `normalise`."""
    return normalise(answer) == normalise(target)


def token_f1(answer: str, target: str) -> float:
    """F1 of the overlap between two bags of words, in [0, 1] (SQuAD's F1, Rajpurkar et al. 2016, section 6.1).

    Words are split at spaces after `normalise`. Two empty texts score 1; one empty text scores 0.
    """
    answer_words, target_words = normalise(answer).split(), normalise(target).split()
    if not answer_words or not target_words:
        return float(answer_words == target_words)
    shared = sum((collections.Counter(answer_words) & collections.Counter(target_words)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(answer_words), shared / len(target_words)
    return 2.0 * precision * recall / (precision + recall)


# Largest coordinate of a place: percent of the frame from its left and top, or from the gripper, which is at 128 128.
IN_FRAME = 99
FROM_GRIPPER = 255


def parse_location(text: str, most: int = IN_FRAME) -> tuple[int, int] | None:
    """``"x y"``, two integers of 0 to `most`; None where the text is anything else."""
    words = text.strip().removesuffix(".").split()
    return _place(words, most) if len(words) == 2 else None


def parse_detections(text: str, most: int = IN_FRAME) -> dict[str, tuple[int, int]]:
    """``"blue ball 34 56; number 3 50 50"`` -> name -> place.

    Parts that are not a name and two integers of 0 to `most` are passed over; a repeated name counts where it is first.
    """
    found: dict[str, tuple[int, int]] = {}
    for part in text.removesuffix(".").split(";"):
        words = part.split()
        name, place = normalise(" ".join(words[:-2])), _place(words[-2:], most)
        if name and place is not None:
            found.setdefault(name, place)
    return found


def _place(words: Sequence[str], most: int) -> tuple[int, int] | None:
    if len(words) != 2 or not all(len(word) <= 3 and word.isascii() and word.isdigit() for word in words):
        return None
    x, y = int(words[0]), int(words[1])
    return (x, y) if max(x, y) <= most else None
