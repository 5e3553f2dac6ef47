"""The backbone's promises: decoding equals teacher forcing, padding and the future are invisible, shapes and dtypes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.errors import UserError
from rt2_jax.models import EncoderDecoderConfig, ModelConfig, PrefixLmConfig, VitConfig, make_backbone
from rt2_jax.models.palm_e import interleaved
from rt2_jax.models.stack import lay_apart

VOCAB = 128
BASE = ModelConfig(
    name="test",
    vision=VitConfig(patch_size=12, width=32, layers=2, heads=2, head_dim=8, mlp=48, stem_widths=(8, 16)),
    text=EncoderDecoderConfig(width=24, encoder_layers=2, decoder_layers=3, heads=2, head_dim=8, mlp=40),
    image_size=24,
    vocab_size=VOCAB,
)
PREFIX_LM = PrefixLmConfig(width=24, layers=3, heads=4, kv_heads=2, head_dim=8, mlp=40)
PALM_E = dataclasses.replace(BASE, text=PREFIX_LM, vocab_size=VOCAB)
BASES = {"pali": BASE, "palm_e": PALM_E}
VARIANTS = {
    "two_images": BASE.replace(num_images=2),
    "umt5": BASE.replace(text={"per_layer_bias": True}, scan_unroll=True),
    "vit_22b_and_ul2": BASE.replace(
        vision={"parallel_blocks": True, "qk_norm": True, "qkv_bias": False, "norm_bias": False, "stem_widths": ()},
        text={"tied_embeddings": True, "decoder_norm_scale": False, "activation": "silu"},
    ),
    "gemma": PALM_E.replace(text={"kv_heads": 1, "bos_id": 2, "separator_id": 9}, num_images=2),
    "gemma_2": PALM_E.replace(
        text={"post_norms": True, "sliding_window": 4, "attention_softcap": 5.0, "logits_softcap": 3.0},
        scan_unroll=True,
    ),
    "palm": PALM_E.replace(
        text={"parallel_block": True, "norm": "layer", "activation": "silu", "scaled_inputs": False, "kv_heads": 1}
    ),
    "causal_text": dataclasses.replace(
        PALM_E.replace(text={"bidirectional_prefix": False, "sliding_window": 3, "global_every": 3}),
        vision=None,
        num_images=0,
    ),
}


def inputs(config, batch=3, prompt_len=5, target_len=7, seed=0):
    rng = np.random.default_rng(seed)
    shape = (batch, config.num_images, config.image_size, config.image_size, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    prompt = rng.integers(1, VOCAB, (batch, prompt_len)).astype(np.int32)
    prompt[1:, 3:] = 0
    return images, prompt, rng.integers(1, VOCAB, (batch, target_len)).astype(np.int32)


def draw(backbone, seed=0):
    """Parameters of the right shapes and about the right scales, drawn without compiling anything."""
    rng = np.random.default_rng(seed)
    table = backbone.config.text.width if getattr(backbone.config.text, "scaled_inputs", False) else 1

    def one(path, leaf):
        name, shape = path[-1].key, leaf.shape
        if name == "kernel":
            fan_in = shape[-3 if len(shape) == 4 else -2]
        else:
            fan_in = {"scale": 100, "bias": 100, "embedding": table}.get(name, 1)
        return ((name == "scale") + rng.normal(size=shape) / fan_in**0.5).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, jax.eval_shape(backbone.init, jax.random.key(0)))


@pytest.fixture(scope="module", params=BASES)
def base(request):
    backbone = make_backbone(BASES[request.param])
    return backbone, draw(backbone), jax.jit(backbone.logits)


DECODED = {**BASES, **VARIANTS}


@pytest.mark.parametrize("name", DECODED)
def test_decoding_with_layers_apart_and_of_some_tokens_gives_the_same_logits(name):
    """Every wiring, head and cache: each layer with arrays of its own, and a part of the output table."""
    config = DECODED[name]
    backbone, apart = make_backbone(config), make_backbone(config, apart=True)
    params, ids = draw(backbone), np.array([90, 3, 127, 4], np.int32)
    images, prompt, target = inputs(config)

    @functools.partial(jax.jit, static_argnums=0)
    def decode(backbone, params, ids):
        logits, cache = backbone.prefill(params, images, prompt, 4, ids=ids)
        rows = [logits]
        for index in range(2):
            logits, cache = backbone.decode_step(params, cache, target[:, index], index, ids=ids)
            rows.append(logits)
        return jnp.stack(rows, 1)

    expected = decode(backbone, params, None)
    assert expected.shape == (3, 3, VOCAB)
    some = decode(apart, lay_apart(params), ids)
    assert some.shape == (3, 3, 4) and some.dtype == jnp.float32
    np.testing.assert_allclose(some, expected[:, :, ids], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(decode(backbone, params, ids), expected[:, :, ids], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_step_by_step_decoding_equals_teacher_forcing(name):
    config = VARIANTS[name]
    backbone = make_backbone(config)
    params = draw(backbone)
    images, prompt, target = inputs(config)
    expected = jax.jit(backbone.logits)(params, images, prompt, target)
    assert expected.shape == (*target.shape, VOCAB) and expected.dtype == jnp.float32
    assert expected.std() > 0.1

    logits, cache = jax.jit(backbone.prefill, static_argnums=3)(params, images, prompt, target.shape[1] + 2)
    step = jax.jit(backbone.decode_step)
    for index in range(target.shape[1]):
        np.testing.assert_allclose(logits, expected[:, index], atol=1e-5, rtol=1e-5)
        logits, cache = step(params, cache, target[:, index], jnp.int32(index))


def test_logits_do_not_see_the_future(base):
    _, params, logits = base
    images, prompt, target = inputs(BASE)
    changed = target.copy()
    changed[:, 4] = (changed[:, 4] + 1) % VOCAB
    one, two = logits(params, images, prompt, target), logits(params, images, prompt, changed)
    np.testing.assert_array_equal(one[:, :5], two[:, :5])
    assert jnp.abs(one[:, 5:] - two[:, 5:]).max() > 1e-3


def test_logits_see_pixels_and_prompt_but_not_padding(base):
    _, params, logits = base
    images, prompt, target = inputs(BASE)
    one = logits(params, images, prompt, target)
    assert jnp.abs(one - logits(params, 255 - images, prompt, target)).max() > 1e-3
    assert jnp.abs(one - logits(params, images, prompt[:, [1, 0, 2, 3, 4]], target)).max() > 1e-3
    longer = np.pad(prompt, ((0, 0), (0, 3)))
    np.testing.assert_allclose(one, logits(params, images, longer, target), atol=1e-5)


def test_order_of_images_matters():
    config = VARIANTS["two_images"]
    backbone = make_backbone(config)
    images, prompt, target = inputs(config)
    logits = jax.jit(backbone.logits)
    params = draw(backbone)
    one, two = logits(params, images, prompt, target), logits(params, images[:, ::-1], prompt, target)
    assert jnp.abs(one - two).max() > 1e-3


@pytest.mark.parametrize("name", ["two_images", "gemma"])
def test_a_frame_that_is_not_there_changes_nothing(name):
    config = VARIANTS[name]
    two, one = make_backbone(config), make_backbone(config.replace(num_images=1))
    images, prompt, target = inputs(config)
    params = draw(two)
    images[:2, 0] = 0  # black: these episodes have just begun
    found = jax.jit(two.logits)(params, images, prompt, target)
    alone = jax.jit(one.logits)(params, images[:, 1:], prompt, target)
    np.testing.assert_allclose(found[:2], alone[:2], atol=1e-5)
    assert jnp.abs(found[2] - alone[2]).max() > 1e-3
    first, cache = jax.jit(two.prefill, static_argnums=3)(params, images, prompt, 3)
    np.testing.assert_allclose(first, found[:, 0], atol=1e-5)
    second, _ = jax.jit(two.decode_step)(params, cache, target[:, 0], jnp.int32(0))
    np.testing.assert_allclose(second, found[:, 1], atol=1e-5)


def test_a_black_frame_that_is_the_only_one_is_seen():
    backbone = make_backbone(BASE)
    images, prompt, target = inputs(BASE)
    params = draw(backbone)
    logits = jax.jit(backbone.logits)
    assert jnp.abs(logits(params, images * 0, prompt, target) - logits(params, images, prompt, target)).max() > 1e-3


def cross_entropy_and_gradient(config, params):
    backbone, (images, prompt, target) = make_backbone(config), inputs(config)

    def loss(params):
        logits = backbone.logits(params, images, prompt, target)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], -1))

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.fixture(scope="module")
def base_gradient(base):
    return cross_entropy_and_gradient(base[0].config, base[1])


@pytest.mark.parametrize("changes", [{"remat": "full", "scan_unroll": True}, {"remat": "dots"}])
def test_loop_choices_change_no_number(base, base_gradient, changes):
    value, gradient = cross_entropy_and_gradient(base[0].config.replace(**changes), base[1])
    np.testing.assert_allclose(value, base_gradient[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-3), gradient, base_gradient[1])


def test_every_parameter_takes_part(base_gradient):
    for path, gradient in jax.tree_util.tree_leaves_with_path(base_gradient[1]):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        # A key's bias moves every logit of a query alike: the softmax takes no notice of it.
        if not name.endswith("key/bias"):
            assert jnp.any(gradient != 0), name
        if "/blocks/" in name and not name.endswith("key/bias"):
            assert jnp.all(jnp.any(gradient.reshape(gradient.shape[0], -1) != 0, axis=1)), name


def test_dropout_needs_a_key_and_follows_it(base):
    plain, params, logits = base
    backbone = make_backbone(plain.config.replace(text={"dropout_rate": 0.1}, vision={"dropout_rate": 0.1}))
    images, prompt, target = inputs(BASE)
    run = jax.jit(lambda key: backbone.logits(params, images, prompt, target, dropout_rng=key))
    still = jax.jit(backbone.logits)(params, images, prompt, target)
    np.testing.assert_array_equal(run(jax.random.key(1)), run(jax.random.key(1)))
    assert jnp.abs(run(jax.random.key(1)) - run(jax.random.key(2))).max() > 1e-2
    assert jnp.abs(run(jax.random.key(1)) - still).max() > 1e-2
    np.testing.assert_array_equal(still, logits(params, images, prompt, target))


def test_bfloat16_keeps_float32_parameters_and_logits(base):
    plain, params, logits = base
    backbone = make_backbone(plain.config.replace(compute_dtype="bfloat16"))
    images, prompt, target = inputs(BASE)
    low = jax.jit(backbone.logits)(params, images, prompt, target)
    high = logits(params, images, prompt, target)
    assert low.dtype == jnp.float32
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    assert jnp.corrcoef(low.ravel(), high.ravel())[0, 1] > 0.999
    first, cache = jax.eval_shape(lambda *arguments: backbone.prefill(*arguments, 4), params, images, prompt)
    assert first.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(cache)} == {jnp.dtype("bfloat16"), jnp.dtype(bool)}


def test_initial_scales(base):
    backbone, _, logits = base
    params, text = backbone.init(jax.random.key(0)), backbone.config.text
    tied = isinstance(text, PrefixLmConfig)
    scale = text.width**-0.5 if tied else 1.0
    assert params["token_embedding"]["embedding"].std() == pytest.approx(scale, rel=0.05)
    attention = params["decoder" if tied else "encoder"]["blocks"]["attention"]
    # T5 folds 1 / sqrt(head_dim) into the query's kernel.
    query = text.width**-0.5 * (1.0 if tied else text.head_dim**-0.5)
    assert attention["query"]["kernel"].std() == pytest.approx(query, rel=0.1)
    assert attention["key"]["kernel"].std() == pytest.approx(text.width**-0.5, rel=0.1)
    assert attention["out"]["kernel"].std() == pytest.approx((text.heads * text.head_dim) ** -0.5, rel=0.1)
    first, second, *_ = attention["key"]["kernel"]
    assert jnp.abs(first - second).max() > 0.1, "layers must not start equal"
    again, other = backbone.init(jax.random.key(0)), backbone.init(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    kernel = other["image_projection"]["kernel"]
    assert jnp.abs(kernel - params["image_projection"]["kernel"]).max() > 0.1
    assert 0.5 < logits(params, *inputs(backbone.config)).std() < 2.0, "a fresh model's logits should be of order one"


def test_images_stand_where_the_prompt_places_them():
    """An image's tokens at its marker: the same as a prompt cut there, embedded by hand."""
    markers = np.array([[0, 1, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]], bool)
    source = np.asarray(interleaved(jnp.asarray(markers), 2, 3))  # two images of three tokens, then five text tokens
    images = [[0, 1, 2], [3, 4, 5]]
    text = [6, 7, 8, 9, 10]
    free = 2 * 3 + 5
    assert source.tolist() == [
        [text[0], *images[0], text[2], text[3], *images[1], free, free],
        [*images[0], text[0], text[1], text[2], *images[1], text[4], free],
        [*images[0], *images[1], *text],
        [*images[0], *images[1], text[2], text[3], text[4], free, free],
    ]


