import functools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rt2_jax.actions import ARM, ActionBins, ActionSpace, Embodiment
from rt2_jax.errors import UserError
from rt2_jax.inputs.prompts import plan_target
from rt2_jax.tokens import Vocabulary, action_text, build_grammar
from rt2_jax.tokens.grammar import FORBIDDEN, marker_tokens, mode_of, text_grammar
from rt2_jax.tokens.train_vocabulary import train_vocabulary

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
VOCABULARY = Vocabulary.load()
ALLOWED = ActionBins(ARM).allowed
GRAMMAR = build_grammar(VOCABULARY, ALLOWED)
EOS = VOCABULARY.eos_id
PLAIN_TEXT = np.flatnonzero(VOCABULARY.text_ids)
ACTION = [1, 128, 91, 241, 5, 101, 127, 217]
spelt = functools.partial(action_text, VOCABULARY)
ACTION_IDS = VOCABULARY.encode(spelt(ACTION))

bins_strategy = st.tuples(st.integers(0, 1), *[st.integers(0, 255)] * 7)
text_strategy = st.lists(st.sampled_from(PLAIN_TEXT.tolist()), max_size=30)


class ToyVocabulary:
    """A vocabulary of letters: integers are tokens 10 and up, and ``Action:`` is `marker`."""

    path, size, pad_id, eos_id, unk_id = "toy", 128, 0, 1, 2
    integer_ids = np.arange(10, 14, dtype=np.int32)
    integer_words = ("0", "1", "2", "3")
    text_ids = (np.arange(128) >= 3) & (np.arange(128) < 20)

    def __init__(self, marker):
        self.marker = marker

    def encode(self, text):
        before, found, after = text.partition("Action:")
        ids = [3] * len(before.split())
        return ids + self.marker * bool(found) + [10 + int(word) for word in after.split()]


def steps(grammar, tokens, mode):
    state = grammar.start[mode]
    for token in tokens:
        state = int(grammar.next_state[state, grammar.token_class[token]])
        if state == FORBIDDEN:
            return FORBIDDEN
    return state


def test_table_is_small_and_numpy():
    assert GRAMMAR.token_class.shape == (VOCABULARY.size,) and GRAMMAR.next_state.shape[0] <= 16
    assert GRAMMAR.next_state.shape[1] <= 8
    assert {array.dtype for array in (GRAMMAR.token_class, GRAMMAR.next_state, GRAMMAR.steps_to_end)} == {
        np.dtype("int32")
    }


@PATIENT
@given(bins_strategy)
def test_every_valid_action_is_accepted(bins):
    ids = VOCABULARY.encode(spelt(bins))
    assert GRAMMAR.accepts([*ids, EOS, 0, 0], "action")
    assert GRAMMAR.accepts([*VOCABULARY.encode(plan_target("pick red cube", spelt(bins))), EOS], "plan")
    assert GRAMMAR.accepts([*ids, EOS], "text")


@PATIENT
@given(st.integers(0, 8), st.integers(0, VOCABULARY.size - 1))
def test_in_action_mode_one_wrong_token_is_refused(position, token):
    ids = [*ACTION_IDS, EOS]
    ids[position] = token
    valid = (
        token == EOS
        if position == 8
        else token in VOCABULARY.integer_ids[:2]
        if position == 0
        else token in VOCABULARY.integer_ids
    )
    assert GRAMMAR.accepts(ids, "action") == valid


@pytest.mark.parametrize("ids", [[], ACTION_IDS, [*ACTION_IDS[:7], EOS], [*ACTION_IDS, ACTION_IDS[0], EOS], [EOS]])
def test_an_incomplete_or_overlong_action_is_refused(ids):
    assert not GRAMMAR.accepts(ids, "action")
    assert not GRAMMAR.accepts([*VOCABULARY.encode("Plan: x. Action:"), *ids], "plan")


@PATIENT
@given(text_strategy)
def test_text_takes_every_text_token_and_no_other(tokens):
    assert GRAMMAR.accepts([*tokens, EOS], "text")
    assert not GRAMMAR.accepts(tokens, "text")
    for bad in (VOCABULARY.pad_id, VOCABULARY.unk_id, VOCABULARY.size - 1):
        assert steps(GRAMMAR, [*tokens, bad], "text") == FORBIDDEN


