"""Configurations: JSON both ways, refusals, and the published parameter counts."""

import json
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rt2_jax.errors import UserError
from rt2_jax.models import SIZES, EncoderDecoderConfig, ModelConfig, VitConfig, get_config, param_count


@pytest.mark.parametrize("name", SIZES)
def test_json_round_trip(name):
    config = get_config(name)
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.name == name


@given(
    name=st.sampled_from(sorted(SIZES)),
    images=st.integers(1, 4),
    rate=st.floats(0, 0.5),
    remat=st.sampled_from(("none", "dots", "full")),
    bias=st.booleans(),
)
def test_changed_configs_round_trip(name, images, rate, remat, bias):
    config = get_config(name).replace(
        num_images=images, remat=remat, text={"dropout_rate": rate}, vision={"qk_norm": bias}
    )
    assert config.text.dropout_rate == rate and config.vision.qk_norm == bias
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


SMALL = ModelConfig(
    name="test",
    vision=VitConfig(patch_size=12, width=32, layers=1, heads=2, head_dim=8, mlp=48, stem_widths=(8, 16)),
    text=EncoderDecoderConfig(width=24, encoder_layers=1, decoder_layers=1, heads=2, head_dim=8, mlp=40),
    image_size=24,
    vocab_size=128,
)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_size": 100}, "image_size 100 is no multiple of patch_size 12"),
        ({"vision": {"stem_widths": (8, 8, 8)}}, "patch_size 12 a multiple of 8"),
        ({"vision": {"stem_widths": (0,)}}, "must be positive"),
        ({"compute_dtype": "float16"}, "compute_dtype 'float16' is none of"),
        ({"remat": "some"}, "remat 'some' is none of"),
        ({"text": {"activation": "relu"}}, "activation 'relu' is none of"),
        ({"text": {"dropout_rate": 1.0}}, "text dropout_rate 1.0"),
    ],
)
def test_bad_values_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        SMALL.replace(**changes)


def test_unknown_and_missing_fields_are_refused():
    tree = get_config("tiny").to_json()
    with pytest.raises(UserError, match="VitConfig has no field .'pooling'"):
        ModelConfig.from_json({**tree, "vision": {**tree["vision"], "pooling": 1}})
    with pytest.raises(UserError, match="ModelConfig lacks the field .'vocab_size'"):
        ModelConfig.from_json({key: value for key, value in tree.items() if key != "vocab_size"})
    with pytest.raises(UserError, match="model size 'huge' is unknown; the sizes are tiny"):
        get_config("huge")


# Billions, from the papers' tables and public configs; the projection and position embeddings are not in them.
PUBLISHED = [
    ("pali_x_55b", {"vision": 21.74, "text": 32.25}),
    ("pali_x_5b", {"vision": 1.84, "text": 3.74}),
    ("pali_3b", {"vision": 1.84, "text": 2.85}),
]


@pytest.mark.parametrize("name, parts", PUBLISHED)
def test_published_sizes(name, parts):
    counts = param_count(get_config(name))
    for part, billions in parts.items():
        assert math.isclose(counts[part] / 1e9, billions, rel_tol=0.01), (part, counts)
    assert counts["total"] == counts["vision"] + counts["projection"] + counts["text"]


def test_small_sizes():
    assert 2.0e6 < param_count(get_config("tiny"))["total"] < 3.5e6
    assert 25e6 < param_count(get_config("small"))["total"] < 35e6
    assert SMALL.tokens_per_image == 4
    assert get_config("pali_x_55b").tokens_per_image == 256
