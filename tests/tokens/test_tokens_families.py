"""The documented ids of public vocabularies, on models of their true size."""

import pytest

from rt2_jax.errors import UserError
from rt2_jax.tokens.adapt import adapt_vocabulary, append_pieces
from rt2_jax.tokens.families import FAMILIES, family
from rt2_jax.tokens.model_proto import SPACE, Piece
from rt2_jax.tokens.vocabulary import SIZE_MULTIPLE

# Documented ids, pieces in all, and rows of the released embedding tables.
DOCUMENTED = {
    "t5": ({"<extra_id_0>": 32099, "<extra_id_99>": 32000}, 32100, 32128),
    "mt5": ({"<extra_id_0>": 250099, "<extra_id_99>": 250000}, 250100, 250112),
    "umt5": ({"<extra_id_0>": 256299, "<extra_id_299>": 256000}, 256300, 256384),
    "umt5_hf": ({"<extra_id_0>": 256383, "<extra_id_299>": 256084}, 256384, 256384),
    "paligemma": (
        {"<loc0000>": 256000, "<loc1023>": 257023, "<seg000>": 257024, "<seg127>": 257151, "<image>": 257152},
        257153,
        257280,  # released with 257152 rows (big_vision) and 257216 (Transformers): the image's token needs none
    ),
    "gemma": ({}, 256000, 256000),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_pieces_stand_at_their_documented_ids(foreign, name):
    ids, num_pieces, rows = DOCUMENTED[name]
    chosen = family(name)
    loaded = foreign.processor(append_pieces(foreign.fabricated(chosen.num_pieces), chosen.ids))
    assert loaded.GetPieceSize() == num_pieces and -(-num_pieces // SIZE_MULTIPLE) * SIZE_MULTIPLE == rows
    for piece, token in ids.items():
        assert loaded.EncodeAsIds(f"a {piece}")[-1] == token
        assert loaded.DecodeIds([token]) == piece
    assert loaded.EncodeAsIds("abc") == foreign.processor(foreign.fabricated(chosen.num_pieces)).EncodeAsIds("abc")
    if name == "umt5_hf":
        assert all(loaded.IsUnused(token) for token in range(256000, 256084)) and not loaded.IsUnused(256084)


def test_the_published_mt5_file_has_its_extra_ids(foreign):
    model = foreign.fabricated(250000, tuple(f"{SPACE}<extra_id_{number}>" for number in reversed(range(100))))
    assert append_pieces(model, family("mt5").ids) == append_pieces(model, {})
    with pytest.raises(UserError, match="'<extra_id_99>' is token 250000, to be 256200; the model is of another"):
        append_pieces(model, family("umt5").ids)


def test_the_published_paligemma_file_has_all_but_the_image(foreign):
    model = foreign.fabricated(256000, family("paligemma").added[:-1], Piece.USER_DEFINED)
    loaded = foreign.processor(append_pieces(model, family("paligemma").ids))
    assert loaded.GetPieceSize() == 257153 and loaded.PieceToId("<image>") == 257152


def test_one_convention_cannot_be_made_the_other(foreign):
    model = append_pieces(foreign.fabricated(256000), family("umt5").ids)
    with pytest.raises(UserError, match="is token 256[0-9]+, to be 256[0-9]+; the model is of another family"):
        append_pieces(model, family("umt5_hf").ids)


def test_a_model_of_another_size_is_refused(foreign, tmp_path):
    (tmp_path / "small.model").write_bytes(foreign.train("t5"))
    with pytest.raises(UserError, match=r"small.model has \d+ pieces, those of family t5 have 32000; name the family"):
        adapt_vocabulary(tmp_path / "small.model", tmp_path / "a.model", "t5", foreign.CORPUS)
    with pytest.raises(UserError, match="family 'bert' is unknown; choose one of t5, mt5, umt5, umt5_hf, paligemma"):
        adapt_vocabulary(tmp_path / "small.model", tmp_path / "a.model", "bert", foreign.CORPUS)
    assert not (tmp_path / "a.model").exists()


def test_a_whole_vocabulary_of_true_size(foreign, tmp_path):
    (tmp_path / "umt5.model").write_bytes(foreign.fabricated(256000))
    vocabulary = adapt_vocabulary(tmp_path / "umt5.model", tmp_path / "a.model", "umt5", ["pick red cube", "abc"])
    assert vocabulary.size == 256384 and vocabulary.encode("a <extra_id_0>")[-1] == 256299
    # None of these words was counted: the last ones go.
    assert vocabulary.integer_ids[0] == 256000 - 256 and vocabulary.integer_ids[-1] == 256000 - 1
    assert vocabulary.encode("<0> <255>") == [256000 - 256, 256000 - 1]
