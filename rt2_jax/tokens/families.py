"""Which pieces public models add to their SentencePiece file, and at which ids.

Their releases keep these beside the file, in a library's code; an adapted file holds them itself.
"""

import dataclasses
from collections.abc import Mapping

from rt2_jax.errors import UserError
from rt2_jax.tokens.model_proto import SPACE


@dataclasses.dataclass(frozen=True)
class Family:
    """Public models that share a vocabulary.

    Attributes:
        about: whose, in a few words.
        num_pieces: pieces that their SentencePiece file has at least.
        first_id: the id of the first piece that is added.
        added: these, one id after the other.
    """

    about: str
    num_pieces: int
    first_id: int = 0
    added: tuple[str, ...] = ()

    @property
    def ids(self) -> Mapping[str, int]:
        """The id of each added piece."""
        return {piece: self.first_id + index for index, piece in enumerate(self.added)}


def _extra_ids(count: int) -> tuple[str, ...]:
    """T5's sentinels: the last id is number 0. Like seqio's they take the space before them along."""
    return tuple(f"{SPACE}<extra_id_{number}>" for number in reversed(range(count)))


_LOCATIONS = tuple(f"<loc{number:04d}>" for number in range(1024))
_SEGMENTS = tuple(f"<seg{number:03d}>" for number in range(128))

FAMILIES: Mapping[str, Family] = {
    "t5": Family("T5 1.1, UL2: <extra_id_0> is 32099", 32000, 32000, _extra_ids(100)),
    # Its file, mc4.250000.100extra, holds them already; files trained in its likeness do not.
    "mt5": Family("mT5: <extra_id_0> is 250099", 250000, 250000, _extra_ids(100)),
    "umt5": Family("umT5 as T5X trained it: <extra_id_0> is 256299", 256000, 256000, _extra_ids(300)),
    # The port counts down from the last row of the embedding table, so that 84 rows before them have no piece.
    "umt5_hf": Family("umT5 as ported to Transformers: <extra_id_0> is 256383", 256000, 256084, _extra_ids(300)),
    "paligemma": Family(
        "PaliGemma 1 and 2: <loc0000>, <seg000>, <image> are 256000, 257024, 257152",
        256000, 256000, (*_LOCATIONS, *_SEGMENTS, "<image>"),
    ),
    "gemma": Family("Gemma: nothing is added", 256000),
}  # fmt: skip


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        UserError: an unknown one.
    """
    if name not in FAMILIES:
        raise UserError(f"vocabulary family {name!r} is unknown; choose one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
