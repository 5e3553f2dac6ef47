"""The backbone's promises: decoding equals teacher forcing, padding and the future are invisible, shapes and dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.errors import UserError
from rt2_jax.models import ModelConfig, TextConfig, VitConfig, make_backbone

VOCAB = 128
BASE = ModelConfig(
    name="test",
    vision=VitConfig(patch_size=12, width=32, layers=2, heads=2, head_dim=8, mlp=48, stem_widths=(8, 16)),
    text=TextConfig(width=24, encoder_layers=2, decoder_layers=3, heads=2, head_dim=8, mlp=40),
    image_size=24,
    vocab_size=VOCAB,
)
VARIANTS = {
    "two_images": BASE.replace(num_images=2),
    "umt5": BASE.replace(text={"per_layer_bias": True}, scan_unroll=True),
    "vit_22b_and_ul2": BASE.replace(
        vision={"parallel_blocks": True, "qk_norm": True, "qkv_bias": False, "norm_bias": False, "stem_widths": ()},
        text={"tied_embeddings": True, "decoder_norm_scale": False, "activation": "silu"},
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

    def one(path, leaf):
        name, shape = path[-1].key, leaf.shape
        fan_in = shape[-3 if len(shape) == 4 else -2] if name == "kernel" else 100 if name in ("scale", "bias") else 1
        return ((name == "scale") + rng.normal(size=shape) / fan_in**0.5).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, jax.eval_shape(backbone.init, jax.random.key(0)))


@pytest.fixture(scope="module")
def base():
    backbone = make_backbone(BASE)
    return backbone, draw(backbone), jax.jit(backbone.logits)


@pytest.mark.parametrize("name", VARIANTS)
def test_step_by_step_decoding_equals_teacher_forcing(name):
    config = VARIANTS[name]
    backbone = make_backbone(config)
    params = draw(backbone)
    images, prompt, target = inputs(config)
    expected = jax.jit(backbone.logits)(params, images, prompt, target)
    assert expected.shape == (*target.shape, VOCAB) and expected.dtype == jnp.float32
    assert expected.std() > 0.1

    encoded = jax.jit(backbone.encode)(params, images, prompt)
    assert encoded.hidden.shape == (3, config.num_images * config.tokens_per_image + 5, config.text.width)
    assert encoded.mask.sum(1).tolist() == [encoded.mask.shape[1] - padding for padding in (0, 2, 2)]
    cache = jax.jit(backbone.start_cache, static_argnums=2)(params, encoded, target.shape[1] + 2)
    step = jax.jit(backbone.decode_step)
    token = jnp.zeros(3, jnp.int32)
    for index in range(target.shape[1]):
        logits, cache = step(params, encoded, cache, token, jnp.int32(index))
        np.testing.assert_allclose(logits, expected[:, index], atol=1e-5, rtol=1e-5)
        token = target[:, index]


def test_logits_do_not_see_the_future(base):
    backbone, params, logits = base
    images, prompt, target = inputs(BASE)
    changed = target.copy()
    changed[:, 4] = (changed[:, 4] + 1) % VOCAB
    one, two = logits(params, images, prompt, target), logits(params, images, prompt, changed)
    np.testing.assert_array_equal(one[:, :5], two[:, :5])
    assert jnp.abs(one[:, 5:] - two[:, 5:]).max() > 1e-3


def test_logits_see_pixels_and_prompt_but_not_padding(base):
    backbone, params, logits = base
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


def cross_entropy_and_gradient(config, params):
    backbone, (images, prompt, target) = make_backbone(config), inputs(config)

    def loss(params):
        logits = backbone.logits(params, images, prompt, target)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], -1))

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.fixture(scope="module")
def base_gradient(base):
    return cross_entropy_and_gradient(BASE, base[1])


@pytest.mark.parametrize("changes", [{"remat": "full", "scan_unroll": True}, {"remat": "dots"}])
def test_loop_choices_change_no_number(base, base_gradient, changes):
    value, gradient = cross_entropy_and_gradient(BASE.replace(**changes), base[1])
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


def test_dropout_needs_a_key_and_follows_it():
    backbone = make_backbone(BASE.replace(text={"dropout_rate": 0.1}, vision={"dropout_rate": 0.1}))
    params = draw(backbone)
    images, prompt, target = inputs(BASE)
    run = jax.jit(lambda key: backbone.logits(params, images, prompt, target, dropout_rng=key))
    still = jax.jit(backbone.logits)(params, images, prompt, target)
    np.testing.assert_array_equal(run(jax.random.key(1)), run(jax.random.key(1)))
    assert jnp.abs(run(jax.random.key(1)) - run(jax.random.key(2))).max() > 1e-2
    assert jnp.abs(run(jax.random.key(1)) - still).max() > 1e-2
    np.testing.assert_array_equal(still, jax.jit(make_backbone(BASE).logits)(params, images, prompt, target))


def test_bfloat16_keeps_float32_parameters_and_logits(base):
    _, params, logits = base
    backbone = make_backbone(BASE.replace(compute_dtype="bfloat16"))
    images, prompt, target = inputs(BASE)
    low = jax.jit(backbone.logits)(params, images, prompt, target)
    high = logits(params, images, prompt, target)
    assert low.dtype == jnp.float32
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    assert jnp.corrcoef(low.ravel(), high.ravel())[0, 1] > 0.999
    encoded = jax.eval_shape(backbone.encode, params, images, prompt)
    assert encoded.hidden.dtype == jnp.bfloat16
    cache = jax.eval_shape(lambda params, encoded: backbone.start_cache(params, encoded, 4), params, encoded)
    assert {leaf.dtype for leaf in jax.tree.leaves(cache)} == {jnp.dtype("bfloat16")}


def test_initial_scales(base):
    backbone, _, logits = base
    params = backbone.init(jax.random.key(0))
    assert params["token_embedding"]["embedding"].std() == pytest.approx(1.0, rel=0.05)
    attention = params["encoder"]["blocks"]["attention"]
    width, head_dim = BASE.text.width, BASE.text.head_dim
    assert attention["query"]["kernel"].std() == pytest.approx((width * head_dim) ** -0.5, rel=0.1)
    assert attention["key"]["kernel"].std() == pytest.approx(width**-0.5, rel=0.1)
    assert attention["out"]["kernel"].std() == pytest.approx((BASE.text.heads * head_dim) ** -0.5, rel=0.1)
    first, second = attention["key"]["kernel"]
    assert jnp.abs(first - second).max() > 0.1, "layers must not start equal"
    again, other = backbone.init(jax.random.key(0)), backbone.init(jax.random.key(1))
    np.testing.assert_array_equal(again["logits"]["kernel"], params["logits"]["kernel"])
    assert jnp.abs(other["logits"]["kernel"] - params["logits"]["kernel"]).max() > 0.1
    assert 0.5 < logits(params, *inputs(BASE)).std() < 2.0, "a fresh model's logits should be of order one"


def test_wrong_images_are_refused_with_the_mend(base):
    backbone, params, _ = base
    images, prompt, target = inputs(BASE)
    for wrong in (images[:, :, :12, :12], images.astype(np.float32), images[:, 0], np.repeat(images, 2, 1)):
        with pytest.raises(UserError, match=r"takes uint8\[B, 1, 24, 24, 3\]"):
            backbone.logits(params, wrong, prompt, target)
