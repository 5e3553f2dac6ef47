"""The names of `transformers`: T5 1.1, mT5, UL2 and umT5; SigLIP and SigLIP 2; Gemma 1 and 2; PaliGemma 1 and 2.

Its linear layers hold [out, in], with the heads of an attention side by side in one axis.
"""

import dataclasses
from collections.abc import Collection

from rt2_jax.convert.layout import Layout, Leaf
from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig, PrefixLmConfig, VitConfig

_HEADS_IN, _HEADS_OUT = "(h d) w -> w h d", "w (h d) -> h d w"
_LINEAR, _SAME = "o i -> i o", "w -> w"


def t5_layout(text: EncoderDecoderConfig, names: Collection[str] = ()) -> Layout:
    """T5ForConditionalGeneration, MT5ForConditionalGeneration and UMT5ForConditionalGeneration.

    `names` holds the checkpoint's; without a head among them the table scores too, as it is.
    """
    leaves = [Leaf("token_embedding/embedding", "shared.weight", "v w -> v w")]
    if not text.tied_embeddings:
        head = "lm_head.weight" if not names or "lm_head.weight" in names else "shared.weight"
        leaves.append(Leaf("logits/kernel", head, "v w -> w v"))
    for stack in ("encoder", "decoder"):
        attentions = {"attention": (0, "SelfAttention")}
        if stack == "decoder":
            attentions = {"self_attention": (0, "SelfAttention"), "cross_attention": (1, "EncDecAttention")}
        for ours, (number, theirs) in attentions.items():
            layer = f"{stack}.block.{{}}.layer.{number}"
            for kernel, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
                axes = _HEADS_OUT if kernel == "out" else _HEADS_IN
                leaves.append(Leaf(f"{stack}/blocks/{ours}/{kernel}/kernel", f"{layer}.{theirs}.{letter}.weight", axes))
            leaves.append(Leaf(f"{stack}/blocks/norm_{ours}/scale", f"{layer}.layer_norm.weight", _SAME))
        layer = f"{stack}.block.{{}}.layer.{len(attentions)}"
        for kernel, name in (("gate", "wi_0"), ("up", "wi_1"), ("down", "wo")):
            leaves.append(Leaf(f"{stack}/blocks/mlp/{kernel}/kernel", f"{layer}.DenseReluDense.{name}.weight", _LINEAR))
        leaves.append(Leaf(f"{stack}/blocks/norm_mlp/scale", f"{layer}.layer_norm.weight", _SAME))
        table, block = ("blocks/relative_bias", "{}") if text.per_layer_bias else ("relative_bias", "0")
        bias = f"{stack}.block.{block}.layer.0.SelfAttention.relative_attention_bias.weight"
        leaves.append(Leaf(f"{stack}/{table}/table", bias, "n h -> n h"))
        if stack == "encoder" or text.decoder_norm_scale:
            leaves.append(Leaf(f"{stack}/norm/scale", f"{stack}.final_layer_norm.weight", _SAME))
    copies = {f"{stack}.embed_tokens.weight": "shared.weight" for stack in ("encoder", "decoder")}
    if text.tied_embeddings:
        copies["lm_head.weight"] = "shared.weight"
    return Layout(
        tuple(leaves),
        {"h": text.heads, "d": text.head_dim},
        ((r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight", "never used"),),
        copies,
    )


def siglip_layout(vision: VitConfig, patches_as_rows: bool = False) -> Layout:
    """A SigLIP tower without the start of its names; `patches_as_rows`: SigLIP 2's naflex, which is given patches."""
    patch = "w p -> p w" if patches_as_rows else "w c pa pb -> (pa pb c) w"
    leaves = [
        Leaf("vision/patch_embedding/kernel", "embeddings.patch_embedding.weight", patch),
        Leaf("vision/patch_embedding/bias", "embeddings.patch_embedding.bias", _SAME),
        Leaf("vision/position_embedding", "embeddings.position_embedding.weight", "n w -> n w"),
    ]
    layer = "encoder.layers.{}"
    heads_in, heads_out = "(vh vd) w -> w vh vd", "w (vh vd) -> vh vd w"
    for kernel, name in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")):
        weight, bias = (heads_out, _SAME) if kernel == "out" else (heads_in, "(vh vd) -> vh vd")
        leaves.append(Leaf(f"vision/blocks/attention/{kernel}/kernel", f"{layer}.self_attn.{name}.weight", weight))
        leaves.append(Leaf(f"vision/blocks/attention/{kernel}/bias", f"{layer}.self_attn.{name}.bias", bias))
    for kernel, name in (("up", "fc1"), ("down", "fc2")):
        leaves.append(Leaf(f"vision/blocks/mlp/{kernel}/kernel", f"{layer}.mlp.{name}.weight", _LINEAR))
        leaves.append(Leaf(f"vision/blocks/mlp/{kernel}/bias", f"{layer}.mlp.{name}.bias", _SAME))
    norms = {
        "vision/blocks/norm_attention": f"{layer}.layer_norm1",
        "vision/blocks/norm_mlp": f"{layer}.layer_norm2",
        "vision/norm": "post_layernorm",
    }
    for ours, theirs in norms.items():
        leaves += [Leaf(f"{ours}/scale", f"{theirs}.weight", _SAME), Leaf(f"{ours}/bias", f"{theirs}.bias", _SAME)]
    return Layout(
        tuple(leaves),
        {"vh": vision.heads, "vd": vision.head_dim, "pa": vision.patch_size, "pb": vision.patch_size},
        (
            (r"head\..*", "the pooling head: patch tokens are used unpooled"),
            (r"embeddings\.position_ids", "a constant"),
        ),
    )


# In a file with both towers.
SIGLIP_IGNORED = ((r"text_model\..*", "SigLIP's text tower"), (r"logit_(scale|bias)", "SigLIP's loss"))


def gemma_layout(text: PrefixLmConfig) -> Layout:
    """GemmaModel and Gemma2Model without the start of their names."""
    layer = "layers.{}"
    leaves = [
        Leaf("token_embedding/embedding", "embed_tokens.weight", "v w -> v w"),
        Leaf("decoder/norm/scale", "norm.weight", _SAME),
        Leaf("decoder/blocks/attention/query/kernel", f"{layer}.self_attn.q_proj.weight", _HEADS_IN),
        Leaf("decoder/blocks/attention/key/kernel", f"{layer}.self_attn.k_proj.weight", "(k d) w -> w k d"),
        Leaf("decoder/blocks/attention/value/kernel", f"{layer}.self_attn.v_proj.weight", "(k d) w -> w k d"),
        Leaf("decoder/blocks/attention/out/kernel", f"{layer}.self_attn.o_proj.weight", _HEADS_OUT),
    ]
    leaves += [
        Leaf(f"decoder/blocks/mlp/{kernel}/kernel", f"{layer}.mlp.{kernel}_proj.weight", _LINEAR)
        for kernel in ("gate", "up", "down")
    ]
    norms = {"norm_attention": "input_layernorm", "norm_mlp": "post_attention_layernorm"}
    if text.post_norms:
        norms = {
            "norm_attention": "input_layernorm",
            "post_norm_attention": "post_attention_layernorm",
            "norm_mlp": "pre_feedforward_layernorm",
            "post_norm_mlp": "post_feedforward_layernorm",
        }
    leaves += [Leaf(f"decoder/blocks/{ours}/scale", f"{layer}.{name}.weight", _SAME) for ours, name in norms.items()]
    return Layout(
        tuple(leaves),
        {"h": text.heads, "k": text.kv_heads, "d": text.head_dim},
        ((r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq", "a constant"),),
    )


def projector_layout() -> Layout:
    """PaliGemma's projection of image tokens, without the start of its names."""
    return Layout(
        (
            Leaf("image_projection/kernel", "multi_modal_projector.linear.weight", _LINEAR),
            Leaf("image_projection/bias", "multi_modal_projector.linear.bias", _SAME),
        ),
        {},
    )


def siglip_spelling(vision: VitConfig, patches_as_rows: bool, names: Collection[str] = ()) -> Layout:
    """SiglipVisionModel and Siglip2VisionModel, or both towers in one file.

    Releases differ in how names start: `names` holds the checkpoint's; none of them stands for the public files.
    """
    prefix = _start(names, "embeddings.patch_embedding.weight", ("vision_model.", ""))
    layout = siglip_layout(vision, patches_as_rows).renamed(prefix)
    return dataclasses.replace(layout, ignored=layout.ignored + SIGLIP_IGNORED)


def gemma_spelling(text: PrefixLmConfig) -> Layout:
    """GemmaForCausalLM and Gemma2ForCausalLM."""
    layout = gemma_layout(text).renamed("model.")
    return dataclasses.replace(layout, copies={"lm_head.weight": "model.embed_tokens.weight"})


def paligemma_spelling(config: ModelConfig, names: Collection[str] = ()) -> Layout:
    """PaliGemmaForConditionalGeneration; see `siglip_spelling` for `names`."""
    towers = ("vision_tower.vision_model.", "vision_tower.", "model.vision_tower.vision_model.", "model.vision_tower.")
    tower = _start(names, "embeddings.patch_embedding.weight", towers)
    text = _start(names, "embed_tokens.weight", ("language_model.model.", "model.language_model."))
    projector = projector_layout().renamed("model." if tower.startswith("model.") else "")
    assert config.vision is not None and isinstance(config.text, PrefixLmConfig)
    layout = siglip_layout(config.vision).renamed(tower) + projector + gemma_layout(config.text).renamed(text)
    heads = ("lm_head.weight", "language_model.lm_head.weight")
    return dataclasses.replace(layout, copies=dict.fromkeys(heads, f"{text}embed_tokens.weight"))


def _start(names: Collection[str], end: str, starts: tuple[str, ...]) -> str:
    """The start with which `end` is among the names; the first where none is."""
    return next((start for start in starts if start + end in names), starts[0])
