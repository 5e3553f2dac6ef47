import numpy as np
import pytest

from rt2_jax.errors import UserError
from rt2_jax.inputs import Batch, prompt_tokens, target_tokens
from rt2_jax.tokens import Vocabulary

VOCABULARY = Vocabulary.load()


def test_tree_round_trip():
    batch = Batch(np.zeros((2, 1, 4, 4, 3), np.uint8), *(np.full((2, 3), value) for value in range(4)))
    tree = batch.tree()
    assert list(tree) == ["images", "prompt", "target", "weights", "task"]
    again = Batch.from_tree(tree)
    assert all(getattr(again, name) is tree[name] for name in tree)


def test_prompt_is_padded_without_eos():
    row = prompt_tokens(VOCABULARY, "pick red cube", 12)
    ids = VOCABULARY.encode("pick red cube")
    assert row.dtype == np.int32 and row.tolist() == ids + [0] * (12 - len(ids))


def test_target_ends_with_eos_that_has_weight():
    row, weights = target_tokens(VOCABULARY, "1 128 91 241 5 101 127 217", 12)
    assert row[:8].tolist() == VOCABULARY.integer_ids[[1, 128, 91, 241, 5, 101, 127, 217]].tolist()
    assert row[8:].tolist() == [VOCABULARY.eos_id, 0, 0, 0]
    assert weights.dtype == np.float32 and weights.tolist() == [1.0] * 9 + [0.0] * 3


def test_what_does_not_fit_is_refused_not_cut():
    assert prompt_tokens(VOCABULARY, "1 2 3 4", 4).all()
    with pytest.raises(UserError, match="prompt '1 2 3 4 5' has 5 tokens, the limit is 4"):
        prompt_tokens(VOCABULARY, "1 2 3 4 5", 4)
    with pytest.raises(UserError, match="target '1 2 3 4' has 5 tokens"):
        target_tokens(VOCABULARY, "1 2 3 4", 4)
