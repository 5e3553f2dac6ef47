"""What a config.json says, also by what it leaves out."""

import json

import numpy as np
import pytest
import safetensors.numpy

from rt2_jax.convert.infer import infer
from rt2_jax.convert.sources import SafetensorsSource
from rt2_jax.errors import UserError
from rt2_jax.models.parts import GEMMA2_2B, GEMMA_2B, PALIGEMMA_PROMPT, UL2_20B, UMT5_XL, VIT_SO400M


@pytest.fixture
def found(tmp_path):
    """infer() of a folder with this config and tensors of these names and shapes."""

    def one(config, **shapes):
        (tmp_path / "config.json").write_text(json.dumps(config))
        tensors = {name: np.zeros(shape, np.float16) for name, shape in {"any": (1,), **shapes}.items()}
        safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
        return infer(SafetensorsSource(tmp_path))

    return one


SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 27}
POSITIONS = "vision_model.embeddings.position_embedding.weight"


def test_siglip(found):
    """The base size of SigLIP is all defaults in its public file; So400m gives what differs."""
    base = found(
        {"model_type": "siglip", "vision_config": {"model_type": "siglip_vision_model"}}, **{POSITIONS: (196, 1)}
    )
    assert (base.kind, base.image_tokens) == ("siglip", 196)
    assert (base.vision.width, base.vision.layers, base.vision.heads, base.vision.mlp) == (768, 12, 12, 3072)
    assert base.vision.patch_size == 16 and base.text is None
    large = found({"model_type": "siglip", "vision_config": {**SO400M, "patch_size": 14}}, **{POSITIONS: (256, 1)})
    assert large.vision == VIT_SO400M


def test_paligemma(found):
    """The public files say little of Gemma, and nothing of the frame's size at 224 pixels."""
    text = {"hidden_size": 2048, "intermediate_size": 16384, "num_attention_heads": 8, "num_hidden_layers": 18}
    text |= {"model_type": "gemma", "num_key_value_heads": 1, "vocab_size": 257216}
    config = {"model_type": "paligemma", "text_config": text, "vision_config": {**SO400M, "patch_size": 14}}
    first = found(config)
    without = dict.fromkeys(PALIGEMMA_PROMPT)
    assert (first.vision, first.image_tokens, first.vocab_size) == (VIT_SO400M, 256, 257216)
    assert first.text == type(GEMMA_2B)(**{**vars(GEMMA_2B), **without})
    text = {"hidden_size": 2304, "intermediate_size": 9216, "num_attention_heads": 8, "num_hidden_layers": 26}
    text |= {"model_type": "gemma2", "num_key_value_heads": 4, "vocab_size": 257216}
    second = found({**config, "text_config": text, "vision_config": {**SO400M, "patch_size": 14, "image_size": 448}})
    assert second.image_tokens == 1024
    assert second.text == type(GEMMA2_2B)(**{**vars(GEMMA2_2B), **without, "query_scale": 256**-0.5})


def test_t5(found):
    xl = {"d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_heads": 32, "num_layers": 24, "vocab_size": 256384}
    gate = {"encoder.block.0.layer.1.DenseReluDense.wi_0.weight": (1, 1)}
    # Early umT5 files say relu of a gated GELU.
    config = {**xl, "model_type": "umt5", "feed_forward_proj": "relu", "tie_word_embeddings": False}
    assert found(config, **gate).text == UMT5_XL
    ul2 = {"d_model": 4096, "d_kv": 256, "d_ff": 16384, "num_heads": 16, "num_layers": 32, "vocab_size": 32128}
    config = {**ul2, "model_type": "t5", "feed_forward_proj": "gated-silu", "tie_word_embeddings": False}
    text = found(config, **gate).text
    assert text == type(UL2_20B)(**{**vars(UL2_20B), "decoder_norm_scale": True})
    with pytest.raises(UserError, match="T5 1.0, whose MLP has no gate"):
        found({**config, "feed_forward_proj": "relu"})


def test_gemma_2_of_another_order_is_refused(found):
    text = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 2, "vocab_size": 8}
    config = {**text, "model_type": "gemma2", "layer_types": ["full_attention", "sliding_attention"]}
    with pytest.raises(UserError, match="layer_types do not alternate between sliding and full"):
        found(config)
    assert found({**config, "layer_types": config["layer_types"][::-1]}).text.sliding_window == 4096
