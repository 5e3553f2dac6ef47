"""The names of T5X checkpoints: mT5 and T5 1.1 with a tensor a layer and 2-D kernels, umT5 with layers on axis 1."""

from rt2_jax.convert.layout import LAYER, Layout, Leaf
from rt2_jax.models.config import EncoderDecoderConfig

_NORMS = {
    "encoder": {"norm_attention": "pre_attention_layer_norm", "norm_mlp": "pre_mlp_layer_norm"},
    "decoder": {
        "norm_self_attention": "pre_self_attention_layer_norm",
        "norm_cross_attention": "pre_cross_attention_layer_norm",
        "norm_mlp": "pre_mlp_layer_norm",
    },
}
_ATTENTIONS = {
    "encoder": {"attention": "attention"},
    "decoder": {"self_attention": "self_attention", "cross_attention": "encoder_decoder_attention"},
}


def t5x_layout(text: EncoderDecoderConfig) -> Layout:
    """The parameters under "target/"; umT5 (`per_layer_bias`) names the stack of layers after the part it is in."""
    scanned = text.per_layer_bias
    leaves = [Leaf("token_embedding/embedding", "token_embedder/embedding", "v w -> v w")]
    if not text.tied_embeddings:
        leaves.append(Leaf("logits/kernel", "decoder/logits_dense/kernel", "w v -> w v"))
    for stack in ("encoder", "decoder"):
        layer = f"{stack}/{stack}" if scanned else f"{stack}/layers_{LAYER}"
        rows = []
        for ours, theirs in _ATTENTIONS[stack].items():
            for name in ("query", "key", "value"):
                axes = "w h d -> w h d" if scanned else "w (h d) -> w h d"
                rows.append((f"{ours}/{name}/kernel", f"{theirs}/{name}/kernel", axes))
            axes = "h d w -> h d w" if scanned else "(h d) w -> h d w"
            rows.append((f"{ours}/out/kernel", f"{theirs}/out/kernel", axes))
        for ours, theirs in (("gate", "wi_0"), ("up", "wi_1"), ("down", "wo")):
            rows.append((f"mlp/{ours}/kernel", f"mlp/{theirs}/kernel", "i o -> i o"))
        rows += [(f"{ours}/scale", f"{theirs}/scale", "w -> w") for ours, theirs in _NORMS[stack].items()]
        if scanned:
            rows.append(("relative_bias/table", "relpos_bias/rel_embedding", "h n -> n h"))
        else:
            leaves.append(Leaf(f"{stack}/relative_bias/table", f"{stack}/relpos_bias/rel_embedding", "h n -> n h"))
        for ours, theirs, axes in rows:
            stacked = 1 if scanned else None
            leaves.append(Leaf(f"{stack}/blocks/{ours}", f"{layer}/{theirs}", axes, stacked=stacked))
        if stack == "encoder" or text.decoder_norm_scale:
            leaves.append(Leaf(f"{stack}/norm/scale", f"{stack}/{stack}_norm/scale", "w -> w"))
    return Layout(tuple(leaves), {"h": text.heads, "d": text.head_dim})
