"""The names of big_vision's `.npz` files: ViT and SigLIP towers, PaliGemma; layers one by one or scanned."""

import dataclasses

from rt2_jax.convert.layout import LAYER, Layout, Leaf
from rt2_jax.models.config import ModelConfig, PrefixLmConfig, VitConfig


def vit_layout(vision: VitConfig, scanned: bool) -> Layout:
    """A ViT's image tower; `scanned`: its layers lie in one tensor along the first axis."""
    block = "Transformer/encoderblock" if scanned else f"Transformer/encoderblock_{LAYER}"
    leaves = [
        Leaf("vision/patch_embedding/kernel", "embedding/kernel", "pa pb c w -> (pa pb c) w"),
        Leaf("vision/patch_embedding/bias", "embedding/bias", "w -> w"),
        Leaf("vision/position_embedding", "pos_embedding", "1 n w -> n w"),
        Leaf("vision/norm/scale", "Transformer/encoder_norm/scale", "w -> w"),
        Leaf("vision/norm/bias", "Transformer/encoder_norm/bias", "w -> w"),
    ]
    blocks = []
    for ours, theirs in (("norm_attention", "LayerNorm_0"), ("norm_mlp", "LayerNorm_1")):
        blocks += [(f"{ours}/{leaf}", f"{theirs}/{leaf}", "w -> w") for leaf in ("scale", "bias")]
    for name in ("query", "key", "value", "out"):
        theirs = f"MultiHeadDotProductAttention_0/{name}"
        blocks.append((f"attention/{name}/kernel", f"{theirs}/kernel", "a b c -> a b c"))
        blocks.append((f"attention/{name}/bias", f"{theirs}/bias", "w -> w" if name == "out" else "vh vd -> vh vd"))
    for ours, theirs in (("up", "Dense_0"), ("down", "Dense_1")):
        blocks.append((f"mlp/{ours}/kernel", f"MlpBlock_0/{theirs}/kernel", "i o -> i o"))
        blocks.append((f"mlp/{ours}/bias", f"MlpBlock_0/{theirs}/bias", "o -> o"))
    stacked = 0 if scanned else None
    leaves += [Leaf(f"vision/blocks/{ours}", f"{block}/{name}", axes, stacked=stacked) for ours, name, axes in blocks]
    return Layout(
        tuple(leaves),
        {"pa": vision.patch_size, "pb": vision.patch_size},
        ((r"MAPHead_0/.*", "the pooling head: patch tokens are used unpooled"),),
    )


def siglip_layout(vision: VitConfig, scanned: bool) -> Layout:
    """The image tower of a file with two towers."""
    layout = vit_layout(vision, scanned).renamed("img/")
    ignored = ((r"txt/.*", "SigLIP's text tower"), (r"t|b", "SigLIP's loss"), (r"img/head/.*", "a pooled head"))
    return dataclasses.replace(layout, ignored=layout.ignored + ignored)


def gemma_layout(text: PrefixLmConfig) -> Layout:
    """Gemma 1 and 2, always scanned: the axis of layers is the first."""
    attention, mlp = "decoder/blocks/attention", "decoder/blocks/mlp"
    leaves = [
        Leaf("token_embedding/embedding", "embedder/input_embedding", "v w -> v w"),
        Leaf("decoder/norm/scale", "final_norm/scale", "w -> w"),
        Leaf(f"{attention}/out/kernel", "layers/attn/attn_vec_einsum/w", "h d w -> h d w", stacked=0),
        Leaf(f"{mlp}/gate/kernel", "layers/mlp/gating_einsum", "w m -> w m", part=0, stacked=0),
        Leaf(f"{mlp}/up/kernel", "layers/mlp/gating_einsum", "w m -> w m", part=1, stacked=0),
        Leaf(f"{mlp}/down/kernel", "layers/mlp/linear", "m w -> m w", stacked=0),
    ]
    if text.heads == text.kv_heads:
        for part, name in enumerate(("query", "key", "value")):
            leaves.append(
                Leaf(f"{attention}/{name}/kernel", "layers/attn/qkv_einsum/w", "h w d -> w h d", part=part, stacked=0)
            )
    else:
        leaves.append(Leaf(f"{attention}/query/kernel", "layers/attn/q_einsum/w", "h w d -> w h d", stacked=0))
        for part, name in enumerate(("key", "value")):
            leaves.append(
                Leaf(f"{attention}/{name}/kernel", "layers/attn/kv_einsum/w", "k w d -> w k d", part=part, stacked=0)
            )
    norms = {"norm_attention": "pre_attention_norm", "norm_mlp": "pre_ffw_norm"}
    if text.post_norms:
        norms |= {"post_norm_attention": "post_attention_norm", "post_norm_mlp": "post_ffw_norm"}
    for ours, theirs in norms.items():
        leaves.append(Leaf(f"decoder/blocks/{ours}/scale", f"layers/{theirs}/scale", "w -> w", stacked=0))
    return Layout(tuple(leaves), {})


def paligemma_layout(config: ModelConfig, scanned: bool = True) -> Layout:
    """PaliGemma: the image tower with its head as the projection, and Gemma."""
    head = Layout(
        (
            Leaf("image_projection/kernel", "img/head/kernel", "i o -> i o"),
            Leaf("image_projection/bias", "img/head/bias", "o -> o"),
        ),
        {},
    )
    assert config.vision is not None and isinstance(config.text, PrefixLmConfig)
    return vit_layout(config.vision, scanned).renamed("img/") + head + gemma_layout(config.text).renamed("llm/")
