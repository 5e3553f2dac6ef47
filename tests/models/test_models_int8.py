"""int8 weights: they compute what their kernels times their scales do, and no float copy of a kernel is kept."""

import dataclasses

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.errors import UserError
from rt2_jax.models import EncoderDecoderConfig, LoraConfig, ModelConfig, PrefixLmConfig, VitConfig, make_backbone
from rt2_jax.models.int8 import _rounded, quantize
from rt2_jax.models.lora import merge_lora
from rt2_jax.parallel import LOGICAL_RULES
from rt2_jax.parallel.rules import kernel_sides

VOCAB = 64
PALI = ModelConfig(
    name="test",
    vision=VitConfig(patch_size=12, width=32, layers=2, heads=2, head_dim=8, mlp=48, stem_widths=(8, 16)),
    text=EncoderDecoderConfig(width=24, encoder_layers=2, decoder_layers=3, heads=2, head_dim=8, mlp=40),
    image_size=24,
    vocab_size=VOCAB,
)
TIED = PALI.replace(text={"tied_embeddings": True, "per_layer_bias": True})
PALM_E = dataclasses.replace(PALI, text=PrefixLmConfig(width=24, layers=3, heads=4, kv_heads=2, head_dim=8, mlp=40))
LORA = PALI.replace(lora=LoraConfig(pattern=".*", rank=3, alpha=6.0))
MODELS = {"pali": PALI, "tied": TIED, "palm_e": PALM_E, "lora": LORA}
RNG = jax.random.key(0)


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


def inputs(config):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, config.num_images, 24, 24, 3), dtype=np.uint8)
    return images, *(rng.integers(1, VOCAB, (2, length)).astype(np.int32) for length in (5, 4))


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    """(float backbone, its parameters, the int8 one, its parameters)."""
    backbone = make_backbone(MODELS[request.param])
    params = jax.tree.map(lambda leaf: leaf + 0.01, backbone.init(RNG))  # no kernel, and no B of LoRA, is zero
    numbers, config = quantize(params, backbone.config, backbone.logical_axes())
    return backbone, params, make_backbone(config), numbers


def test_kernels_and_the_token_table_are_int8_and_nothing_else(pair):
    backbone, params, int8, numbers = pair
    before, after, axes = flat(params), flat(numbers), flat(int8.logical_axes())
    assert before.keys() <= after.keys() == axes.keys()
    for path, leaf in after.items():
        assert len(axes[path]) == leaf.ndim and all(name in LOGICAL_RULES for name in axes[path])
        name = path.split("/")[-1]
        assert leaf.dtype == (jnp.int8 if name in ("kernel", "embedding") else jnp.float32), path
        if name == "kernel":
            outputs = kernel_sides(axes[path])[1]
            stack = axes[path].count("layers")
            scale = after[f"{path}_scale"]
            assert scale.shape == (*leaf.shape[:stack], *(leaf.shape[axis] for axis in outputs)), path
            assert axes[f"{path}_scale"] == (*axes[path][:stack], *(axes[path][axis] for axis in outputs))
    assert len(after) - len(before) == sum(leaf.dtype == jnp.int8 for leaf in after.values()) > 15
    # What a bundle restores into is what was quantised.
    fresh = flat(jax.eval_shape(int8.init, RNG))
    assert {path: (leaf.shape, leaf.dtype) for path, leaf in fresh.items()} == {
        path: (leaf.shape, leaf.dtype) for path, leaf in after.items()
    }


def test_it_computes_what_the_scaled_kernels_do(pair):
    backbone, params, int8, numbers = pair
    restored = flat(params)
    for path, leaf in flat(numbers).items():
        if leaf.dtype == jnp.int8:
            scale = flat(numbers)[f"{path}_scale"]
            inputs_ = (1,) if path.endswith("embedding") else kernel_sides(flat(backbone.logical_axes())[path])[0]
            restored[path] = leaf * jnp.expand_dims(scale, inputs_)
    restored = flax.traverse_util.unflatten_dict(restored, sep="/")
    arrays = inputs(backbone.config)
    float_logits, int8_logits = jax.jit(backbone.logits), jax.jit(int8.logits)
    wanted = float_logits(restored, *arrays)
    np.testing.assert_allclose(int8_logits(numbers, *arrays), wanted, atol=2e-5 * float(jnp.abs(wanted).max()))
    exact = float_logits(params, *arrays)
    error = float(jnp.linalg.norm(wanted - exact) / jnp.linalg.norm(exact))
    assert 0 < error < 0.03


@given(st.integers(0, 2**32 - 1), st.sampled_from([(0,), (1,), (0, 1)]), st.floats(1e-20, 1e20))
@settings(max_examples=20)
def test_a_number_is_off_by_half_a_scale_at_most(seed, axes, size):
    kernel = (np.random.default_rng(seed).normal(size=(5, 7, 3)) * size).astype(np.float32)
    kernel[:, :, 0] = 0
    numbers, scale = _rounded(jnp.asarray(kernel), axes)
    wide = np.expand_dims(np.asarray(scale), axes)
    assert np.abs(np.asarray(numbers, np.int32)).max() <= 127 and np.isfinite(wide).all() and (wide > 0).all()
    assert (np.abs(np.asarray(numbers) * wide - kernel) <= wide * 0.5001).all()


def test_decoding_keeps_no_float_copy():
    """With every layer in the scan, what a step allocates is far below the kernels as floats."""
    text = EncoderDecoderConfig(width=128, encoder_layers=12, decoder_layers=12, heads=4, head_dim=32, mlp=512)
    config = PALI.replace(quantized="int8")
    backbone = make_backbone(dataclasses.replace(config, text=text))
    shapes = jax.eval_shape(backbone.init, RNG)
    images, prompt, _ = inputs(config)

    def answer(params, images, prompt):
        logits, cache = backbone.prefill(params, images, prompt, 4)

        def step(carry, index):
            logits, cache = backbone.decode_step(params, carry[1], jnp.argmax(carry[0], -1).astype(jnp.int32), index)
            return (logits, cache), None

        return jax.lax.scan(step, (logits, cache), jnp.arange(3))[0][0]

    memory = jax.jit(answer).lower(shapes, images, prompt).compile().memory_analysis()
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    floats = sum(4 * leaf.size for leaf in jax.tree.leaves(shapes))
    assert floats > 3.8 * held
    assert memory.temp_size_in_bytes < floats / 4


def test_what_cannot_be_done_with_int8_is_refused():
    backbone = make_backbone(LORA.replace(quantized="int8"))
    with pytest.raises(UserError, match="int8 already"):
        quantize({}, backbone.config, {})
    with pytest.raises(UserError, match="has int8 weights"):
        merge_lora({}, backbone.config)


def test_json_names_it_only_where_it_is():
    assert "quantized" not in PALI.to_json()
    int8 = PALI.replace(quantized="int8")
    assert ModelConfig.from_json(int8.to_json()) == int8