@PATIENT
@given(text_strategy, bins_strategy)
def test_a_plan_ends_only_after_its_action(tokens, bins):
    marker = marker_tokens(VOCABULARY)
    found = any(tokens[i : i + len(marker)] == marker for i in range(len(tokens)))
    if not found:
        assert not GRAMMAR.accepts([*tokens, EOS], "plan")
        assert GRAMMAR.accepts([*tokens, *marker, *VOCABULARY.encode(spelt(bins)), EOS], "plan")


def test_only_the_canonical_marker_starts_an_action():
    spelled = [token for char in "Action:" for token in VOCABULARY.encode(char)[-1:]]
    assert spelled != marker_tokens(VOCABULARY)
    ids = [*VOCABULARY.encode("go"), *spelled, *ACTION_IDS]
    assert not GRAMMAR.accepts([*ids, EOS], "plan")
    assert steps(GRAMMAR, ids, "plan") == GRAMMAR.start["plan"]  # still free text
    # Integers and more prose after the other spelling do no harm; the real marker may still come.
    assert GRAMMAR.accepts([*ids, *VOCABULARY.encode("cube Action:"), *ACTION_IDS, EOS], "plan")


@PATIENT
@given(st.lists(st.integers(0, 1), min_size=1, max_size=5), st.lists(st.integers(0, 2), max_size=20))
def test_the_marker_is_found_wherever_it_overlaps_itself(pattern, seen):
    marker = [5 + letter for letter in pattern]
    grammar = build_grammar(ToyVocabulary(marker), np.ones((2, 4), bool))
    state, action = grammar.start["plan"], grammar.start["action"]
    for count in range(1, len(seen) + 1):
        state = int(grammar.next_state[state, grammar.token_class[5 + seen[count - 1]]])
        if [5 + letter for letter in seen[:count]][-len(marker) :] == marker:
            assert state == action
            return
        assert state not in (action, FORBIDDEN)


def test_a_marker_that_contains_an_integer():
    grammar = build_grammar(ToyVocabulary([5, 11]), np.ones((2, 4), bool))
    assert grammar.accepts([11, 5, 5, 11, 11, 11, 1], "plan")
    assert not grammar.accepts([5, 11, 5, 11, 1], "plan")


def test_steps_to_end():
    marker = len(marker_tokens(VOCABULARY))
    assert [GRAMMAR.min_len(mode) for mode in ("text", "action", "plan")] == [1, 9, 9 + marker]
    assert GRAMMAR.steps_to_end[GRAMMAR.end] == 0
    for state in range(len(GRAMMAR.next_state)):
        if state != GRAMMAR.end:
            after = GRAMMAR.next_state[state][GRAMMAR.next_state[state] != FORBIDDEN]
            assert GRAMMAR.steps_to_end[state] == 1 + GRAMMAR.steps_to_end[after].min()
    assert np.flatnonzero(GRAMMAR.ends_next).tolist() == [steps(GRAMMAR, ACTION_IDS, "action")]


def test_other_terminate_bins():
    grammar = build_grammar(VOCABULARY, ActionBins(ARM, continue_token=7, terminate_token=200).allowed)
    for first, valid in ((7, True), (200, True), (1, False), (0, False)):
        assert grammar.accepts([*VOCABULARY.encode(spelt([first, *ACTION[1:]])), EOS], "action") == valid
    assert grammar.sha256 != GRAMMAR.sha256
    assert build_grammar(VOCABULARY, ALLOWED).sha256 == GRAMMAR.sha256


def test_fewer_bins_bound_the_integers():
    grammar = build_grammar(VOCABULARY, ActionBins(ARM, num_bins=16).allowed)
    assert grammar.accepts([*VOCABULARY.encode(spelt([1, *[15] * 7])), EOS], "action")
    assert not grammar.accepts([*VOCABULARY.encode(spelt([1, *[16] * 7])), EOS], "action")


def test_unknown_mode():
    with pytest.raises(UserError, match="'dance'.*text, action, plan"):
        GRAMMAR.start_state("dance")


@pytest.mark.parametrize("allowed", [np.ones(8, bool), np.ones((8, 257), bool), np.zeros((8, 256), bool)])
def test_impossible_bins(allowed):
    with pytest.raises(ValueError, match="allowed is"):
        build_grammar(VOCABULARY, allowed)


