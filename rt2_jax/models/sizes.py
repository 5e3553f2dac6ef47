"""The table of sizes. The tiny model is built by the same code as the 55B one."""

import math

import jax
import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.models.backbone import make_backbone
from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig, PrefixLmConfig, VitConfig

VIT_G = VitConfig(patch_size=14, width=1664, layers=48, heads=16, head_dim=104, mlp=8192)
VIT_22B = VitConfig(
    patch_size=14, width=6144, layers=48, heads=48, head_dim=128, mlp=24576,
    parallel_blocks=True, qk_norm=True, qkv_bias=False, norm_bias=False,
)  # fmt: skip
UL2_3B = EncoderDecoderConfig(width=2048, encoder_layers=24, decoder_layers=24, heads=32, head_dim=64, mlp=5120)
UL2_32B = EncoderDecoderConfig(
    width=4096, encoder_layers=50, decoder_layers=50, heads=16, head_dim=256, mlp=16384,
    activation="silu", decoder_norm_scale=False,
)  # fmt: skip

# PaLM's choices (arXiv 2204.02311, section 2), whatever the size.
PALM = {"activation": "silu", "parallel_block": True, "norm": "layer", "scaled_inputs": False}

TINY_VIT = VitConfig(
    patch_size=12, width=128, layers=2, heads=4, head_dim=32, mlp=512, stem_widths=(16, 32),
    branch_init=0.0, position_std=0.25,
)  # fmt: skip

SIZES: dict[str, ModelConfig] = {
    config.name: config
    for config in (
        ModelConfig(
            name="tiny",
            vision=TINY_VIT,
            text=EncoderDecoderConfig(
                width=128,
                encoder_layers=2,
                decoder_layers=2,
                heads=4,
                head_dim=32,
                mlp=384,
                encoder_branch_init=0.1,
            ),
            image_size=96,
            vocab_size=2304,
            scan_unroll=True,
        ),
        ModelConfig(
            name="tiny_palm_e",
            vision=TINY_VIT,
            text=PrefixLmConfig(
                width=128,
                layers=4,
                heads=4,
                kv_heads=1,
                head_dim=32,
                mlp=512,
                branch_init=0.1,
                **PALM,
            ),
            image_size=96,
            vocab_size=2304,
            scan_unroll=True,
        ),
        ModelConfig(
            name="small",
            vision=VitConfig(patch_size=12, width=384, layers=6, heads=6, head_dim=64, mlp=1536, stem_widths=(32, 64)),
            text=EncoderDecoderConfig(width=384, encoder_layers=4, decoder_layers=4, heads=6, head_dim=64, mlp=1024),
            image_size=96,
            vocab_size=2304,
        ),
        ModelConfig(
            name="pali_3b",
            vision=VIT_G,
            text=UL2_3B,
            image_size=224,
            vocab_size=32128,
            num_images=2,
            compute_dtype="bfloat16",
            remat="full",
        ),
        ModelConfig(
            name="pali_x_5b",
            vision=VIT_G,
            text=UL2_3B,
            image_size=224,
            vocab_size=250112,
            compute_dtype="bfloat16",
            remat="full",
        ),
        ModelConfig(
            name="pali_x_55b",
            vision=VIT_22B,
            text=UL2_32B,
            image_size=224,
            vocab_size=250112,
            compute_dtype="bfloat16",
            remat="full",
        ),
    )
}

# Checkpoint parts, as the paper's tables count them, and the top-level parameter groups that each holds.
PARTS = {
    "vision": ("vision",),
    "projection": ("image_projection",),
    "text": ("token_embedding", "encoder", "decoder", "logits"),
}


def get_config(name: str) -> ModelConfig:
    """The named size; UserError names the known ones."""
    if name not in SIZES:
        raise UserError(f"model size {name!r} is unknown; the sizes are {', '.join(SIZES)}")
    return SIZES[name]


def count(tree) -> int:
    """Numbers held by a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def param_count(config: ModelConfig) -> dict[str, int]:
    """Parameters by part ("vision", "projection", "text") and in "total"; nothing is allocated."""
    shapes = jax.eval_shape(make_backbone(config).init, jax.ShapeDtypeStruct((2,), np.uint32))
    counts = {part: sum(count(shapes[group]) for group in groups if group in shapes) for part, groups in PARTS.items()}
    return {**counts, "total": count(shapes)}
