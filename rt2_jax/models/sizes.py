"""The table of sizes. The tiny model is built by the same code as the 55B one."""

import math

import jax
import numpy as np
from jaxtyping import PyTree

from rt2_jax.errors import UserError
from rt2_jax.models import parts
from rt2_jax.models.backbone import make_backbone
from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig, PrefixLmConfig, VitConfig
from rt2_jax.typed import shown


def _full(
    name: str, vision: VitConfig, text: EncoderDecoderConfig | PrefixLmConfig, vocab_size: int, num_images: int = 1
) -> ModelConfig:
    """A model for accelerators, on frames of 224 pixels."""
    return ModelConfig(
        name=name,
        vision=vision,
        text=text,
        image_size=224,
        vocab_size=vocab_size,
        num_images=num_images,
        compute_dtype="bfloat16",
        remat="full",
    )


def _laptop(
    name: str, vision: VitConfig, text: EncoderDecoderConfig | PrefixLmConfig, scan_unroll: bool
) -> ModelConfig:
    """A model for the tabletop world and a CPU, with the vocabulary that ships."""
    return ModelConfig(name=name, vision=vision, text=text, image_size=96, vocab_size=2304, scan_unroll=scan_unroll)


# Vocabularies are padded to a multiple of 128 tokens (see tokens/vocabulary.py).
SIZES: dict[str, ModelConfig] = {
    config.name: config
    for config in (
        _laptop("tiny", parts.TINY_VIT, parts.TINY_T5, scan_unroll=True),
        _laptop("tiny_palm_e", parts.TINY_VIT, parts.TINY_PALM, scan_unroll=True),
        _laptop("small", parts.SMALL_VIT, parts.SMALL_T5, scan_unroll=False),
        # RT-2's own (arXiv 2307.15818, section 3 and appendix): PaLI-3B on Language Table, PaLI-X, PaLM-E.
        _full("pali_3b", parts.VIT_G, parts.UL2_3B, 32_128, num_images=2),
        _full("pali_x_5b", parts.VIT_G, parts.UL2_3B, 250_112),
        _full("pali_x_55b", parts.VIT_22B, parts.UL2_32B, 250_112),
        _full("palm_e_12b", parts.VIT_E, parts.PALM_8B, 256_000),
        # Open stand-ins, whose weights anyone can bring.
        _full("siglip_umt5_xl", parts.VIT_SO400M, parts.UMT5_XL, 256_384),
        _full("siglip_ul2_20b", parts.VIT_SO400M, parts.UL2_20B, 32_128),
        _full("paligemma_3b", parts.VIT_SO400M, parts.GEMMA_2B, 257_280),
        _full("paligemma2_3b", parts.VIT_SO400M, parts.GEMMA2_2B, 257_280),
        _full("paligemma2_10b", parts.VIT_SO400M, parts.GEMMA2_9B, 257_280),
        _full("paligemma2_28b", parts.VIT_SO400M, parts.GEMMA2_27B, 257_280),
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
        raise UserError(f"model size {shown(name)} is unknown; the sizes are {', '.join(SIZES)}")
    return SIZES[name]


def count(tree: PyTree) -> int:
    """Numbers held by a tree of arrays or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def group_count(config: ModelConfig) -> dict[str, int]:
    """Parameters by top-level group of the tree ("vision", "encoder", ...); nothing is allocated."""
    shapes = jax.eval_shape(make_backbone(config).init, jax.ShapeDtypeStruct((2,), np.uint32))
    return {group: count(tree) for group, tree in shapes.items()}


def param_count(config: ModelConfig) -> dict[str, int]:
    """Parameters by part ("vision", "projection", "text") and in "total"; nothing is allocated."""
    groups = group_count(config)
    counts = {part: sum(groups.get(group, 0) for group in members) for part, members in PARTS.items()}
    return {**counts, "total": sum(groups.values())}
