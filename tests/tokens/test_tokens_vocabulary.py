import numpy as np
import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rt2_jax.errors import UserError
from rt2_jax.tokens import DEFAULT_VOCABULARY, Vocabulary
from rt2_jax.tokens.train_vocabulary import train_vocabulary

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
VOCABULARY = Vocabulary.load()
CORPUS = ["pick red cube", "Plan: pick red cube. Action: 1 2", "Generate caption in en", "Würfel auf dem Tisch"] * 8


def test_every_integer_is_one_token_at_the_start_of_a_word():
    assert VOCABULARY.integer_ids.dtype == np.int32 and len(set(VOCABULARY.integer_ids.tolist())) == 256
    for integer in range(256):
        token = int(VOCABULARY.integer_ids[integer])
        assert VOCABULARY.encode(str(integer)) == [token]
        assert VOCABULARY.encode(f"cube {integer}")[-1] == token
        assert VOCABULARY.decode([token]) == str(integer)


@PATIENT
@given(st.lists(st.integers(0, 999), min_size=8, max_size=8))
def test_eight_integers_are_eight_tokens(integers):
    text = " ".join(map(str, integers))
    ids = VOCABULARY.encode(text)
    assert len(ids) == 8
    assert VOCABULARY.decode(ids) == text


@PATIENT
@given(st.text(st.characters(exclude_characters="\u2581\0", exclude_categories=("Cs",))))
def test_any_text_comes_back(text):
    assert VOCABULARY.decode(VOCABULARY.encode(text)) == text


def test_decode_stops_at_eos_and_skips_pad_and_unused_ids():
    ids = VOCABULARY.encode("red cube")
    unused = list(range(VOCABULARY.num_pieces, VOCABULARY.size))
    assert VOCABULARY.decode([0, *ids[:1], 0, *unused, *ids[1:], 1, *ids]) == "red cube"
    assert VOCABULARY.decode(np.array([], np.int32)) == ""


def test_size_and_text_ids():
    assert VOCABULARY.size == 2304  # SIZES["tiny"] has an embedding of this size
    assert VOCABULARY.size % 128 == 0 and VOCABULARY.size - 128 < VOCABULARY.num_pieces <= VOCABULARY.size
    text_ids = VOCABULARY.text_ids
    assert not text_ids[[0, 1, 2]].any() and not text_ids[VOCABULARY.num_pieces :].any()
    assert text_ids[3 : VOCABULARY.num_pieces].all() and text_ids[VOCABULARY.integer_ids].all()


@pytest.mark.parametrize(
    "word",
    "cube ball cylinder cone star bar red green blue yellow purple orange pink cyan black white zone number letter "
    "heart moon Ada Kofi pick move push place near Detect all objects Instruction Plan Action Generate caption".split(),
)
def test_common_words_are_one_token(word):
    assert len(VOCABULARY.encode(word)) == 1


def test_sentinels_are_one_token():
    ids = VOCABULARY.encode("a cube <extra_id_0>")
    assert [VOCABULARY.piece(token) for token in ids][-1] == "<extra_id_0>"
    assert len({VOCABULARY.encode(f"<extra_id_{index}>")[-1] for index in range(10)}) == 10


def test_training_is_reproducible_and_the_hash_is_the_files(tmp_path):
    first = train_vocabulary(CORPUS, tmp_path / "new" / "a.model", num_words=64)
    second = train_vocabulary(iter(CORPUS), tmp_path / "b.model", num_words=64)
    assert first.sha256 == second.sha256 == Vocabulary.load(tmp_path / "new" / "a.model").sha256
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.decode(first.encode("roter Würfel ☃  12x")) == "roter Würfel ☃  12x"
    assert train_vocabulary(CORPUS[:1] * 8, tmp_path / "c.model", num_words=64).sha256 != first.sha256


def test_an_empty_corpus_is_refused(tmp_path):
    with pytest.raises(UserError, match="empty"):
        train_vocabulary(["", " "], tmp_path / "a.model")


def test_too_few_words_for_the_characters_are_refused(tmp_path):
    with pytest.raises(UserError, match="num_words is 2, .* raise it"):
        train_vocabulary(CORPUS, tmp_path / "a.model", num_words=2)


def plain_model(tmp_path, **settings):
    prefix = tmp_path / "plain"
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter([*CORPUS, *(str(n) for n in range(256))]),
        model_prefix=str(prefix),
        vocab_size=700,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
        **settings,
    )
    return prefix.with_suffix(".model")


def test_the_first_integer_that_splits_is_named(tmp_path):
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    symbols = ["\u2581" + str(n) for n in range(256) if n != 37]
    path = plain_model(tmp_path, user_defined_symbols=symbols, split_digits=True, **ids)
    with pytest.raises(UserError, match="integer 37 is"):
        Vocabulary.load(path)


def test_other_special_ids_are_refused(tmp_path):
    with pytest.raises(UserError, match="pad_id is -1, needs 0"):
        Vocabulary.load(plain_model(tmp_path))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "bad.model"
    for content in (b"not a model", DEFAULT_VOCABULARY.read_bytes()[:1000], b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match="bad.model"):
            Vocabulary.load(path)
    with pytest.raises(UserError, match="does not exist"):
        Vocabulary.load(tmp_path / "none.model")
