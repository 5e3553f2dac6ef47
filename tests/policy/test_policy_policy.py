import copy
import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax._src import monitoring

from rt2_jax.actions import ARM, ActionBins, ActionSpace, Embodiment
from rt2_jax.bundle.spec import grammar_of
from rt2_jax.errors import UserError
from rt2_jax.inputs.prompts import plan_target, robot_prompt
from rt2_jax.models import EncoderDecoderConfig, ModelConfig, PrefixLmConfig, VitConfig, make_backbone
from rt2_jax.policy import policy as policy_module
from rt2_jax.policy.policy import Policy
from rt2_jax.tokens import Vocabulary

VOCABULARY = Vocabulary.load()
EOS = VOCABULARY.eos_id
ACTION = [1, 128, 91, 241, 5, 101, 127, 217]
ACTION_TEXT = "1 128 91 241 5 101 127 217"
COMPILED = "/jax/core/compile/backend_compile_duration"
SIDE = 16  # of the real model's frames
IMAGES = np.zeros((3, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """`make_sampler` memoised: equal samplers of equal models are compiled once in this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_module, "make_sampler", functools.cache(policy_module.make_sampler))
        yield


@functools.cache
def make_fake(make, num_images):
    return make(VOCABULARY.size, num_images)


def make_policy(parts, text, num_images=1, **settings):
    """A policy whose model always wants to say `text`."""
    fake = make_fake(parts.make_fake, num_images)
    script = (VOCABULARY.encode(text) + [EOS] * 40)[:40]
    fields = {"image_size": 8, "prompt_len": 32, "plan_len": 32} | settings
    poison = fields.pop("poison", 0)
    robots = {name: dataclasses.replace(one, history=num_images) for name, one in parts.embodiments.items()}
    return Policy(fake, fake.params([script], poison=poison), VOCABULARY, robots, parts.grammar, **fields)


@pytest.fixture(scope="module")
def policy(parts):
    return make_policy(parts, ACTION_TEXT)


def test_action(policy, parts):
    output = policy.act(IMAGES, ["pick red cube"] * 3)
    np.testing.assert_array_equal(output.bins, [ACTION] * 3)
    assert output.bins.dtype == np.int32 and output.actions.dtype == np.float32
    np.testing.assert_array_equal(output.actions, parts.bins.decode(np.array([ACTION] * 3)))
    assert output.text == [ACTION_TEXT] * 3 and output.logprob.shape == (3,) and (output.logprob < 0).all()


def test_plan(parts):
    text = plan_target("pick red cube", ACTION_TEXT)
    output = make_policy(parts, text).act(IMAGES, ["I'm hungry", "b", "c"], mode="plan")
    np.testing.assert_array_equal(output.bins, [ACTION] * 3)
    assert output.text == [text] * 3


def test_answer_is_free_text(parts):
    policy = make_policy(parts, "2 red cubes")
    assert policy.answer(IMAGES[:2], ["Answer in en: how many?", "x"], max_len=8) == ["2 red cubes"] * 2
    assert policy.answer(IMAGES[:2], ["x", "y"], max_len=3) == ["2 red"] * 2  # EOS within max_len


def test_the_model_sees_the_training_prompt_and_resized_frames(parts, monkeypatch):
    policy = make_policy(parts, ACTION_TEXT)
    seen = []
    inner = policy._sampler("action", 9)
    monkeypatch.setattr(policy, "_sampler", lambda *_: lambda *arguments: seen.append(arguments) or inner(*arguments))
    images = np.zeros((3, 16, 24, 3), np.uint8)
    images[1] = 200
    policy.act(images, ["pick red cube", "push blue ball left", "x"])
    _, frames, prompt, start, _ = seen[0]
    assert frames.shape == (4, 1, 8, 8, 3) and frames.dtype == np.uint8 and (frames[1] == 200).all()
    ids = VOCABULARY.encode(robot_prompt("pick red cube"))
    assert prompt.shape == (4, 32) and prompt[0].tolist() == ids + [0] * (32 - len(ids))
    assert start.tolist() == [parts.grammar.start["action"]] * 3 + [parts.grammar.end]


def test_batches_are_padded_to_powers_of_two(parts):
    policy = make_policy(parts, ACTION_TEXT)
    sampler = policy._sampler("action", 9)
    sampler.clear_cache()
    for count in (3, 4, 3, 4):
        output = policy.act(np.zeros((count, 8, 8, 3), np.uint8), ["pick"] * count)
        assert output.bins.shape == (count, 8)
    assert sampler._cache_size() == 1


def test_a_warm_policy_compiles_nothing(real_policy):
    """Whatever the batch, the mode or the words: after `warm_up` no program is made any more."""
    compiled = []

    def listen(event, *_, **__):
        compiled.append(event)

    policy = copy.copy(real_policy)
    policy._samplers = {}
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with jax.log_compiles(False):
            policy.warm_up([1, 3], modes=("action", "plan"))
            assert COMPILED in compiled
            compiled.clear()
            for count, mode in ((1, "action"), (3, "action"), (4, "plan"), (1, "plan"), (4, "action")):
                images = np.full((count, SIDE + count, SIDE, 3), count, np.uint8)
                policy.act(images, [f"pick {count}"] * count, mode=mode)
            assert COMPILED not in compiled
            policy.act(np.zeros((2, SIDE, SIDE, 3), np.uint8), ["a", "b"])
            assert COMPILED in compiled  # two rows were not asked for
    finally:
        monitoring.unregister_event_duration_listener(listen)


def test_what_cannot_be_warmed_up_is_named(policy):
    for arguments, named in (
        (([0],), "batch size 0"),
        (([1], ("text",)), "'text' is unknown"),
        (([1], ("action",), ("hand",)), "'hand' is unknown"),
    ):
        with pytest.raises(UserError, match=named):
            policy.warm_up(*arguments)


def test_confidence_is_of_the_actions_own_integers(parts):
    """In plan mode too, where tokens of text stand before them."""
    for mode, text in (("action", ACTION_TEXT), ("plan", plan_target("pick red cube", ACTION_TEXT))):
        output = make_policy(parts, text).act(IMAGES, ["pick red cube"] * 3, mode=mode)
        assert output.confidence.shape == output.entropy.shape == (3, 1, 8)
        np.testing.assert_allclose(output.confidence[:, 0, 1:], np.log(np.exp(10) / (np.exp(10) + 255)), rtol=1e-4)
        np.testing.assert_allclose(output.confidence[:, 0, 0], np.log(np.exp(10) / (np.exp(10) + 1)), rtol=1e-2)
        assert (output.entropy > 0).all() and (output.entropy < 0.2).all()
        assert (output.logprob <= output.confidence.sum((1, 2)) + 1e-6).all()


def test_the_best_of_several_actions(parts):
    with pytest.raises(UserError, match="best_of is 4 at temperature 0"):
        make_policy(parts, ACTION_TEXT, best_of=4)
    one, best = (make_policy(parts, ACTION_TEXT, temperature=4.0, best_of=number) for number in (1, 32))
    outputs = [policy.act(IMAGES, ["pick"] * 3, rng=jax.random.key(0)) for policy in (one, best)]
    assert outputs[1].logprob.mean() > outputs[0].logprob.mean()
    assert parts.bins.allowed[np.arange(8), outputs[1].bins].all()


def test_several_frames_a_row(parts):
    policy = make_policy(parts, ACTION_TEXT, num_images=2)
    assert policy.act(np.zeros((3, 2, 8, 8, 3), np.uint8), ["pick"] * 3).bins.tolist() == [ACTION] * 3
    with pytest.raises(UserError, match="1 a row, the model takes 2"):
        policy.act(IMAGES, ["pick"] * 3)


@pytest.mark.parametrize(
    ("images", "texts", "named"),
    [
        (IMAGES.astype(np.float32), ["a"] * 3, "float32.*uint8"),
        (IMAGES[0], ["a"], "add an axis"),
        (IMAGES.tolist(), ["a"] * 3, "list"),
        (IMAGES[..., :1], ["a"] * 3, "RGB"),
        (IMAGES.transpose(0, 3, 1, 2), ["a"] * 3, "channels last"),
        (IMAGES[:, :0], ["a"] * 3, "no pixel"),
        (IMAGES, ["a"] * 2, "3 images for 2 texts"),
        (IMAGES[:0], [], "at least one"),
        (IMAGES, ["a", "", "b"], "empty"),
        (IMAGES, ["a", " \n", "b"], "empty"),
        (IMAGES, "abc", "single text 'abc'"),
        (IMAGES, ["a", 7, "b"], "int|7"),
        (IMAGES, ["red " * 40] * 3, "the limit is 32"),
        (IMAGES, ["a", "red \udcff cube", "b"], "not UTF-8 at character 4"),
        (IMAGES, ["a", "\ud83d", "b"], "not UTF-8"),
        (IMAGES, ["a", "x" * 100_001, "b"], "has 100,001 characters, at most 100,000"),
        (IMAGES, ["a", b"red", "b"], "bytes, needs text"),
        (IMAGES, ["a", None, "b"], "NoneType, needs text"),
    ],
)
def test_mistakes_are_named(policy, images, texts, named):
    with pytest.raises(UserError, match=named):
        policy.act(images, texts)
    with pytest.raises(UserError, match=named):
        policy.answer(images, texts, max_len=8)


def test_bad_modes_and_lengths_are_refused(policy, parts):
    with pytest.raises(UserError, match="'text' is unknown; choose one of action, plan"):
        policy.act(IMAGES, ["a"] * 3, mode="text")
    with pytest.raises(UserError, match="max_len is 0"):
        policy.answer(IMAGES, ["a"] * 3, max_len=0)
    with pytest.raises(UserError, match="max_len is 10, mode 'plan'"):
        make_policy(parts, "", plan_len=10)


def test_parts_that_do_not_belong_together_are_refused(parts, tmp_path):
    fake = parts.make_fake(VOCABULARY.size)
    toy = type("Toy", (), {"size": 128})()
    with pytest.raises(UserError, match="grammar is of 2304 tokens"):
        Policy(fake, {}, toy, parts.embodiments, parts.grammar, image_size=8, prompt_len=8)


def test_bins_whose_terminate_differs_from_the_grammars_are_refused(parts):
    fake = parts.make_fake(VOCABULARY.size)
    robots = {"arm": Embodiment("arm", ActionBins(ARM, continue_token=7))}
    with pytest.raises(UserError, match="grammar"):
        Policy(fake, {}, VOCABULARY, robots, parts.grammar, image_size=8, prompt_len=8)


def test_logits_that_are_not_numbers_are_refused(parts):
    with pytest.raises(FloatingPointError, match="row 0"):
        make_policy(parts, ACTION_TEXT, poison=2).act(IMAGES, ["pick"] * 3)


def test_sampling_needs_a_key_and_follows_it(parts):
    policy = make_policy(parts, ACTION_TEXT, temperature=50.0)
    with pytest.raises(UserError, match="rng"):
        policy.act(IMAGES, ["pick"] * 3)
    draws = [policy.act(IMAGES, ["pick"] * 3, rng=jax.random.key(seed)).bins for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


TEXTS = {
    "pali": EncoderDecoderConfig(width=32, encoder_layers=1, decoder_layers=1, heads=2, head_dim=16, mlp=64),
    "palm_e": PrefixLmConfig(width=32, layers=2, heads=2, kv_heads=1, head_dim=16, mlp=64),
}


@pytest.fixture(scope="module", params=TEXTS)
def real_policy(parts, request):
    config = ModelConfig(
        name="toy",
        vision=VitConfig(patch_size=SIDE // 2, width=32, layers=1, heads=2, head_dim=16, mlp=64),
        text=TEXTS[request.param],
        image_size=SIDE,
        vocab_size=VOCABULARY.size,
    )
    backbone = make_backbone(config)
    # Any weights will do, and drawing them here spares compiling `init`.
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), shapes)
    return Policy(
        backbone, params, VOCABULARY, parts.embodiments, parts.grammar, image_size=SIDE, prompt_len=24, plan_len=20
    )


def test_an_untrained_model_acts_validly(real_policy):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    output = real_policy.act(images, ["pick red cube", "push blue ball left", "a", "b"], mode="plan")
    assert np.isfinite(output.actions).all() and set(output.bins[:, 0].tolist()) <= {0, 1}
    for text, bins in zip(output.text, output.bins, strict=True):
        assert text.split("Action: ")[-1].split() == [str(value) for value in bins]


def test_cached_decoding_is_the_argmax_of_teacher_forced_logits(real_policy, parts):
    """The sampler's loop and the training forward pass agree token for token under the grammar."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (4, 1, SIDE, SIDE, 3), np.uint8)
    prompt = rng.integers(3, VOCABULARY.num_pieces, (4, 24)).astype(np.int32)
    start = np.full(4, parts.grammar.start["action"], np.int32)
    sampler = real_policy._sampler("action", 9)
    samples = sampler(real_policy.params, images, prompt, start, jax.random.key(0))
    logits = np.asarray(jax.jit(real_policy.backbone.logits)(real_policy.params, images, prompt, samples.tokens))
    tokens = np.asarray(samples.tokens)
    total = np.zeros(4)
    for position in range(8):
        candidates = VOCABULARY.integer_ids[np.flatnonzero(parts.bins.allowed[position])]
        allowed = logits[:, position, candidates]
        np.testing.assert_array_equal(candidates[allowed.argmax(1)], tokens[:, position])
        total += allowed.max(1) - np.log(np.exp(allowed).sum(1))
    np.testing.assert_allclose(samples.logprob, total, rtol=1e-3, atol=1e-3)
    assert (tokens[:, 8] == EOS).all()


SPACE = ActionSpace(("dx", "dy"), (-0.1, -0.1), (0.1, 0.1), ("m", "m"))
STATE = ActionBins(ActionSpace(("x", "y"), (0.0, 0.0), (1.0, 1.0), ("m", "m")), num_bins=10)
PUSHER = Embodiment(
    "pusher", ActionBins(SPACE, num_bins=21), robot="planar pusher", chunk=3, cameras=("top",), proprioception=STATE
)
CHUNK = [0, 10, 20, 13, 5, 5]


@pytest.fixture(scope="module")
def two(parts):
    """A policy of two embodiments whose model wants to say the pusher's chunk, whoever asks."""
    robots = {**parts.embodiments, "pusher": PUSHER}
    fake = make_fake(parts.make_fake, 1)
    script = (VOCABULARY.encode(" ".join(map(str, CHUNK))) + [EOS] * 40)[:40]
    grammar = grammar_of(VOCABULARY, robots)
    return Policy(fake, fake.params([script]), VOCABULARY, robots, grammar, image_size=8, prompt_len=32, plan_len=40)


def test_each_embodiment_gets_actions_of_its_own(two, parts):
    pushed = two.act(IMAGES, ["push it"] * 3, embodiment="pusher", states=np.full((3, 2), 0.5))
    np.testing.assert_array_equal(pushed.chunk_bins, [[CHUNK[:2], CHUNK[2:4], CHUNK[4:]]] * 3)
    assert pushed.chunk.shape == (3, 3, 2) and pushed.actions.shape == pushed.bins.shape == (3, 2)
    np.testing.assert_array_equal(pushed.actions, PUSHER.bins.decode(pushed.bins))
    np.testing.assert_array_equal(pushed.actions, pushed.chunk[:, 0])
    # The arm's first number is terminate, its integer 0 or 1 whatever the model wants.
    reached = two.act(IMAGES, ["pick red cube"] * 3, embodiment="arm")
    assert reached.actions.shape == (3, 8) and reached.chunk.shape == (3, 1, 8)
    assert parts.bins.allowed[np.arange(8), reached.bins].all()
    as_arm = two.acting_as("arm")
    assert as_arm.bins == parts.bins
    np.testing.assert_array_equal(as_arm.act(IMAGES, ["pick red cube"] * 3).bins, reached.bins)


def test_the_prompt_names_robot_and_state_as_prepared_data_do(two, monkeypatch):
    asked = []
    sample = two._sample
    monkeypatch.setattr(
        two, "_sample", lambda images, texts, *rest: asked.append(texts) or sample(images, texts, *rest)
    )
    states = np.array([[0.0, 0.05], [0.5, 0.95], [1.0, 1.0]])
    two.act(IMAGES, ["push it"] * 3, embodiment="pusher", states=states)
    assert asked[0][1] == robot_prompt("push it", "planar pusher", "5 9")
    assert asked[0][1] == "Q: what action should the planar pusher take to push it? State: 5 9 A:"
    two.act(IMAGES, ["push it"] * 3, "plan", embodiment="pusher", states=states)
    assert asked[1][0] == "Instruction for the planar pusher: push it State: 0 0"
    two.act(IMAGES, ["pick it"] * 3, embodiment="arm")
    assert asked[2][0] == "Q: what action should the robot take to pick it? A:"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "acts for 2 embodiments; name one of: arm, pusher"),
        ({"embodiment": "hand"}, "embodiment 'hand' is unknown to the model; choose of: arm, pusher"),
        ({"embodiment": "pusher"}, "pusher has proprioception, and no states are given; pass them"),
        ({"embodiment": "arm", "states": np.zeros((3, 2))}, "arm has no proprioception, and states are given"),
        ({"embodiment": "pusher", "states": np.zeros((2, 2))}, r"states: shape \[2, 2\], needs \[3, 2\]"),
        ({"embodiment": "pusher", "states": np.zeros((3, 4))}, r"needs 2 numbers last"),
    ],
)
def test_whose_action_it_is_is_never_guessed(two, settings, named):
    with pytest.raises(UserError, match=named):
        two.act(IMAGES, ["push it"] * 3, **settings)