def test_a_marked_prompt_moves_the_image_and_nothing_else():
    config = PALM_E.replace(text={"image_id": 7, "bidirectional_prefix": False})
    backbone, plain = make_backbone(config), make_backbone(PALM_E.replace(text={"bidirectional_prefix": False}))
    params = draw(backbone)
    images, _, target = inputs(config)
    logits, without = jax.jit(backbone.logits), jax.jit(plain.logits)
    prompt = np.tile(np.array([[3, 4, 5, 6]], np.int32), (3, 1))
    first = np.concatenate([np.full((3, 1), 7, np.int32), prompt], axis=1)
    # A marker in front is where an unmarked image stands.
    np.testing.assert_allclose(
        logits(params, images, first, target), without(params, images, prompt, target), atol=1e-5
    )
    later = np.concatenate([prompt[:, :2], np.full((3, 1), 7, np.int32), prompt[:, 2:]], axis=1)
    assert jnp.abs(logits(params, images, later, target) - logits(params, images, first, target)).max() > 1e-3
    padded = np.pad(later, ((0, 0), (0, 3)))
    np.testing.assert_allclose(logits(params, images, padded, target), logits(params, images, later, target), atol=1e-5)


def test_a_prefix_sees_itself_whole_or_only_backwards():
    images, prompt, _ = inputs(PALM_E)
    changed = prompt.copy()
    changed[:, 2] = prompt[:, 2] % 100 + 1
    seen = {}
    for whole in (True, False):
        config = PALM_E.replace(text={"bidirectional_prefix": whole})
        backbone = make_backbone(config)
        params = draw(backbone)
        _, one = backbone.prefill(params, images, prompt, 2)
        _, two = backbone.prefill(params, images, changed, 2)
        seen[whole] = np.abs(np.asarray(one.key - two.key)).max(axis=(0, 1, 2, 3)) > 1e-6  # by slot
    at = PALM_E.tokens_per_image + 2  # the changed token's slot
    assert seen[True][: at + 1].all()
    assert not seen[False][:at].any() and seen[False][at]


def test_a_local_layer_reaches_back_as_far_as_its_window():
    text = {"sliding_window": 3, "global_every": 99, "layers": 1, "bidirectional_prefix": False}
    config = dataclasses.replace(PALM_E.replace(text=text), vision=None, num_images=0)
    backbone = make_backbone(config)
    params = draw(backbone)
    images, _, target = inputs(config, target_len=8)
    prompt = np.full((3, 1), 5, np.int32)
    changed = target.copy()
    changed[:, 1] = target[:, 1] % 100 + 1
    gap = np.abs(backbone.logits(params, images, prompt, target) - backbone.logits(params, images, prompt, changed))
    # Row i's query is token i - 1: it sees tokens i - 3 to i - 1.
    assert (gap.max(axis=(0, 2)) > 1e-5).tolist() == [False, False, True, True, True, False, False, False]


def test_wrong_images_are_refused_with_the_mend(base):
    backbone, params, _ = base
    images, prompt, target = inputs(BASE)
    for wrong in (images[:, :, :12, :12], images.astype(np.float32), images[:, 0], np.repeat(images, 2, 1)):
        with pytest.raises(UserError, match=r"takes uint8\[B, 1, 24, 24, 3\]"):
            backbone.logits(params, wrong, prompt, target)
