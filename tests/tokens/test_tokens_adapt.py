"""Public vocabularies made ours: what text keeps, where the integers go, and what is refused."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rt2_jax.actions import ARM, ActionBins
from rt2_jax.errors import UserError
from rt2_jax.inputs.prompts import plan_target, robot_prompt
from rt2_jax.tokens import Vocabulary, action_text, action_tokens, bins_of_tokens, build_grammar, parse_action_text
from rt2_jax.tokens.adapt import adapt_vocabulary, append_pieces, overwrite, read_corpus
from rt2_jax.tokens.model_proto import SPACE, Piece, parse_model
from rt2_jax.tokens.rare_pieces import expendable, least_frequent_pieces

LOOKS = ("t5", "mt5", "gemma", "bpe_without_bytes")
ACTION = [1, 128, 91, 241, 5, 101, 127, 217]
bins_strategy = st.lists(st.integers(0, 255), min_size=8, max_size=8)
# Words that the models know mixed with any characters, spaces of all kinds among them.
words = st.sampled_from("pick the red cube rote Würfel cubo étoile 128 1998 <b> <300> < 5> Ada, ... 日本 ☃".split(" "))
text_strategy = st.lists(words | st.text(max_size=5), max_size=12).map(" ".join) | st.text(max_size=40)


@pytest.fixture(scope="module", params=LOOKS)
def pair(request, foreign, tmp_path_factory):
    """(SentencePiece of the original, the overwritten vocabulary, the retired pieces' ids)."""
    folder = tmp_path_factory.mktemp(request.param)
    model = foreign.train(request.param)
    (folder / "original.model").write_bytes(model)
    vocabulary = adapt_vocabulary(folder / "original.model", folder / "adapted.model", corpus=foreign.CORPUS)
    return foreign.processor(model), vocabulary, set(vocabulary.integer_ids.tolist())


@given(text_strategy)
def test_text_keeps_its_tokens_and_comes_back_as_before(pair, text):
    original, vocabulary, retired = pair
    assume(SPACE not in text and "\0" not in text)
    before, after = original.EncodeAsIds(text), vocabulary.encode(text)
    assert not retired & set(after)
    if not retired & set(before):
        assert after == before
    assert vocabulary.decode(after) == original.DecodeIds(before)


def test_every_retired_piece_is_still_spelt(pair):
    original, vocabulary, retired = pair
    spelt_otherwise = 0
    for token in retired:
        text = original.IdToPiece(token).replace(SPACE, " ")
        assert not retired & set(vocabulary.encode(text))
        assert vocabulary.decode(vocabulary.encode(text)) == original.DecodeIds(original.EncodeAsIds(text))
        spelt_otherwise += token in original.EncodeAsIds(text)
    assert spelt_otherwise > 100  # the test above and this one are about something


def test_every_other_piece_is_still_reached(pair):
    original, vocabulary, retired = pair
    reached = 0
    for token in set(range(original.GetPieceSize())) - retired:
        text = original.IdToPiece(token).replace(SPACE, " ")
        if original.EncodeAsIds(text) == [token]:
            assert vocabulary.encode(text) == [token]
            reached += 1
    assert reached > 100


@given(bins_strategy)
def test_an_action_is_one_token_a_bin(pair, bins):
    _, vocabulary, retired = pair
    text = action_text(vocabulary, bins)
    ids = vocabulary.encode(text)
    assert ids == action_tokens(vocabulary, bins).tolist() and set(ids) <= retired
    assert vocabulary.decode(ids) == text and text.split() == [f"<{value}>" for value in bins]
    assert parse_action_text(vocabulary, text, 8).tolist() == bins == bins_of_tokens(vocabulary, np.array(ids)).tolist()
    planned = vocabulary.encode(plan_target("pick red cube", text))
    assert planned[-8:] == ids and not retired & set(planned[:-8])


def test_numerals_keep_the_models_own_tokens(pair):
    original, vocabulary, _ = pair
    for text in ("140 110", "7", "1998 12 3", "0 255"):
        assert vocabulary.encode(text) == original.EncodeAsIds(text)


def test_the_grammar_says_actions_where_they_belong(pair):
    _, vocabulary, retired = pair
    grammar = build_grammar(vocabulary, ActionBins(ARM).allowed)
    ids, eos = vocabulary.encode(action_text(vocabulary, ACTION)), vocabulary.eos_id
    assert grammar.accepts([*ids, eos], "action")
    plan = vocabulary.encode(plan_target("pick red cube at 140 110", action_text(vocabulary, ACTION)))
    assert grammar.accepts([*plan, eos], "plan")
    # They mean nothing in a caption or in a plan's words.
    assert not grammar.accepts([*ids, eos], "text") and not grammar.accepts([*ids, *plan, eos], "plan")
    assert not vocabulary.text_ids[list(retired)].any()
    assert vocabulary.text_ids[vocabulary.encode(robot_prompt("pick 3 cubes"))].all()


def test_special_tokens_are_read_from_the_model(pair):
    original, vocabulary, _ = pair
    assert vocabulary.unk_id == original.unk_id() and not vocabulary.text_ids[original.unk_id()]
    assert vocabulary.bos_id == (2 if original.bos_id() == 2 else None)
    assert vocabulary.word_start == (" " if vocabulary.bos_id else "") and vocabulary.image_id is None


def test_frequent_brackets_do_not_split_an_action(foreign):
    proto = parse_model(foreign.fabricated(900, ("\u2581<", "5>"), Piece.NORMAL))
    for piece in proto.pieces[-2:]:
        piece.score = -0.7
    model = proto.SerializeToString()
    assert foreign.processor(model).EncodeAsPieces("<5>") == ["\u2581<", "5>"]
    ids = least_frequent_pieces(model, ["abc"], 256)
    assert foreign.processor(overwrite(model, ids)).EncodeAsIds("<5> <255>") == [ids[5], ids[255]]


def test_samples_of_the_old_tokens_are_left_out(foreign):
    # Field 4 of the file, by which some releases of SentencePiece check a model that they load.
    samples = b"\x0a\x0e\x0a\x04cube\x12\x06old id"
    model = foreign.train("t5") + b"\x22" + bytes([len(samples)]) + samples
    ids = least_frequent_pieces(model, foreign.CORPUS, 256)
    assert b"old id" in model and b"old id" not in overwrite(model, ids)


def test_the_same_input_gives_the_same_file(foreign, tmp_path):
    (tmp_path / "t5.model").write_bytes(foreign.train("t5"))
    first = adapt_vocabulary(tmp_path / "t5.model", tmp_path / "new" / "a.model", corpus=foreign.CORPUS)
    second = adapt_vocabulary(tmp_path / "t5.model", tmp_path / "b.model", corpus=iter(foreign.CORPUS))
    assert first.sha256 == second.sha256 == Vocabulary.load(tmp_path / "b.model").sha256
    assert first.path == tmp_path / "new" / "a.model"


def test_whole_integers_need_no_corpus(foreign, tmp_path):
    symbols = [f"{SPACE}{integer}" for integer in range(256)]
    (tmp_path / "whole.model").write_bytes(foreign.train("gemma", 1200, user_defined_symbols=symbols))
    vocabulary = adapt_vocabulary(tmp_path / "whole.model", tmp_path / "a.model")
    assert vocabulary.integer_words[128] == "128" and vocabulary.word_start == " "
    assert vocabulary.encode(action_text(vocabulary, ACTION)) == action_tokens(vocabulary, ACTION).tolist()
    assert vocabulary.text_ids[vocabulary.integer_ids].all()
    with pytest.raises(UserError, match="whole.model has a token for each integer already; leave the corpus out"):
        adapt_vocabulary(tmp_path / "whole.model", tmp_path / "b.model", corpus=foreign.CORPUS)
    assert not (tmp_path / "b.model").exists()


def test_pieces_that_cross_the_spaces_between_integers_are_refused(foreign, tmp_path):
    proto = parse_model(Vocabulary.load().path.read_bytes())
    proto.pieces.add(piece=f"{SPACE}7{SPACE}8", score=0.0, type=Piece.USER_DEFINED)
    (tmp_path / "crossing.model").write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match="the integers 0 1 2 ... in a row are other tokens than each alone"):
        Vocabulary.load(tmp_path / "crossing.model")


