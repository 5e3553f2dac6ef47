"""LoRA: a fresh one changes nothing, layers apply what is merged, and a pattern's kernels alone have one."""

import dataclasses
import json
import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.errors import UserError
from rt2_jax.models import (
    EncoderDecoderConfig,
    LoraConfig,
    ModelConfig,
    PrefixLmConfig,
    VitConfig,
    make_backbone,
    merge_lora,
)
from rt2_jax.models.layers import FAN_IN, Linear
from rt2_jax.parallel import LOGICAL_RULES

VOCAB = 64
PALI = ModelConfig(
    name="test",
    vision=VitConfig(patch_size=12, width=32, layers=2, heads=2, head_dim=8, mlp=48, stem_widths=(8, 16)),
    text=EncoderDecoderConfig(width=24, encoder_layers=2, decoder_layers=3, heads=2, head_dim=8, mlp=40),
    image_size=24,
    vocab_size=VOCAB,
)
PALM_E = dataclasses.replace(PALI, text=PrefixLmConfig(width=24, layers=3, heads=4, kv_heads=2, head_dim=8, mlp=40))
ALL = LoraConfig(pattern=".*", rank=3, alpha=6.0)
RNG = jax.random.key(0)


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


def shapes(config):
    return flat(jax.eval_shape(make_backbone(config).init, RNG))


def inputs(config):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, config.num_images, 24, 24, 3), dtype=np.uint8)
    return images, *(rng.integers(1, VOCAB, (2, length)).astype(np.int32) for length in (5, 4))


@pytest.fixture(scope="module", params=["pali", "palm_e"])
def fresh(request):
    """(config with adapters on all kernels, its fresh parameters, its logits as a jitted function)."""
    config = {"pali": PALI, "palm_e": PALM_E}[request.param].replace(lora=ALL)
    backbone = make_backbone(config)
    return config, backbone.init(RNG), jax.jit(backbone.logits)


@pytest.fixture(scope="module")
def trained(fresh):
    """The fresh parameters, each B drawn at the size of A."""
    rng = np.random.default_rng(1)

    def one(path, leaf):
        return jnp.asarray(rng.normal(size=leaf.shape) * 0.3, leaf.dtype) if path[-1].key == "lora_b" else leaf

    return jax.tree_util.tree_map_with_path(one, fresh[1])


def test_a_fresh_model_is_its_base(fresh):
    config, params, logits = fresh
    base = make_backbone(config.replace(lora=None))
    plain = flat(base.init(RNG))
    for path, leaf in flat(params).items():
        if path.endswith("lora_a"):
            inputs_size = np.prod(leaf.shape["/blocks/" in path : -1])
            assert leaf.std() == pytest.approx(inputs_size**-0.5, rel=0.5), path
        elif path.endswith("lora_b"):
            assert not leaf.any()
        else:
            np.testing.assert_array_equal(leaf, plain.pop(path))
    assert not plain
    arguments = inputs(config)
    unflat = {path: leaf for path, leaf in flat(params).items() if "lora_" not in path}
    expected = jax.jit(base.logits)(flax.traverse_util.unflatten_dict(unflat, sep="/"), *arguments)
    np.testing.assert_allclose(logits(params, *arguments), expected, atol=1e-6)


def test_merged_weights_compute_the_same(fresh, trained):
    config, params, logits = fresh
    arguments = inputs(config)
    merged, plain = merge_lora(trained, config)
    assert plain == config.replace(lora=None)
    assert {path: leaf.shape for path, leaf in flat(merged).items()} == {
        path: leaf.shape for path, leaf in shapes(plain).items()
    }
    expected = logits(trained, *arguments)
    assert jnp.abs(expected - logits(params, *arguments)).max() > 0.1
    np.testing.assert_allclose(jax.jit(make_backbone(plain).logits)(merged, *arguments), expected, atol=3e-5, rtol=1e-5)
    unrolled = make_backbone(config.replace(scan_unroll=True, remat="full"))
    np.testing.assert_allclose(jax.jit(unrolled.logits)(trained, *arguments), expected, atol=3e-5, rtol=1e-5)


def test_a_merged_kernel_is_the_papers_sum(fresh, trained):
    merged, leaves = flat(merge_lora(trained, fresh[0])[0]), flat(trained)
    attention = "encoder/blocks/attention" if "encoder" in trained else "decoder/blocks/attention"
    for name, product in (("query", "lwr,lrhd->lwhd"), ("out", "lhdr,lrw->lhdw")):
        path = f"{attention}/{name}"
        delta = np.einsum(product, leaves[f"{path}/lora_a"], leaves[f"{path}/lora_b"]) * (6.0 / 3)
        np.testing.assert_allclose(merged[f"{path}/kernel"], leaves[f"{path}/kernel"] + delta, atol=1e-5)


