"""ViT, encoder-decoder and their PaLI wiring; the only home of flax.linen."""

from rt2_jax.models.backbone import Backbone, PaliBackbone, make_backbone
from rt2_jax.models.config import ModelConfig, TextConfig, VitConfig
from rt2_jax.models.encoder_decoder import Cache
from rt2_jax.models.pali import PAD_ID, Encoded
from rt2_jax.models.sizes import SIZES, get_config, param_count

__all__ = [
    "PAD_ID",
    "SIZES",
    "Backbone",
    "Cache",
    "Encoded",
    "ModelConfig",
    "PaliBackbone",
    "TextConfig",
    "VitConfig",
    "get_config",
    "make_backbone",
    "param_count",
]
