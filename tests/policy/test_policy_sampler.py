import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rt2_jax.errors import UserError
from rt2_jax.policy.choice import likeliest, truncate
from rt2_jax.policy.sampler import make_sampler
from rt2_jax.tokens import Vocabulary, action_text, bins_of_tokens
from rt2_jax.tokens.grammar import build_grammar, marker_tokens

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
MAX_LEN = 20
WARM = (("temperature", 1.0),)
HOT_BUT_TRUNCATED = (("temperature", 100.0), ("top_k", 5), ("top_p", 0.5))
MODES = ("text", "action", "plan", "end")
VOCABULARY = Vocabulary.load()
EOS = VOCABULARY.eos_id
ACTION_IDS = VOCABULARY.encode("1 128 91 241 5 101 127 217")
MARKER = marker_tokens(VOCABULARY)


@pytest.fixture(scope="module")
def run(parts):
    """run(params fields, modes, max_len, rng, **sampling) -> Samples as numpy; samplers are compiled once each."""
    fake = parts.make_fake(VOCABULARY.size)
    samplers = {}

    def call(script, modes, max_len=MAX_LEN, rng=0, sampling=(), **logits):
        key = (max_len, sampling)
        if key not in samplers:
            fits = tuple(mode for mode in MODES[:3] if parts.grammar.min_len(mode) <= max_len)
            samplers[key] = make_sampler(fake, parts.grammar, max_len, modes=fits, **dict(sampling))
        start = np.full(max(4, len(modes)), parts.grammar.end, np.int32)  # one size for all but one test
        start[: len(modes)] = [parts.grammar.end if mode == "end" else parts.grammar.start[mode] for mode in modes]
        images = np.zeros((len(start), 1, 8, 8, 3), np.uint8)
        prompt = np.ones((len(start), 4), np.int32)
        params = fake.params(padded([*script, *[[]] * (4 - len(script))]), **logits)
        samples = samplers[key](params, images, prompt, start, jax.random.key(rng))
        return jax.tree.map(lambda array: np.asarray(array)[: len(modes)], samples)

    return call


def padded(script, steps=64):
    return [[*row, *[EOS] * (steps - len(row))][:steps] for row in script]


def check(samples, modes, grammar):
    """Every row is a complete output of its mode, and is pad beyond its length."""
    for tokens, length, mode in zip(samples.tokens, samples.lengths, modes, strict=True):
        assert (tokens[length:] == 0).all()
        if mode == "end":
            assert length == 0
            continue
        assert tokens[length - 1] == EOS and (tokens[: length - 1] != EOS).all()
        assert grammar.accepts(tokens[:length], mode), (mode, tokens)
        if mode != "text":
            bins = bins_of_tokens(VOCABULARY, tokens[length - 9 : length - 1])
            assert bins[0] in (0, 1)


scripts = st.lists(
    st.lists(
        st.integers(0, VOCABULARY.size - 1) | st.sampled_from([EOS, *marker_tokens(VOCABULARY), *ACTION_IDS]),
        max_size=24,
    ),
    min_size=4,
    max_size=4,
)
batches = st.lists(st.sampled_from(MODES), min_size=4, max_size=4)
samplings = st.sampled_from([(), WARM, HOT_BUT_TRUNCATED])


@settings(PATIENT, max_examples=100)
@given(scripts, batches, samplings, st.integers(0, 2**30), st.sampled_from([0.0, 1.0, 1e4, 1e38]), st.integers(0, 3))
def test_no_logits_yield_an_invalid_output(run, parts, script, modes, sampling, seed, scale, poison):
    samples = run(script, modes, rng=seed, sampling=sampling, seed=seed, scale=scale, poison=poison)
    check(samples, modes, parts.grammar)
    live = np.array([mode != "end" for mode in modes])
    if poison == 2:
        assert np.isnan(samples.logprob[live]).all()  # valid tokens, but marked as meaning nothing
    assert (samples.logprob[~live] == 0).all()


@settings(PATIENT, max_examples=30)
@given(scripts, st.sampled_from([11, 12]), st.integers(0, 99))
def test_a_plan_is_forced_in_time(run, parts, script, max_len, seed):
    modes = ("plan", "action", "text", "plan")
    check(run(script, modes, max_len, seed=seed, scale=3.0), modes, parts.grammar)


def test_a_plan_that_wants_only_prose_is_led_to_its_action(run, parts):
    cube = VOCABULARY.encode("cube")
    samples = run([cube * 64], ["plan"])
    assert samples.lengths[0] == MAX_LEN
    marker = marker_tokens(VOCABULARY)
    prose = MAX_LEN - 9 - len(marker)
    assert samples.tokens[0, :prose].tolist() == cube * prose
    assert samples.tokens[0, prose : prose + len(marker)].tolist() == marker
    check(samples, ["plan"], parts.grammar)


