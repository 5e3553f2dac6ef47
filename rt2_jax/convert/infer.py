"""What a foreign checkpoint says of its model: from config.json where there is one, else from names and shapes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rt2_jax.convert.sources import NpzSource, SafetensorsSource, Source, T5xSource
from rt2_jax.errors import UserError
from rt2_jax.models.config import EncoderDecoderConfig, PrefixLmConfig, VitConfig

ACTIVATIONS = {"gelu_pytorch_tanh": "gelu", "gelu_new": "gelu", "gelu": "gelu", "silu": "silu", "swish": "silu"}
PALIGEMMA_TYPES = ("paligemma",)
GEMMA_TYPES = ("gemma", "gemma2")
T5_TYPES = ("t5", "mt5", "umt5")
PROJECTOR_TYPE = "rt2_projector"  # what our exporter writes beside a vision and a text folder
VISION_TYPES = ("siglip_vision_model", "siglip2_vision_model", "siglip", "siglip2")
EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class Found:
    """A checkpoint's model; a part that it lacks is None.

    Attributes:
        kind: what it is, e.g. "umt5" or "paligemma".
        vision, text: its parts.
        image_tokens: rows of its position embedding.
        vocab_size: rows of its token table.
        scanned: layers lie along an axis of one tensor (big_vision).
    """

    kind: str
    vision: VitConfig | None = None
    text: EncoderDecoderConfig | PrefixLmConfig | None = None
    image_tokens: int = 0
    vocab_size: int = 0
    scanned: bool = False


def infer(source: Source) -> Found:
    """The model of a checkpoint.

    Raises:
        UserError: a model of another kind, or of a variant that is not built here.
    """
    if isinstance(source, SafetensorsSource):
        return _transformers(source)
    if isinstance(source, NpzSource):
        return _big_vision(source)
    if isinstance(source, T5xSource):
        return _t5x(source)
    raise TypeError(type(source).__name__)


# --- transformers -----------------------------------------------------------------------------------------------------

# Fields that a public config.json leaves out have the defaults of their class in transformers.


def _transformers(source: SafetensorsSource) -> Found:
    config = source.config
    kind = config.get("model_type")
    where = source.path / "config.json"
    if kind in T5_TYPES:
        return Found(kind, text=_t5_config(config, where, source), vocab_size=config["vocab_size"])
    if kind in GEMMA_TYPES:
        return Found(kind, text=_gemma_config(config, kind, where), vocab_size=config["vocab_size"])
    if kind in VISION_TYPES:
        config = config.get("vision_config", config)
        naflex = kind.startswith("siglip2")
        name = "embeddings.position_embedding.weight"
        tokens = _rows(source, name if name in source.shapes else f"vision_model.{name}")
        return Found("siglip2" if naflex else "siglip", vision=_siglip_config(config, where), image_tokens=tokens)
    if kind in PALIGEMMA_TYPES:
        text = config["text_config"]
        vision = _siglip_config(config["vision_config"], where)
        size = config["vision_config"].get("image_size", 224)
        return Found(
            kind,
            vision=vision,
            text=dataclasses.replace(
                _gemma_config(text, text.get("model_type", "gemma"), where), bidirectional_prefix=True
            ),
            image_tokens=(size // vision.patch_size) ** 2,
            vocab_size=text.get("vocab_size", config.get("vocab_size", 257216)),
        )
    if kind == PROJECTOR_TYPE:
        return Found("projector")
    known = ", ".join((*T5_TYPES, *GEMMA_TYPES, *VISION_TYPES, *PALIGEMMA_TYPES))
    raise UserError(f"{where}: model_type {kind!r} is not read here; the known ones are {known}")


def _t5_config(config: Mapping[str, Any], where: Any, source: Source) -> EncoderDecoderConfig:
    gated = any(name.endswith("DenseReluDense.wi_0.weight") for name in source.shapes)
    # Early umT5 files say "relu" of what is a gated GELU.
    form = config.get("feed_forward_proj", "relu")
    form = "gated-gelu" if gated and form == "relu" and config["model_type"] == "umt5" else form
    if not gated or not form.startswith("gated-"):
        raise UserError(f"{where}: feed_forward_proj {form!r} is T5 1.0, whose MLP has no gate; bring T5 1.1 or later")
    _check(where, "layer_norm_epsilon", config.get("layer_norm_epsilon", EPSILON), EPSILON)
    return EncoderDecoderConfig(
        width=config["d_model"],
        encoder_layers=config["num_layers"],
        decoder_layers=config.get("num_decoder_layers") or config["num_layers"],
        heads=config["num_heads"],
        head_dim=config["d_kv"],
        mlp=config["d_ff"],
        activation=_activation(form.removeprefix("gated-"), where),
        tied_embeddings="lm_head.weight" not in source.shapes and _scales_outputs(config),
        per_layer_bias=config["model_type"] == "umt5",
        relative_buckets=config.get("relative_attention_num_buckets", 32),
        relative_max_distance=config.get("relative_attention_max_distance", 128),
    )


def _scales_outputs(config: Mapping[str, Any]) -> bool:
    """Whether a T5 without a head of its own multiplies by width ** -0.5 before it scores with its table."""
    if config["model_type"] == "mt5":
        return False
    return config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))


def _gemma_config(config: Mapping[str, Any], kind: str, where: Any) -> PrefixLmConfig:
    if kind not in GEMMA_TYPES:
        raise UserError(f"{where}: text model {kind!r} is not read here; the known ones are {', '.join(GEMMA_TYPES)}")
    heads, second = config["num_attention_heads"], kind == "gemma2"
    _check(where, "rms_norm_eps", config.get("rms_norm_eps", EPSILON), EPSILON)
    _check(where, "attention_bias", config.get("attention_bias", False), False)
    head_dim = config.get("head_dim", 256)
    rope = config.get("rope_parameters") or {}
    window = config.get("sliding_window", 4096) if second else 0
    kinds = config.get("layer_types")
    if second and kinds and kinds != [("full", "sliding")[(i + 1) % 2] + "_attention" for i in range(len(kinds))]:
        raise UserError(f"{where}: layer_types do not alternate between sliding and full; only Gemma 2's order is read")
    return PrefixLmConfig(
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads", heads),
        head_dim=head_dim,
        mlp=config["intermediate_size"],
        activation=_activation(config.get("hidden_activation") or "gelu_pytorch_tanh", where),
        rope_theta=float(config.get("rope_theta", rope.get("rope_theta", 10_000.0))),
        query_scale=config.get("query_pre_attn_scalar", 256) ** -0.5 if second else 0.0,
        post_norms=second,
        sliding_window=window,
        attention_softcap=float(config.get("attn_logit_softcapping", 50.0) or 0.0) if second else 0.0,
        logits_softcap=float(config.get("final_logit_softcapping", 30.0) or 0.0) if second else 0.0,
        bidirectional_prefix=False,
    )


def _siglip_config(config: Mapping[str, Any], where: Any) -> VitConfig:
    width, heads = config.get("hidden_size", 768), config.get("num_attention_heads", 12)
    _check(where, "layer_norm_eps", config.get("layer_norm_eps", EPSILON), EPSILON)
    _activation(config.get("hidden_act", "gelu_pytorch_tanh"), where, ("gelu",))
    return VitConfig(
        patch_size=config.get("patch_size", 16),
        width=width,
        layers=config.get("num_hidden_layers", 12),
        heads=heads,
        head_dim=width // heads,
        mlp=config.get("intermediate_size", 3072),
    )


def _activation(name: str, where: Any, allowed: tuple[str, ...] = ("gelu", "silu")) -> str:
    if ACTIVATIONS.get(name) not in allowed:
        raise UserError(f"{where}: activation {name!r} is not built here; the known ones are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _check(where: Any, key: str, value: Any, wanted: Any) -> None:
    if value != wanted:
        raise UserError(f"{where}: {key} is {value}, and the model here has {wanted}")


# --- big_vision -------------------------------------------------------------------------------------------------------


def _big_vision(source: NpzSource) -> Found:
    names = source.shapes
    if "llm/embedder/input_embedding" in names:
        vision, tokens, scanned = _vit_shapes(source, "img/")
        rows = _rows(source, "llm/embedder/input_embedding")
        return Found("paligemma", vision, _gemma_shapes(source), tokens, rows, scanned)
    for kind, prefix in (("siglip", "img/"), ("vit", "")):
        if f"{prefix}embedding/kernel" in names:
            vision, tokens, scanned = _vit_shapes(source, prefix)
            return Found(kind, vision=vision, image_tokens=tokens, scanned=scanned)
    raise UserError(f"{source.path} holds no ViT, SigLIP or PaliGemma: no tensor is named embedding/kernel")


def _vit_shapes(source: NpzSource, prefix: str) -> tuple[VitConfig, int, bool]:
    scanned = f"{prefix}Transformer/encoderblock/LayerNorm_0/scale" in source.shapes
    block = f"{prefix}Transformer/encoderblock" + ("" if scanned else "_0")
    query = _shape(source, f"{block}/MultiHeadDotProductAttention_0/query/kernel")[-3:]
    mlp = _shape(source, f"{block}/MlpBlock_0/Dense_0/kernel")[-1]
    if scanned:
        layers = _rows(source, f"{block}/LayerNorm_0/scale")
    else:
        start = f"{prefix}Transformer/encoderblock_"
        layers = len({name[len(start) :].split("/")[0] for name in source.shapes if name.startswith(start)})
    vision = VitConfig(
        patch_size=_shape(source, f"{prefix}embedding/kernel")[0],
        width=query[0],
        layers=layers,
        heads=query[1],
        head_dim=query[2],
        mlp=mlp,
    )
    return vision, _shape(source, f"{prefix}pos_embedding")[1], scanned


def _gemma_shapes(source: NpzSource) -> PrefixLmConfig:
    layers, heads, head_dim, width = _shape(source, "llm/layers/attn/attn_vec_einsum/w")
    shared = source.shapes.get("llm/layers/attn/kv_einsum/w")
    second = "llm/layers/post_attention_norm/scale" in source.shapes
    # Gemma 2 scales by head_dim, but for its 27B, which scales by width / heads (arXiv 2408.00118, table 1).
    scale = (width / heads) ** -0.5 if second and width == 4608 else 0.0
    return PrefixLmConfig(
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=shared[2] if shared else heads,
        head_dim=head_dim,
        mlp=_shape(source, "llm/layers/mlp/linear")[1],
        query_scale=scale,
        post_norms=second,
        sliding_window=4096 if second else 0,
        attention_softcap=50.0 if second else 0.0,
        logits_softcap=30.0 if second else 0.0,
    )


# --- T5X --------------------------------------------------------------------------------------------------------------


def _t5x(source: T5xSource) -> Found:
    scanned = "encoder/encoder/relpos_bias/rel_embedding" in source.shapes
    table = "encoder/encoder/relpos_bias/rel_embedding" if scanned else "encoder/relpos_bias/rel_embedding"
    block = "encoder/encoder" if scanned else "encoder/layers_0"
    heads, *_, buckets = _shape(source, table)
    query = _shape(source, f"{block}/attention/query/kernel")
    if f"{block}/mlp/wi_0/kernel" not in source.shapes:
        raise UserError(
            f"{source.path}: {block}/mlp has no wi_0, so this is T5 1.0, without a gate; bring T5 1.1 or later"
        )
    layers = {stack: _t5x_layers(source, stack, scanned) for stack in ("encoder", "decoder")}
    text = EncoderDecoderConfig(
        width=query[0],
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        heads=heads,
        head_dim=query[-1] if scanned else query[-1] // heads,
        mlp=_shape(source, f"{block}/mlp/wi_0/kernel")[-1],
        tied_embeddings="decoder/logits_dense/kernel" not in source.shapes,
        per_layer_bias=scanned,
        decoder_norm_scale="decoder/decoder_norm/scale" in source.shapes,
        relative_buckets=buckets,
    )
    # The activation leaves no trace in shapes; UL2 is known by its last norm, which has no scale.
    text = text if text.decoder_norm_scale else dataclasses.replace(text, activation="silu")
    kind = "umt5" if scanned else "t5"
    return Found(kind, text=text, vocab_size=_rows(source, "token_embedder/embedding"))


def _t5x_layers(source: T5xSource, stack: str, scanned: bool) -> int:
    if scanned:
        return _shape(source, f"{stack}/{stack}/mlp/wi_0/kernel")[1]
    start = f"{stack}/layers_"
    return len({name[len(start) :].split("/")[0] for name in source.shapes if name.startswith(start)})


def _shape(source: Source, name: str) -> tuple[int, ...]:
    if name not in source.shapes:
        raise UserError(f"{source.path} has no tensor {name}; bring the whole checkpoint")
    return source.shapes[name]


def _rows(source: Source, name: str) -> int:
    return _shape(source, name)[0]