def test_a_marker_that_depends_on_its_context_is_refused():
    class Shifting(ToyVocabulary):
        def encode(self, text):
            return super().encode(text.replace("7. Action:", "Action:"))

    with pytest.raises(UserError, match="'Action:' has other tokens after '7.'"):
        build_grammar(Shifting([5]), np.ones((2, 4), bool))


def test_a_vocabulary_that_never_saw_the_marker_spells_it(tmp_path):
    vocabulary = train_vocabulary(["pick red cube"] * 8, tmp_path / "small.model", num_words=32)
    assert len(marker_tokens(vocabulary)) > 2
    grammar = build_grammar(vocabulary, ALLOWED)
    ids = vocabulary.encode(plan_target("pick red cube", action_text(vocabulary, ACTION)))
    assert grammar.accepts([*ids, EOS], "plan")


def test_text_alone():
    """A model that knows no actions: any text, then EOS, as the whole grammar's text mode has it."""
    alone = text_grammar(VOCABULARY)
    assert set(alone.start) == {"text"} and alone.min_len("text") == 1
    words = VOCABULARY.encode("a red cube at 140 110")
    for tokens in ([*words, EOS], [EOS], words, [*words, 0, EOS], [VOCABULARY.size - 1, EOS], [2, EOS]):
        assert alone.accepts(tokens, "text") == GRAMMAR.accepts(tokens, "text"), tokens


PUSHER_SPACE = ActionSpace(("dx", "dy"), (-0.1, -0.1), (0.1, 0.1), ("m", "m"))
ROBOTS = {
    "pusher": Embodiment("pusher", ActionBins(PUSHER_SPACE, num_bins=21, first=100), chunk=3),
    "arm": Embodiment("arm", ActionBins(ARM)),
}
BOTH = build_grammar(VOCABULARY, {name: robot.allowed for name, robot in ROBOTS.items()})


@PATIENT
@given(bins_strategy, st.lists(st.integers(100, 120), min_size=6, max_size=6))
def test_each_embodiment_has_modes_of_its_own(arm, pusher):
    for name, bins, other in (("arm", arm, "pusher"), ("pusher", pusher, "arm")):
        ids = VOCABULARY.encode(spelt(bins))
        plan = VOCABULARY.encode(plan_target("push it", spelt(bins)))
        assert BOTH.accepts([*ids, EOS], f"action:{name}") and BOTH.accepts([*plan, EOS], f"plan:{name}")
        assert not BOTH.accepts([*ids, EOS], f"action:{other}") and not BOTH.accepts([*plan, EOS], f"plan:{other}")


def test_the_grammar_of_one_embodiment_is_the_one_it_was_and_of_several_does_not_hang_on_their_order():
    assert build_grammar(VOCABULARY, {"arm": ALLOWED}).sha256 == GRAMMAR.sha256
    # That of the bundles that shipped before there were several.
    assert GRAMMAR.sha256 == "ef30e0bfec19ecf69cf9ee7a36acba59a4c03f637c1b24148cf0e90a19695364"
    turned = build_grammar(VOCABULARY, {name: robot.allowed for name, robot in reversed(ROBOTS.items())})
    assert turned.sha256 == BOTH.sha256
    assert set(BOTH.start) == {"text", "action:arm", "plan:arm", "action:pusher", "plan:pusher"}
    assert (BOTH.min_len("action:pusher"), BOTH.min_len("action:arm")) == (7, 9)
    assert BOTH.next_state.shape[1] <= 10 and [mode_of("plan", ["a"], "a"), mode_of("plan", "ab", "a")] == [
        "plan",
        "plan:a",
    ]


def test_what_is_settled_is_an_action_and_its_end():
    """From there on an answer's length does not depend on what is said; in text and in a plan's text it does."""
    for name, mode in (("action:arm", 9), ("action:pusher", 7)):
        state, steps = BOTH.start[name], []
        while state != BOTH.end:
            assert BOTH.settled[state]
            steps.append(state)
            state = BOTH.next_state[state].max()
        assert len(steps) == mode and set(np.flatnonzero(BOTH.reached([BOTH.start[name]]))) == {*steps, BOTH.end}
    assert BOTH.settled.sum() == 9 + 7 + 1
    for name in ("text", "plan:arm", "plan:pusher"):
        assert not BOTH.settled[BOTH.start[name]]
    assert BOTH.reached([BOTH.start["plan:arm"]])[BOTH.start["action:arm"]]
    assert not BOTH.reached([BOTH.start["plan:arm"]])[BOTH.start["action:pusher"]]