def test_frames_come_by_camera(parts):
    robot = dataclasses.replace(parts.embodiments["arm"], cameras=("front", "wrist"), history=2)
    fake, seen = make_fake(parts.make_fake, 4), []
    script = (VOCABULARY.encode(ACTION_TEXT) + [EOS] * 40)[:40]
    policy = Policy(fake, fake.params([script]), VOCABULARY, {"arm": robot}, parts.grammar, image_size=8, prompt_len=32)
    inner = policy._frames
    policy._frames = lambda images, count: seen.append(images) or inner(images, count)
    # Level 1 and 2 for the two moments of the front, 101 and 102 for the wrist's.
    front = np.broadcast_to(np.array([1, 2], np.uint8)[None, :, None, None, None], (3, 2, 8, 8, 3))
    policy.act({"wrist": front + 100, "front": front}, ["pick it"] * 3)
    assert seen[0][0, :, 0, 0, 0].tolist() == [1, 101, 2, 102]
    for images, named in (
        ({"front": front}, "camera 'wrist' is missing; embodiment arm has the cameras front, wrist"),
        ({"front": front, "wrist": front, "left": front}, "camera 'left' is unknown"),
        (
            {"front": front, "wrist": front[:, :1]},
            r"camera 'wrist': shape .*, needs \[B, 2, H, W, 3\] \(history is 2\)",
        ),
        ({"front": front, "wrist": front[:, :, :4]}, "the cameras have other shapes"),
    ):
        with pytest.raises(UserError, match=named):
            policy.act(images, ["pick it"] * 3)


def test_a_model_of_another_number_of_images_is_refused(parts):
    robots = {"arm": dataclasses.replace(parts.embodiments["arm"], history=3)}
    with pytest.raises(UserError, match="arm has 3 images an example .*, the model takes 1"):
        Policy(make_fake(parts.make_fake, 1), {}, VOCABULARY, robots, parts.grammar, image_size=8, prompt_len=8)