def test_integers_that_split_name_the_way_out(foreign, tmp_path):
    (tmp_path / "gemma.model").write_bytes(foreign.train("gemma"))
    for make in (Vocabulary.load, lambda path: adapt_vocabulary(path, tmp_path / "out.model")):
        with pytest.raises(UserError, match="gemma.model: the integer 0 is .*rt2 data vocabulary --adapt"):
            make(tmp_path / "gemma.model")
    assert not (tmp_path / "out.model").exists()


def test_appended_pieces_stand_at_their_ids_and_gaps_are_unused(foreign):
    model = foreign.train("gemma")
    size = len(parse_model(model).pieces)
    model = append_pieces(model, {"<image>": size + 5, f"{SPACE}<extra_id_0>": size + 1})
    loaded = foreign.processor(model)
    assert loaded.GetPieceSize() == size + 6
    assert loaded.EncodeAsIds("<image>") == [size + 5] and loaded.EncodeAsIds("a <extra_id_0>")[-1] == size + 1
    assert [loaded.IsUnused(token) for token in range(size, size + 6)] == [True, False, True, True, True, False]
    ids = least_frequent_pieces(model, foreign.CORPUS, 256)
    vocabulary = Vocabulary(overwrite(model, ids), "adapted")
    assert vocabulary.image_id == size + 5 and vocabulary.text_ids[size : size + 6].tolist() == [0, 1, 0, 0, 0, 0]
    assert vocabulary.size == -(-(size + 6) // 128) * 128


def test_text_keeps_its_tokens_beside_appended_pieces(foreign):
    for look in LOOKS:
        model = foreign.train(look)
        size = len(parse_model(model).pieces)
        longer = append_pieces(model, {"<image>": size + 3})
        for line in foreign.CORPUS[::50]:
            assert foreign.processor(longer).EncodeAsIds(line) == foreign.processor(model).EncodeAsIds(line)


@pytest.mark.parametrize("spelt", ["<extra_id_0>", f"{SPACE}<extra_id_0>"])
def test_a_piece_that_is_there_stays(foreign, spelt):
    model = foreign.fabricated(600, (spelt,), Piece.NORMAL)
    proto = parse_model(append_pieces(model, {f"{SPACE}<extra_id_0>": 600}))
    assert len(proto.pieces) == 601
    assert (proto.pieces[600].piece, proto.pieces[600].type) == (spelt, Piece.USER_DEFINED)
    with pytest.raises(UserError, match="'<extra_id_0>' is token 600, to be 700; the model is of another family"):
        append_pieces(model, {f"{SPACE}<extra_id_0>": 700})


def test_an_id_that_is_taken_is_refused(foreign):
    model = foreign.fabricated(600)
    with pytest.raises(UserError, match=r"token 599 is '.wfjg', to be '<image>'; the model is of another family"):
        append_pieces(model, {"<image>": 599})


def test_only_what_may_go_is_overwritten(foreign):
    model = foreign.train("t5")
    space = foreign.processor(model).PieceToId(SPACE)
    good = least_frequent_pieces(model, foreign.CORPUS, 256)
    for wrong in (space, 0, -1, 10**6):
        with pytest.raises(UserError, match=f"token {wrong} must stay"):
            overwrite(model, [*good[:255], wrong])
    for few in (good[:9], [*good[:255], good[0]]):
        with pytest.raises(UserError, match="different pieces to overwrite, needs 256"):
            overwrite(model, few)


def test_overwriting_twice_is_refused(foreign):
    model = foreign.train("mt5", 1500, byte_fallback=True)
    once = overwrite(model, least_frequent_pieces(model, foreign.CORPUS, 256))
    again = np.flatnonzero(expendable(parse_model(once)))[:256]
    with pytest.raises(UserError, match="the word '<0>' is a piece already"):
        overwrite(once, again)


def test_a_model_of_another_kind_is_refused(foreign, tmp_path):
    model = foreign.train("t5", 300, model_type="char")
    with pytest.raises(UserError, match="model type CHAR cannot be adapted; use a UNIGRAM or BPE model"):
        least_frequent_pieces(model, foreign.CORPUS, 256)
    (tmp_path / "bad.model").write_bytes(b"no model")
    with pytest.raises(UserError, match="bad.model is not a SentencePiece model"):
        adapt_vocabulary(tmp_path / "bad.model", tmp_path / "a.model")
    with pytest.raises(UserError, match="none.model does not exist"):
        adapt_vocabulary(tmp_path / "none.model", tmp_path / "a.model")


def test_a_corpus_is_read_line_by_line_and_its_faults_are_named(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("pick red cube\n\nWürfel", encoding="utf-8")
    assert list(read_corpus(path)) == ["pick red cube", "", "Würfel"]
    path.write_bytes("pick\nWürfel".encode("latin-1"))
    with pytest.raises(UserError, match=r"text.txt is not UTF-8 \(invalid start byte"):
        list(read_corpus(path))
    with pytest.raises(UserError, match="none.txt does not exist"):
        list(read_corpus(tmp_path / "none.txt"))
