"""Adapted vocabularies in TensorFlow graphs: the ids are those of Python, and the extra ids those of seqio."""

import pytest
import seqio
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rt2_jax.actions import load_card
from rt2_jax.datasets import tasks
from rt2_jax.datasets.seqio_vocabulary import SeqioVocabulary
from rt2_jax.datasets.tabletop.tasks import tabletop_steps
from rt2_jax.tokens import Vocabulary, action_text, bins_of_tokens
from rt2_jax.tokens.adapt import adapt_vocabulary, append_pieces
from rt2_jax.tokens.families import FAMILIES

ACTION = [1, 128, 91, 241, 5, 101, 127, 217]


@pytest.fixture(scope="module", params=["t5", "mt5", "gemma", "bpe_without_bytes"])
def adapted(request, foreign, tmp_path_factory):
    """A small model in the look of a public one, with extra pieces, its rarest pieces overwritten."""
    folder = tmp_path_factory.mktemp(request.param)
    model = foreign.train(request.param)
    size = foreign.processor(model).GetPieceSize()
    longer = append_pieces(model, {"\u2581<extra_id_0>": size + 2, "<image>": size + 9})
    (folder / "original.model").write_bytes(longer)
    return adapt_vocabulary(folder / "original.model", folder / "adapted.model", corpus=foreign.CORPUS)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
@example("Q: what action should the robot take to pick red cube? A:")
@example("Plan: pick red cube. Action: <1> <128> <91> <241> <5> <101> <127> <217>")
@example("<0> <255>")
@example(" <0> <255>")
@example("  two  spaces \n <extra_id_0> <image> ☃ 128")
def test_an_adapted_vocabulary_gives_the_same_ids_in_a_graph(adapted, text):
    words = SeqioVocabulary(adapted)
    ids = adapted.encode(text)
    assert list(words.encode(text)) == ids
    assert words.encode_tf(tf.constant(text.encode("utf-8"))).numpy().tolist() == ids
    assert words.decode_tf(tf.constant(ids, tf.int32)).numpy().decode() == adapted.decode(ids)


def test_in_a_graph_an_action_is_one_token_a_bin_too(adapted):
    ids = SeqioVocabulary(adapted).encode_tf(tf.constant(action_text(adapted, ACTION))).numpy()
    assert bins_of_tokens(adapted, ids).tolist() == ACTION


@pytest.mark.parametrize(("name", "look"), [("t5", "t5"), ("umt5", "mt5")])
def test_extra_ids_are_those_of_seqio(foreign, tmp_path, name, look):
    path = tmp_path / "original.model"
    path.write_bytes(foreign.train(look))
    pieces = FAMILIES[name].added
    theirs = seqio.SentencePieceVocabulary(str(path), extra_ids=len(pieces))
    first = theirs.vocab_size - len(pieces)
    ours = foreign.processor(append_pieces(path.read_bytes(), {piece: first + i for i, piece in enumerate(pieces)}))
    marked = ["a cube <extra_id_0>", "<extra_id_7> cubes <extra_id_99>.", "mid<extra_id_1>word"]
    for text in [*marked, *foreign.CORPUS[:20]]:
        assert ours.EncodeAsIds(text) == list(theirs.encode(text)) == theirs.encode_tf(text).numpy().tolist()


def test_actions_are_prepared_in_the_vocabularys_own_words(adapted, built):
    folder = built / "tabletop_robot/1.0.0"
    card = load_card(folder / "card.json")

    def bins_of(vocabulary):
        task = tasks.register_robot_task(
            "spelt_action", folder, card, tabletop_steps, use_last_step=True, vocabulary=vocabulary
        )
        dataset = task.get_dataset(split="train", shuffle=False, try_in_mem_cache=False).take(50)
        targets = [found["targets"] for found in dataset.as_numpy_iterator()]
        assert all(len(target) == 9 and target[-1] == vocabulary.eos_id for target in targets)
        return [bins_of_tokens(vocabulary, target[:-1]).tolist() for target in targets]

    assert bins_of(adapted) == bins_of(Vocabulary.load())
