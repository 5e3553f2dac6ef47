"""The count of operations: exact against the traced programs, and near what XLA counts when it compiles them.

A trace names every matrix product and how often its loop runs, so real sizes can be held to the last operation. XLA
counts norms, softmax and activations too, and a loop's body once: it gets small unrolled models, wide enough that
products dominate.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from rt2_jax.fit.flops import (
    action_flops,
    decode_step_flops,
    forward_flops,
    prefill_flops,
    recomputed_flops,
    train_flops,
)
from rt2_jax.models import EncoderDecoderConfig, ModelConfig, PrefixLmConfig, VitConfig, get_config, make_backbone

PROMPT_LEN, TARGET_LEN, MAX_LEN = 128, 64, 9


def programs(config, batch, prompt_len=PROMPT_LEN, target_len=TARGET_LEN):
    """The backbone's functions and the gradient's, each with the shapes of its arguments."""
    backbone = make_backbone(config)
    params = jax.eval_shape(backbone.init, jax.random.key(0))
    frames = (batch, config.num_images, config.image_size, config.image_size, 3)
    images = jax.ShapeDtypeStruct(frames, jnp.uint8)
    prompt, target, token, index = (
        jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((batch, prompt_len), (batch, target_len), (batch,), ())
    )

    def prefill(params, images, prompt):
        return backbone.prefill(params, images, prompt, MAX_LEN)

    def loss(params, images, prompt, target):
        return jnp.sum(jnp.square(backbone.logits(params, images, prompt, target)))

    _, cache = jax.eval_shape(prefill, params, images, prompt)
    return {
        "forward": (backbone.logits, (params, images, prompt, target)),
        "prefill": (prefill, (params, images, prompt)),
        "decode_step": (backbone.decode_step, (params, cache, token, index)),
        "gradient": (jax.grad(loss), (params, images, prompt, target)),
    }


def traced_products(jaxpr):
    """Operations of every dot_general of a jaxpr, those of loops as often as they run."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            inner = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * inner * math.prod(eqn.outvars[0].aval.shape)
        assert eqn.primitive.name not in ("while", "conv_general_dilated")
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        total += times * sum(traced_products(inner) for inner in jax.core.jaxprs_in_params(eqn.params))
    return total


def traced(config, name):
    """Products of one example more: what a batch shares, as T5's relative bias, falls out."""
    counts = []
    for batch in (1, 2):
        function, shapes = programs(config, batch)[name]
        counts.append(traced_products(jax.make_jaxpr(function)(*shapes).jaxpr))
    return counts[1] - counts[0]


# Every kind of layer, and 2 images: at the lengths of training, their products are counted to the last operation.
REAL = ("tiny", "pali_3b", "pali_x_55b", "palm_e_12b", "paligemma2_28b")


@pytest.mark.parametrize("size", REAL)
def test_counts_are_exactly_the_traced_products(size):
    config = get_config(size)
    assert traced(config, "forward") == forward_flops(config, PROMPT_LEN, TARGET_LEN).total
    assert traced(config, "prefill") == prefill_flops(config, PROMPT_LEN, MAX_LEN).total
    assert traced(config, "decode_step") == decode_step_flops(config, PROMPT_LEN, MAX_LEN).total


def test_a_model_without_images():
    config = get_config("pali_3b").replace(vision=None, num_images=0)
    assert traced(config, "forward") == forward_flops(config, PROMPT_LEN, TARGET_LEN).total
    assert traced(config, "gradient") == sum(training(config))


def training(config):
    """Model FLOPs and what is recomputed."""
    return train_flops(config, PROMPT_LEN, TARGET_LEN).total, recomputed_flops(config, PROMPT_LEN, TARGET_LEN)


FULL = [(size, "full") for size in ("tiny", "pali_x_55b", "palm_e_12b", "paligemma2_3b")]


@pytest.mark.parametrize("size, remat", [*FULL, ("pali_x_55b", "none"), ("pali_x_55b", "dots"), ("palm_e_12b", "dots")])
def test_a_gradient_is_two_forwards_and_what_is_recomputed(size, remat):
    """But for the first kernel, whose input, the pixels, has no gradient: 0.2% of the tiny model, less of others."""
    config = get_config(size).replace(remat=remat)
    vision = config.vision
    outputs, window = (vision.stem_widths[0], 3) if vision.stem_widths else (vision.width, vision.patch_size)
    places = (config.image_size // 2) ** 2 if vision.stem_widths else config.tokens_per_image
    pixels = 2 * places * outputs * window * window * 3
    model, recomputed = training(config)
    assert traced(config, "gradient") == model + recomputed - pixels
    assert pixels < 0.002 * model


def test_an_action_is_a_prefill_and_seven_steps():
    """tests/policy counts the sampler's calls."""
    for size in ("pali_x_55b", "palm_e_12b"):
        config = get_config(size)
        step = decode_step_flops(config, PROMPT_LEN, MAX_LEN).total
        assert action_flops(config, PROMPT_LEN).total == prefill_flops(config, PROMPT_LEN, MAX_LEN).total + 7 * step


VIT = VitConfig(patch_size=8, width=192, layers=1, heads=3, head_dim=64, mlp=768)
T5 = EncoderDecoderConfig(width=192, encoder_layers=1, decoder_layers=1, heads=3, head_dim=64, mlp=512)
GEMMA_2 = PrefixLmConfig(
    width=192, layers=1, heads=4, kv_heads=2, head_dim=64, mlp=512, bos_id=2, separator_id=3,
    post_norms=True, sliding_window=16, attention_softcap=50.0, logits_softcap=30.0,
)  # fmt: skip
PALM = PrefixLmConfig(
    width=192, layers=1, heads=4, kv_heads=1, head_dim=64, mlp=512,
    activation="silu", parallel_block=True, norm="layer", scaled_inputs=False,
)  # fmt: skip
BASE = ModelConfig(name="test", vision=VIT, text=T5, image_size=64, vocab_size=1024, scan_unroll=True)
VIT_22B = {"parallel_blocks": True, "qk_norm": True, "qkv_bias": False, "norm_bias": False}
KINDS = {
    "pali": BASE.replace(num_images=2),
    "umt5": BASE.replace(text={"per_layer_bias": True}),
    "vit_22b": BASE.replace(vision=VIT_22B),
    "palm_e": dataclasses.replace(BASE, text=PALM),
    "gemma_2": dataclasses.replace(BASE, text=GEMMA_2),
}
COUNTS = {
    "forward": lambda config: forward_flops(config, 32, 32),
    "prefill": lambda config: prefill_flops(config, 32, MAX_LEN),
    "decode_step": lambda config: decode_step_flops(config, 32, MAX_LEN),
    "gradient": lambda config: train_flops(config, 32, 32),
}


CASES = [(kind, program) for kind in KINDS for program in ("forward", "prefill", "decode_step")]


@pytest.mark.parametrize("kind, program", [*CASES, ("pali", "gradient"), ("gemma_2", "gradient")])
def test_counts_are_near_those_of_the_compiler(kind, program):
    """Within 3%, above or below: XLA adds what is no product, and leaves out the gradient of the pixels."""
    batch = 4
    function, shapes = programs(KINDS[kind], batch, 32, 32)[program]
    found = jax.jit(function).lower(*shapes).compile().cost_analysis()["flops"]
    assert found == pytest.approx(batch * COUNTS[program](KINDS[kind]).total, rel=0.03)
