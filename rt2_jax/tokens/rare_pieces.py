"""Which pieces of a SentencePiece model ordinary text can do without: the ones that PaLM-E's way overwrites.

A piece may go if text that did not use it keeps its tokens, and text that did still comes back from others:

* Its characters must be pieces themselves, or become bytes. Without bytes no single character may go; the space never.
* BPE merges pairs of pieces. One that others are merged from may not go, since they would become unreachable.
* Pieces with a digit stay, so that numerals are written as before.
"""

from collections.abc import Iterable

import numpy as np
import sentencepiece

from rt2_jax.errors import UserError
from rt2_jax.tokens.model_proto import SPACE, ModelProto, Piece, is_bpe, parse_model, piece_types


def least_frequent_pieces(model: bytes, corpus: Iterable[str], count: int) -> np.ndarray:
    """The pieces that a corpus uses least often, of those that may go (`expendable`).

    Counted, not taken from the model's scores: the tail of those is another than that of a corpus.

    Args:
        model: a serialised SentencePiece model, unigram or BPE.
        corpus: lines of text, read once.
        count: how many pieces.

    Returns:
        int32[count], ascending ids. Of pieces with the same count, those with higher ids come first: a model's pieces
        are in the order of their frequency in the text that it was trained on.

    Raises:
        UserError: an empty corpus, too few pieces that may go, or a model that is neither unigram nor BPE.
    """
    candidates = np.flatnonzero(expendable(parse_model(model)))
    if len(candidates) < count:
        raise UserError(f"vocabulary: {len(candidates)} pieces may be overwritten, {count} must; use a larger model")
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    counts = np.zeros(processor.GetPieceSize(), np.int64)
    for line in corpus:
        np.add.at(counts, processor.EncodeAsIds(line), 1)
    if not counts.any():
        raise UserError("vocabulary: the corpus is empty; give text in the languages that the model is to keep")
    rarest_first = np.lexsort((-candidates, counts[candidates]))
    return np.sort(candidates[rarest_first[:count]]).astype(np.int32)


def expendable(proto: ModelProto) -> np.ndarray:
    """bool[num_pieces]: true for the pieces that may go, as the module's first lines say.

    Raises:
        UserError: the model is neither unigram nor BPE.
    """
    types = piece_types(proto)
    texts = [piece.piece for piece in proto.pieces]
    characters = {text for text, kind in zip(texts, types, strict=True) if kind == Piece.NORMAL and len(text) == 1}
    merged = _merged_from(texts, types) if is_bpe(proto) else set()

    def may_go(text: str) -> bool:
        if proto.trainer_spec.byte_fallback:
            # The bytes of U+2581 would come back as that character, not as a space.
            spelt = text != SPACE and (SPACE in characters or SPACE not in text)
        else:
            spelt = len(text) > 1 and set(text) <= characters
        return spelt and text not in merged and not any(map(str.isdigit, text))

    return np.array([kind == Piece.NORMAL and may_go(text) for text, kind in zip(texts, types, strict=True)])


def _merged_from(texts: list[str], types: np.ndarray) -> set[str]:
    """Pieces of two or more characters that another piece can be merged from. Single ones are there without a piece."""
    merging = np.isin(types, (Piece.NORMAL, Piece.USER_DEFINED, Piece.UNUSED))
    known = {text for text, merges in zip(texts, merging, strict=True) if merges}
    parts = set()
    for text in known:
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if all(len(part) == 1 or part in known for part in (left, right)):
                parts |= {part for part in (left, right) if len(part) > 1}
    return parts