def test_a_row_gets_what_its_model_wants_where_that_is_allowed(run, parts):
    plan = VOCABULARY.encode("Plan: pick red cube. Action:") + ACTION_IDS
    text = VOCABULARY.encode("a red cube <extra_id_0> 7 ü")
    samples = run([plan, ACTION_IDS, text, []], ["plan", "action", "text", "end"])
    for row, ids in enumerate((plan, ACTION_IDS, text)):
        assert samples.tokens[row, : samples.lengths[row]].tolist() == [*ids, EOS]
    check(samples, ["plan", "action", "text", "end"], parts.grammar)


def test_text_mode_can_say_every_text_token(run):
    tokens = np.flatnonzero(VOCABULARY.text_ids)
    rows = np.resize(tokens, (-(-len(tokens) // 19), 19))
    samples = run(rows.tolist(), ["text"] * len(rows))
    np.testing.assert_array_equal(samples.tokens[:, :19], rows)
    assert (samples.tokens[:, 19] == EOS).all()
    assert set(VOCABULARY.integer_ids) <= set(samples.tokens.ravel())


def test_text_mode_never_says_pad_unknown_or_an_unused_id(run):
    for token in (VOCABULARY.pad_id, VOCABULARY.unk_id, VOCABULARY.num_pieces, VOCABULARY.size - 1):
        samples = run([[token] * 64], ["text"], scale=0.1)
        assert VOCABULARY.text_ids[samples.tokens[0, : samples.lengths[0] - 1]].all()


def test_a_finished_row_waits_for_nobody_and_stays_pad(run):
    long = VOCABULARY.encode("cube") * 64
    samples = run([[EOS], long, ACTION_IDS, long], ["text", "text", "action", "end"])
    assert samples.lengths.tolist() == [1, MAX_LEN, 9, 0]
    assert samples.tokens[0].tolist() == [EOS] + [0] * (MAX_LEN - 1)
    assert samples.tokens[2].tolist() == [*ACTION_IDS, EOS] + [0] * (MAX_LEN - 9)
    assert not samples.tokens[3].any()


@settings(PATIENT, max_examples=20)
@given(scripts, st.integers(0, 99))
def test_a_row_does_not_depend_on_its_company(run, script, seed):
    fields = {"sampling": WARM, "rng": seed, "scale": 3.0, "seed": seed}
    together = run(script, ["plan", "text", "action", "text"], **fields)
    alone = run(script[:2], ["plan", "text"], **fields)
    np.testing.assert_array_equal(together.tokens[:2], alone.tokens)
    np.testing.assert_allclose(together.logprob[:2], alone.logprob, rtol=1e-5)


def test_the_model_is_called_no_more_than_needed(parts):
    """An action costs one prefill and seven steps, its EOS none; nobody waits for a finished or a padding row.

    Where all rows are in their actions, the model is asked for the integers alone.
    """
    calls, prefills, vocabulary = [], [], VOCABULARY.size

    class Counting(parts.make_fake):
        def decode_step(self, params, cache, token, index, *, ids):
            jax.debug.callback(lambda _: calls.append(vocabulary if ids is None else len(ids)), index)
            return super().decode_step(params, cache, token, index, ids=ids)

        def prefill(self, params, images, prompt, max_len, *, ids):
            prefills.append(vocabulary if ids is None else len(ids))
            return super().prefill(params, images, prompt, max_len, ids=ids)

    fake = Counting(VOCABULARY.size)
    sampler = make_sampler(fake, parts.grammar, MAX_LEN)
    starts = {**parts.grammar.start, "end": parts.grammar.end}
    for modes, expected in (
        (("action", "action"), [256] * 7),
        (("end", "end"), []),
        (("text", "text"), []),
        (("action", "end"), [256] * 7),
        # The plan is the marker alone: once that is said, all rows are in their actions.
        (("plan", "action"), [vocabulary] * (len(MARKER) - 1) + [256] * 8),
    ):
        start = np.array([starts[mode] for mode in modes], np.int32)
        images, prompt = np.zeros((2, 1, 8, 8, 3), np.uint8), np.ones((2, 4), np.int32)
        script = padded([[*MARKER, EOS]] if "plan" in modes else [[EOS]])
        jax.block_until_ready(sampler(fake.params(script), images, prompt, start, jax.random.key(0)))
        jax.effects_barrier()
        assert calls == expected, modes
        calls.clear()
    assert prefills == [vocabulary]  # in the traced program, so outside its loop


def test_a_program_of_actions_asks_for_integers_alone_and_never_for_their_eos(parts):
    asked = []

    class Asked(parts.make_fake):
        def decode_step(self, params, cache, token, index, *, ids):
            jax.debug.callback(lambda _: asked.append(ids.tolist()), index)
            return super().decode_step(params, cache, token, index, ids=ids)

        def prefill(self, params, images, prompt, max_len, *, ids):
            asked.append(ids.tolist())
            return super().prefill(params, images, prompt, max_len, ids=ids)

    fake = Asked(VOCABULARY.size)
    sampler = make_sampler(fake, parts.grammar, 9, modes=("action",))
    start = np.array([parts.grammar.start["action"], parts.grammar.end, parts.grammar.start["text"]], np.int32)
    images, prompt = np.zeros((3, 1, 8, 8, 3), np.uint8), np.ones((3, 4), np.int32)
    samples = sampler(fake.params(padded([ACTION_IDS] * 3)), images, prompt, start, jax.random.key(0))
    jax.effects_barrier()
    assert asked == [sorted(VOCABULARY.integer_ids)] * 8
    assert samples.tokens[0].tolist() == [*ACTION_IDS, EOS]
    assert samples.lengths.tolist() == [9, 0, 0]  # a row of another mode is padding


def test_robots_of_several_kinds_share_a_program(parts):
    """Answers of other lengths and with other integers; each row's own, whoever stands beside it."""
    narrow = np.zeros((3, 256), bool)
    narrow[:, 10:20] = True
    grammar = build_grammar(VOCABULARY, {"arm": parts.bins.allowed, "pusher": narrow})
    fake = parts.make_fake(VOCABULARY.size)
    modes = ("action:arm", "action:pusher")
    sampler = make_sampler(fake, grammar, 9, modes=modes)
    start = np.array([grammar.start[modes[1]], grammar.start[modes[0]], grammar.end, grammar.start[modes[1]]], np.int32)
    images, prompt = np.zeros((4, 1, 8, 8, 3), np.uint8), np.ones((4, 4), np.int32)
    script = padded([VOCABULARY.encode("12 19 10"), ACTION_IDS, [], ACTION_IDS])
    samples = sampler(fake.params(script), images, prompt, start, jax.random.key(0))
    assert samples.lengths.tolist() == [4, 9, 0, 4]
    assert samples.tokens[0, :4].tolist() == [*script[0][:3], EOS]
    assert samples.tokens[1].tolist() == [*ACTION_IDS, EOS]
    for row, mode in ((0, modes[1]), (1, modes[0]), (3, modes[1])):
        assert grammar.accepts(samples.tokens[row].tolist(), mode)


def test_confidence_and_entropy_are_of_the_allowed_tokens(run):
    """Uniform logits: one of 2, then seven times one of 256. A peak of 10 among 256: nearly sure, nearly no entropy."""
    samples = run([[0] * 64], ["action"])
    np.testing.assert_allclose(samples.token_logprob[0, :8], [-np.log(2)] + [-np.log(256)] * 7, rtol=1e-5)
    np.testing.assert_allclose(samples.entropy[0, :8], [np.log(2)] + [np.log(256)] * 7, rtol=1e-5)
    assert not samples.token_logprob[0, 8:].any() and not samples.entropy[0, 8:].any()
    samples = run([ACTION_IDS], ["action"])
    odds = np.exp([10.0] + [0.0] * 255)
    chance = odds / odds.sum()
    np.testing.assert_allclose(samples.token_logprob[0, 1:8], np.log(chance[0]), rtol=1e-4)
    np.testing.assert_allclose(samples.entropy[0, 1:8], -(chance * np.log(chance)).sum(), rtol=1e-4)
    np.testing.assert_allclose(samples.logprob, samples.token_logprob.sum(1), rtol=1e-5)


def test_the_likeliest_of_several_answers_is_given(run, parts):
    """At a temperature that makes every bin as likely as the model's own, one of 256 draws mostly has it."""
    script, hot = [VOCABULARY.encode("1 3")] * 4, (("temperature", 5.0),)
    one = [run(script, ["action"] * 4, sampling=hot, rng=rng) for rng in range(8)]
    best = [run(script, ["action"] * 4, sampling=(*hot, ("best_of", 64)), rng=rng) for rng in range(8)]
    assert np.mean([samples.logprob for samples in best]) > np.mean([samples.logprob for samples in one]) + 5
    for samples in best:
        check(samples, ["action"] * 4, parts.grammar)
        np.testing.assert_allclose(samples.logprob, samples.token_logprob.sum(1), rtol=1e-5)


def test_the_best_of_several_plans_is_whole(run, parts):
    samples = run([[]] * 4, ["plan", "action", "text", "end"], sampling=(*WARM, ("best_of", 4)), scale=3.0)
    check(samples, ["plan", "action", "text", "end"], parts.grammar)


def test_of_equal_numbers_the_first_is_likeliest():
    x = jnp.array([[0.0, 2.0, 2.0], [-1e30, -1e30, -1e30], [3.0, 1.0, 2.0]])
    assert likeliest(x).tolist() == jnp.argmax(x, axis=-1).tolist() == [1, 0, 0]


def test_logprob_is_under_the_constrained_distribution(run):
    # Uniform logits: 2 allowed first tokens, then seven times 256, then EOS for certain.
    samples = run([[0] * 64], ["action"])
    np.testing.assert_allclose(samples.logprob[0], -np.log(2) - 7 * np.log(256), rtol=1e-5)
    # One token at logit 10 among `text` tokens and EOS at 0.
    others = int(VOCABULARY.text_ids.sum())
    cube = VOCABULARY.encode("cube")[0]
    samples = run([[cube, EOS]], ["text"])
    np.testing.assert_allclose(samples.logprob[0], 2 * (10 - np.log(np.exp(10) + others)), rtol=1e-4)


def test_temperature_spreads_and_truncation_narrows(run):
    """Of 256 allowed bins the model gives bin 3 e^5 times the odds of each other: 37 percent."""
    script = [VOCABULARY.encode("1 3")] * 4
    drawn = []
    for sampling, peak in ((WARM, 5.0), (HOT_BUT_TRUNCATED, 500.0)):
        batches = [run(script, ["action"] * 4, sampling=sampling, peak=peak, rng=rng) for rng in range(16)]
        drawn.append(bins_of_tokens(VOCABULARY, np.concatenate([samples.tokens[:, 1] for samples in batches])))
    assert 0.15 < (drawn[0] == 3).mean() < 0.6 and len(set(drawn[0].tolist())) > 15
    assert (drawn[1] == 3).all()  # of five tokens it has 97 percent, and half is enough


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [(1, 1.0, 1), (3, 1.0, 3), (9, 1.0, 4), (0, 0.39, 1), (0, 0.41, 2), (0, 0.95, 4), (2, 0.6, 2)],
)
def test_truncation_keeps_the_likeliest(top_k, top_p, kept):
    probability = np.array([[0.1, 0.4, 0.2, 0.3]], np.float32)
    left = np.asarray(truncate(jnp.log(probability), top_k, top_p)) > -1e20
    assert left[0, np.argsort(-probability[0])].tolist() == [True] * kept + [False] * (4 - kept)


def test_of_equal_logits_exactly_k_stay():
    left = np.asarray(truncate(jnp.zeros((2, 9)), 4, 1.0)) == 0
    assert left.tolist() == [[True] * 4 + [False] * 5] * 2


def test_draws_follow_the_key(run):
    draws = [run([[0]] * 4, ["action"] * 4, rng=rng, sampling=WARM).tokens for rng in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any() and (draws[0][0] != draws[0][1]).any()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": 1e-9}, "temperature is 1e-09"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"best_of": 0, "temperature": 1.0}, "best_of is 0"),
        ({"best_of": 2}, "best_of is 2 at temperature 0"),
        ({"max_len": 10}, "max_len is 10, mode 'plan' needs at least 11"),
        ({"max_len": 8, "modes": ("action",)}, "max_len is 8, mode 'action' needs at least 9"),
        ({"max_len": 0, "modes": ("text",)}, "max_len is 0"),
        ({"modes": ("dance",)}, "'dance'"),
    ],
)
def test_bad_settings_are_refused(parts, arguments, named):
    with pytest.raises(UserError, match=named):
        make_sampler(parts.make_fake(VOCABULARY.size), parts.grammar, **{"max_len": 20, **arguments})


def test_a_model_of_another_vocabulary_size_is_refused(parts):
    fake = parts.make_fake(VOCABULARY.size + 128)
    sampler = make_sampler(fake, parts.grammar, 9, modes=("action",))
    with pytest.raises(UserError, match="the model has 2432 tokens, the vocabulary 2304"):
        sampler(
            fake.params(padded([[EOS]])),
            jnp.zeros((1, 1, 8, 8, 3), jnp.uint8),
            jnp.ones((1, 4), jnp.int32),
            jnp.array([parts.grammar.start["action"]]),
            jax.random.key(0),
        )


def test_a_row_that_cannot_fit_stays_within_the_grammar(run, parts):
    samples = run([ACTION_IDS], ["action"], max_len=5)
    assert samples.tokens[0].tolist() == ACTION_IDS[:5] and samples.lengths[0] == 5


def test_action_string_of_the_paper(run):
    samples = run([ACTION_IDS], ["action"])
    assert VOCABULARY.decode(samples.tokens[0]) == action_text(VOCABULARY, [1, 128, 91, 241, 5, 101, 127, 217])