def test_decoding_applies_the_adapters_too(fresh, trained):
    config, _, logits = fresh
    backbone, (images, prompt, target) = make_backbone(config), inputs(config)
    expected = logits(trained, images, prompt, target)
    row, cache = jax.jit(backbone.prefill, static_argnums=3)(trained, images, prompt, 4)
    np.testing.assert_allclose(row, expected[:, 0], atol=1e-5, rtol=1e-5)
    row, _ = jax.jit(backbone.decode_step)(trained, cache, target[:, 0], jnp.int32(0))
    np.testing.assert_allclose(row, expected[:, 1], atol=1e-5, rtol=1e-5)
    ids = np.array([5, 60, 7], np.int32)
    row, _ = jax.jit(backbone.decode_step)(trained, cache, target[:, 0], jnp.int32(0), ids=ids)
    np.testing.assert_allclose(row, expected[:, 1, ids], atol=1e-5, rtol=1e-5)


def test_the_product_of_a_and_b_is_never_formed():
    layer = Linear(11, jnp.dtype("float32"), ("embed", "mlp"), FAN_IN)
    params = {
        "kernel": jnp.ones((13, 11)),
        "bias": jnp.ones(11),
        "lora_a": jnp.ones((13, 2)),
        "lora_b": jnp.ones((2, 11)),
    }
    program = str(jax.make_jaxpr(layer.apply)({"params": params}, jnp.ones((5, 13))))
    assert program.count("dot_general") == 3 and program.count(":f32[13,11]") == 1  # the kernel itself, given


@pytest.mark.parametrize("config", [PALI, PALM_E], ids=["pali", "palm_e"])
def test_axes_follow_the_kernels(config):
    lora = config.replace(lora=ALL)
    leaves, axes = shapes(lora), flat(make_backbone(lora).logical_axes())
    kernels = [path.removesuffix("/kernel") for path in leaves if path.endswith("/kernel")]
    assert len(kernels) == sum(path.endswith("/lora_a") for path in leaves)
    for path in kernels:
        a, b, kernel = (axes[f"{path}/{name}"] for name in ("lora_a", "lora_b", "kernel"))
        stack = kernel[: kernel[0] == "layers"]
        assert a[-1] == b[len(stack)] == "lora_rank" and a[: len(stack)] == b[: len(stack)] == stack
        assert (*a[:-1], *b[len(stack) + 1 :]) == kernel
        for name in ("lora_a", "lora_b"):
            assert len(axes[f"{path}/{name}"]) == leaves[f"{path}/{name}"].ndim
            assert leaves[f"{path}/{name}"].dtype == jnp.float32
    assert LOGICAL_RULES["lora_rank"] == ()
    out = "encoder/blocks/attention/out" if config is PALI else "decoder/blocks/attention/out"
    assert axes[f"{out}/lora_a"] == ("layers", "heads", "head_dim", "lora_rank")
    assert axes[f"{out}/lora_b"] == ("layers", "lora_rank", "embed")


NAMES = (
    "vision",
    "encoder",
    "decoder",
    "blocks",
    "attention",
    "self_attention",
    "query",
    "value",
    "out",
    "mlp",
    "gate",
)


@settings(max_examples=25)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_the_kernels_that_match_whole_have_adapters_and_no_others(names, before, after):
    pattern = (".*" if before else "") + ".*".join(names) + (".*" if after else "")
    config = PALI.replace(lora=LoraConfig(pattern, 2, 2.0))
    kernels = {path.removesuffix("/kernel") for path in shapes(PALI) if path.endswith("/kernel")}
    wanted = {path for path in kernels if re.fullmatch(pattern, path)}
    if not wanted:
        with pytest.raises(UserError, match=r"matches none of the \d+ kernels, such as .*; mend it"):
            shapes(config)
        return
    found = {path for path in shapes(config) if "lora_" in path}
    assert found == {f"{path}/{name}" for path in wanted for name in ("lora_a", "lora_b")}


def test_a_rank_that_saves_nothing_is_refused():
    message = "lora rank 16 is not below both sides of kernel encoder/blocks/attention/query, 24 x 16; lower"
    with pytest.raises(UserError, match=message):
        shapes(PALI.replace(lora=LoraConfig("encoder/.*query", 16, 1.0)))
    assert shapes(PALI.replace(lora=LoraConfig("encoder/.*query", 15, 1.0)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "lora.rank is 0, allowed: 1 to"),
        ({"alpha": 0.0}, "lora.alpha is 0.0, allowed: above 0"),
        ({"alpha": float("nan")}, "lora.alpha is nan, allowed: above 0.0, finite"),
        ({"pattern": "a("}, r"lora pattern 'a\(' is not a regular expression"),
    ],
)
def test_bad_values_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(ALL, **fields)


def test_merging_needs_adapters():
    with pytest.raises(UserError, match="model test has no LoRA adapters to merge"):
        merge_lora({}, PALI)


def test_json_carries_them_and_does_without():
    config = PALI.replace(lora=ALL)
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert "lora" not in PALI.to_json()
    with pytest.raises(UserError, match="model: unknown key lora.dropout = 0.1; allowed: alpha, pattern, rank"):
        ModelConfig.from_json({**config.to_json(), "lora": {"pattern": ".*", "rank": 1, "alpha": 1.0, "dropout": 0.1}})
