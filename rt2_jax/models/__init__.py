"""ViT, encoder-decoder and prefix LM, and their PaLI and PaLM-E wirings; the only home of flax.linen."""

from rt2_jax.models.backbone import Backbone, ModelBackbone, for_decoding, make_backbone
from rt2_jax.models.config import EncoderDecoderConfig, LoraConfig, ModelConfig, PrefixLmConfig, VitConfig
from rt2_jax.models.embedding import PAD_ID
from rt2_jax.models.int8 import quantize
from rt2_jax.models.lora import merge_lora
from rt2_jax.models.sizes import SIZES, get_config, param_count

__all__ = [
    "PAD_ID",
    "SIZES",
    "Backbone",
    "EncoderDecoderConfig",
    "LoraConfig",
    "ModelBackbone",
    "ModelConfig",
    "PrefixLmConfig",
    "VitConfig",
    "for_decoding",
    "get_config",
    "make_backbone",
    "merge_lora",
    "param_count",
    "quantize",
]
