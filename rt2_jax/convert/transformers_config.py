"""The config.json of a model that goes out to `transformers`."""

import math
from typing import Any

from rt2_jax.errors import UserError
from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig, PrefixLmConfig, VitConfig


def t5_config(text: EncoderDecoderConfig, vocab_size: int) -> dict[str, Any]:
    """T5 1.1 (mT5 and UL2 are it) or umT5."""
    umt5 = text.per_layer_bias
    return {
        "architectures": ["UMT5ForConditionalGeneration" if umt5 else "T5ForConditionalGeneration"],
        "model_type": "umt5" if umt5 else "t5",
        "vocab_size": vocab_size,
        "d_model": text.width,
        "d_kv": text.head_dim,
        "d_ff": text.mlp,
        "num_heads": text.heads,
        "num_layers": text.encoder_layers,
        "num_decoder_layers": text.decoder_layers,
        "feed_forward_proj": f"gated-{text.activation}",
        "relative_attention_num_buckets": text.relative_buckets,
        "relative_attention_max_distance": text.relative_max_distance,
        "layer_norm_epsilon": 1e-6,
        "tie_word_embeddings": text.tied_embeddings,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def gemma_config(text: PrefixLmConfig, vocab_size: int) -> dict[str, Any]:
    """Gemma 1, or 2 where branches are normed before they are added.

    Raises:
        UserError: a block that is neither's.
    """
    second = text.post_norms
    scalar = round(text.query_scale**-2) if text.query_scale else text.head_dim  # an integer in their config
    wrong = {
        "parallel_block": text.parallel_block,
        "norm": text.norm != "rms",
        "scaled_inputs": not text.scaled_inputs,
        "sliding_window": bool(text.sliding_window) != second or (text.global_every != 2 and second),
        "attention_softcap": bool(text.attention_softcap) and not second,
        "logits_softcap": bool(text.logits_softcap) and not second,
        "query_scale": bool(text.query_scale) and (not second or not math.isclose(scalar**-0.5, text.query_scale)),
    }
    _refuse(wrong, "Gemma's")
    config = {
        "architectures": ["Gemma2ForCausalLM" if second else "GemmaForCausalLM"],
        "model_type": "gemma2" if second else "gemma",
        "vocab_size": vocab_size,
        "hidden_size": text.width,
        "intermediate_size": text.mlp,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "num_key_value_heads": text.kv_heads,
        "head_dim": text.head_dim,
        "hidden_activation": "gelu_pytorch_tanh" if text.activation == "gelu" else text.activation,
        "rope_theta": text.rope_theta,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": text.bos_id if text.bos_id is not None else 2,
    }
    if second:
        config |= {
            "query_pre_attn_scalar": scalar,
            "sliding_window": text.sliding_window,
            "attn_logit_softcapping": text.attention_softcap or None,
            "final_logit_softcapping": text.logits_softcap or None,
        }
    return config


def siglip_config(vision: VitConfig, image_size: int) -> dict[str, Any]:
    """A SigLIP tower without its pooling head.

    Raises:
        UserError: a ViT of another kind.
    """
    wrong = {
        "stem_widths": bool(vision.stem_widths),
        "parallel_blocks": vision.parallel_blocks,
        "qk_norm": vision.qk_norm,
        "qkv_bias": not vision.qkv_bias,
        "norm_bias": not vision.norm_bias,
        "head_dim": vision.head_dim * vision.heads != vision.width,
    }
    _refuse(wrong, "SigLIP's")
    return {
        "architectures": ["SiglipVisionModel"],
        "model_type": "siglip_vision_model",
        "hidden_size": vision.width,
        "intermediate_size": vision.mlp,
        "num_hidden_layers": vision.layers,
        "num_attention_heads": vision.heads,
        "num_channels": 3,
        "image_size": image_size,
        "patch_size": vision.patch_size,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu_pytorch_tanh",
        "vision_use_head": False,
    }


def paligemma_config(config: ModelConfig, image_token: int) -> dict[str, Any]:
    """PaliGemma 1 or 2."""
    assert config.vision is not None and isinstance(config.text, PrefixLmConfig)
    text = gemma_config(config.text, config.vocab_size)
    vision = siglip_config(config.vision, config.image_size)
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "model_type": "paligemma",
        "image_token_index": image_token,
        "hidden_size": config.text.width,
        "projection_dim": config.text.width,
        "vocab_size": config.vocab_size,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": text["bos_token_id"],
        "tie_word_embeddings": True,
        "text_config": {**text, "num_image_tokens": config.tokens_per_image},
        "vision_config": {**vision, "projection_dim": config.text.width},
    }


def _refuse(wrong: dict[str, bool], whose: str) -> None:
    fields = [field for field, is_wrong in wrong.items() if is_wrong]
    if fields:
        raise UserError(
            f"the model's {', '.join(fields)} is not {whose}, so no transformers class can hold it; export a bundle"
        )
