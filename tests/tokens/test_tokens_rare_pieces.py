"""Which pieces go: those that a corpus does not use, of those that text can do without."""

import numpy as np
import pytest

from rt2_jax.errors import UserError
from rt2_jax.tokens.model_proto import SPACE, ModelProto, Piece, parse_model
from rt2_jax.tokens.rare_pieces import expendable, least_frequent_pieces


def model_of(pieces, kind, byte_fallback=False):
    """A model proto of the given pieces (text, or text and type), ranked as they come, after the special ones."""
    proto = ModelProto()
    proto.trainer_spec.model_type = kind
    proto.trainer_spec.byte_fallback = byte_fallback
    for text, type_ in (("<pad>", Piece.CONTROL), ("</s>", Piece.CONTROL), ("<unk>", Piece.UNKNOWN)):
        proto.pieces.add(piece=text, type=type_)
    for rank, piece in enumerate(pieces):
        text, type_ = (piece, Piece.NORMAL) if isinstance(piece, str) else piece
        proto.pieces.add(piece=text, score=-1.0 - rank, type=type_)
    for byte in range(256 * byte_fallback):
        proto.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=Piece.BYTE)
    return proto


def may_go(proto):
    return [piece.piece for piece, goes in zip(proto.pieces, expendable(proto), strict=True) if goes]


UNIGRAM, BPE = 1, 2


def test_without_bytes_characters_stay_and_so_does_what_only_a_piece_spells():
    proto = model_of([SPACE, "a", "b", "ab", f"{SPACE}ab", "né", ("<x>", Piece.USER_DEFINED)], UNIGRAM)
    assert may_go(proto) == ["ab", f"{SPACE}ab"]


def test_with_bytes_all_but_the_space_may_go():
    proto = model_of([SPACE, "a", "b", "ab", f"{SPACE}ab", "né", ("<x>", Piece.UNUSED)], UNIGRAM, byte_fallback=True)
    assert may_go(proto) == ["a", "b", "ab", f"{SPACE}ab", "né"]


def test_without_a_piece_for_the_space_words_with_it_stay():
    # Its bytes would come back as U+2581.
    assert may_go(model_of(["a", "b", "ab", f"{SPACE}ab"], UNIGRAM, byte_fallback=True)) == ["a", "b", "ab"]


def test_digits_stay():
    pieces = [SPACE, "a", "1", "2", "12", "a1", f"{SPACE}12", "²"]
    assert may_go(model_of(pieces, UNIGRAM, byte_fallback=True)) == ["a"]


def test_in_bpe_what_others_are_merged_from_stays():
    pieces = [SPACE, "a", "b", "c", "d", "ab", "cd", "abc", "bcd", "abcd", f"{SPACE}abcd"]
    # abcd can come from ab + cd, abc + d and a + bcd, and goes on into the last.
    assert may_go(model_of(pieces, BPE)) == [f"{SPACE}abcd"]
    assert may_go(model_of(pieces[:-2], BPE)) == ["abc", "bcd"]
    # Merging starts at characters, whether they are pieces or not.
    assert may_go(model_of(pieces[:7], BPE, byte_fallback=True)) == ["a", "b", "c", "d", "ab", "cd"]


def test_the_rarest_go_and_of_equals_the_later(foreign):
    model = foreign.train("t5")
    processor = foreign.processor(model)
    counts = np.bincount(np.concatenate(processor.EncodeAsIds(foreign.CORPUS)), minlength=processor.GetPieceSize())
    candidates = np.flatnonzero(expendable(parse_model(model)))
    limits = 0
    for count in range(50, 250, 10):
        ids = least_frequent_pieces(model, iter(foreign.CORPUS), count)
        assert ids.dtype == np.int32 and (np.diff(ids) > 0).all() and len(ids) == count and set(ids) <= set(candidates)
        most = counts[ids].max()
        assert counts[np.setdiff1d(candidates, ids)].min() >= most
        taken = np.isin(candidates[counts[candidates] == most], ids).tolist()
        assert taken == sorted(taken)
        limits += not all(taken)
    assert limits > 5  # often the limit runs through pieces of the same count
    # A corpus without them makes other pieces rare.
    assert set(least_frequent_pieces(model, foreign.CORPUS[:5], 100)) != set(ids[:100])


def test_an_empty_corpus_or_a_small_model_is_refused(foreign):
    with pytest.raises(UserError, match="the corpus is empty; give text"):
        least_frequent_pieces(foreign.train("t5"), ["", ""], 100)
    with pytest.raises(UserError, match=r"\d+ pieces may be overwritten, 9999 must; use a larger model"):
        least_frequent_pieces(foreign.train("t5"), foreign.CORPUS, 9999)
