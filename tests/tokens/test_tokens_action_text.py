import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rt2_jax.errors import UserError
from rt2_jax.tokens import Vocabulary, action_text, action_tokens, bins_of_tokens, parse_action_text

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
VOCABULARY = Vocabulary.load()
PAPER = "1 128 91 241 5 101 127 217"


@PATIENT
@given(st.lists(st.integers(0, 255), min_size=8, max_size=8))
def test_bins_text_and_tokens_agree(bins):
    text = action_text(VOCABULARY, bins)
    tokens = action_tokens(VOCABULARY, bins)
    assert VOCABULARY.encode(text) == tokens.tolist()
    assert parse_action_text(VOCABULARY, text, 8).tolist() == bins == bins_of_tokens(VOCABULARY, tokens).tolist()


def test_the_papers_example():
    assert action_text(VOCABULARY, np.array([1, 128, 91, 241, 5, 101, 127, 217])) == PAPER
    assert bins_of_tokens(VOCABULARY, np.array([VOCABULARY.encode(PAPER)] * 2)).shape == (2, 8)


@pytest.mark.parametrize(
    "text", ["", "1 2", PAPER + " 3", PAPER.replace("217", "256"), PAPER.replace("5", "-5"), "a " * 8]
)
def test_other_text_is_refused(text):
    with pytest.raises(UserError):
        parse_action_text(VOCABULARY, text, 8)


@pytest.mark.parametrize("bins", [[256], [-1], [1.0], [[1]]])
def test_other_bins_are_refused(bins):
    with pytest.raises(UserError, match="action bins"):
        action_text(VOCABULARY, bins)
    with pytest.raises(UserError, match="action bins"):
        action_tokens(VOCABULARY, bins)


@pytest.mark.parametrize("token", [0, 1, -5, 10**6, VOCABULARY.encode("cube")[0], VOCABULARY.encode("256")[0]])
def test_a_token_that_is_no_bin_is_refused(token):
    with pytest.raises(UserError, match=str(token)):
        bins_of_tokens(VOCABULARY, np.array([VOCABULARY.integer_ids[3], token]))
