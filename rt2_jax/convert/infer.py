"""What a foreign checkpoint says of its model: from config.json where there is one, else from names and shapes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rt2_jax.convert.sources import NpzSource, SafetensorsSource, Source, T5xSource
from rt2_jax.errors import UserError
from rt2_jax.models.config import (
    EncoderDecoderConfig,
    Heads,
    Layers,
    Pixels,
    PrefixLmConfig,
    VitConfig,
    VocabSize,
    Width,
)
from rt2_jax.typed import Count, Natural, NotNegative, Positive, build, shown, shown_path

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

# Fields that a public config.json leaves out have the defaults of their class in transformers; those that are not here
# are not read.


@dataclasses.dataclass(frozen=True)
class T5Fields:
    """What is read of a T5's config.json."""

    model_type: str
    vocab_size: VocabSize
    d_model: Width
    d_kv: Width
    d_ff: Width
    num_layers: Layers
    num_heads: Heads
    num_decoder_layers: Layers | None = None
    feed_forward_proj: str = "relu"
    layer_norm_epsilon: float = EPSILON
    relative_attention_num_buckets: Count = 32
    relative_attention_max_distance: Count = 128
    scale_decoder_outputs: bool | None = None
    tie_word_embeddings: bool = True


@dataclasses.dataclass(frozen=True)
class RopeFields:
    """What is read of a Gemma's rope_parameters."""

    rope_theta: Positive = 10_000.0


@dataclasses.dataclass(frozen=True)
class GemmaFields:
    """What is read of a Gemma's config.json, or of the text_config in a PaliGemma's."""

    hidden_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Heads
    intermediate_size: Width
    num_key_value_heads: Heads | None = None
    head_dim: Width = 256
    hidden_activation: str | None = None
    rms_norm_eps: float = EPSILON
    attention_bias: bool = False
    rope_theta: Positive | None = None
    rope_parameters: dict[str, Any] | None = None
    query_pre_attn_scalar: Positive = 256.0
    sliding_window: Natural | None = 4096
    layer_types: tuple[str, ...] | None = None
    attn_logit_softcapping: NotNegative | None = 50.0
    final_logit_softcapping: NotNegative | None = 30.0


@dataclasses.dataclass(frozen=True)
class SiglipFields:
    """What is read of a SigLIP's config.json, or of its vision_config."""

    hidden_size: Width = 768
    num_attention_heads: Heads = 12
    num_hidden_layers: Layers = 12
    intermediate_size: Width = 3072
    patch_size: Pixels = 16
    image_size: Pixels = 224
    layer_norm_eps: float = EPSILON
    hidden_act: str = "gelu_pytorch_tanh"


@dataclasses.dataclass(frozen=True)
class PaliGemmaFields:
    """What is read of a PaliGemma's config.json."""

    text_config: dict[str, Any]
    vision_config: dict[str, Any]
    vocab_size: VocabSize = 257_216


@dataclasses.dataclass(frozen=True)
class TextFields:
    """What a text_config says beside the fields of its own model."""

    model_type: str = "gemma"
    vocab_size: VocabSize | None = None


@dataclasses.dataclass(frozen=True)
class VocabularyFields:
    """The tokens that a Gemma's table has."""

    vocab_size: VocabSize


def _transformers(source: SafetensorsSource) -> Found:
    config = source.config
    kind = config.get("model_type")
    where = shown_path(source.path / "config.json")
    if kind in T5_TYPES:
        fields = build(T5Fields, config, where, extra=True)
        return Found(kind, text=_t5_config(fields, where, source), vocab_size=fields.vocab_size)
    if kind in GEMMA_TYPES:
        vocab_size = build(VocabularyFields, config, where, extra=True).vocab_size
        return Found(kind, text=_gemma_config(config, kind, where), vocab_size=vocab_size)
    if kind in VISION_TYPES:
        path = "vision_config" if "vision_config" in config else ""
        vision = build(SiglipFields, config[path] if path else config, where, path, extra=True)
        naflex = kind.startswith("siglip2")
        name = "embeddings.position_embedding.weight"
        tokens = _rows(source, name if name in source.shapes else f"vision_model.{name}", 2)
        return Found("siglip2" if naflex else "siglip", vision=_siglip_config(vision, where), image_tokens=tokens)
    if kind in PALIGEMMA_TYPES:
        fields = build(PaliGemmaFields, config, where, extra=True)
        text = build(TextFields, fields.text_config, where, "text_config", extra=True)
        vision = build(SiglipFields, fields.vision_config, where, "vision_config", extra=True)
        gemma = _gemma_config(fields.text_config, text.model_type, where, "text_config")
        return Found(
            kind,
            vision=_siglip_config(vision, where),
            text=dataclasses.replace(gemma, bidirectional_prefix=True),
            image_tokens=(vision.image_size // vision.patch_size) ** 2,
            vocab_size=text.vocab_size or fields.vocab_size,
        )
    if kind == PROJECTOR_TYPE:
        return Found("projector")
    known = ", ".join((*T5_TYPES, *GEMMA_TYPES, *VISION_TYPES, *PALIGEMMA_TYPES))
    raise UserError(f"{where}: model_type {shown(kind)} is not read here; the known ones are {known}")


def _t5_config(config: T5Fields, where: str, source: Source) -> EncoderDecoderConfig:
    gated = any(name.endswith("DenseReluDense.wi_0.weight") for name in source.shapes)
    # Early umT5 files say "relu" of what is a gated GELU.
    form = config.feed_forward_proj
    form = "gated-gelu" if gated and form == "relu" and config.model_type == "umt5" else form
    if not gated or not form.startswith("gated-"):
        raise UserError(
            f"{where}: feed_forward_proj {shown(form)} is T5 1.0, whose MLP has no gate; bring T5 1.1 or later"
        )
    _check(where, "layer_norm_epsilon", config.layer_norm_epsilon, EPSILON)
    fields = {
        "width": config.d_model,
        "encoder_layers": config.num_layers,
        "decoder_layers": config.num_decoder_layers or config.num_layers,
        "heads": config.num_heads,
        "head_dim": config.d_kv,
        "mlp": config.d_ff,
        "activation": _activation(form.removeprefix("gated-"), where),
        "tied_embeddings": "lm_head.weight" not in source.shapes and _scales_outputs(config),
        "per_layer_bias": config.model_type == "umt5",
        "relative_buckets": config.relative_attention_num_buckets,
        "relative_max_distance": config.relative_attention_max_distance,
    }
    return build(EncoderDecoderConfig, fields, where)


def _scales_outputs(config: T5Fields) -> bool:
    """Whether a T5 without a head of its own multiplies by width ** -0.5 before it scores with its table."""
    if config.model_type == "mt5":
        return False
    return config.tie_word_embeddings if config.scale_decoder_outputs is None else config.scale_decoder_outputs


def _gemma_config(tree: Mapping[str, Any], kind: str, where: str, path: str = "") -> PrefixLmConfig:
    if kind not in GEMMA_TYPES:
        known = ", ".join(GEMMA_TYPES)
        raise UserError(f"{where}: text model {shown(kind)} is not read here; the known ones are {known}")
    config, second = build(GemmaFields, tree, where, path, extra=True), kind == "gemma2"
    _check(where, "rms_norm_eps", config.rms_norm_eps, EPSILON)
    _check(where, "attention_bias", config.attention_bias, False)
    kinds = config.layer_types or ()
    if second and kinds != tuple(("full", "sliding")[(i + 1) % 2] + "_attention" for i in range(len(kinds))):
        raise UserError(f"{where}: layer_types do not alternate between sliding and full; only Gemma 2's order is read")
    rope = build(RopeFields, config.rope_parameters or {}, where, "rope_parameters", extra=True)
    fields = {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads or config.num_attention_heads,
        "head_dim": config.head_dim,
        "mlp": config.intermediate_size,
        "activation": _activation(config.hidden_activation or "gelu_pytorch_tanh", where),
        "rope_theta": config.rope_theta or rope.rope_theta,
        "query_scale": config.query_pre_attn_scalar**-0.5 if second else 0.0,
        "post_norms": second,
        "sliding_window": config.sliding_window or 0 if second else 0,
        "attention_softcap": config.attn_logit_softcapping or 0.0 if second else 0.0,
        "logits_softcap": config.final_logit_softcapping or 0.0 if second else 0.0,
        "bidirectional_prefix": False,
    }
    return build(PrefixLmConfig, fields, where)


def _siglip_config(config: SiglipFields, where: str) -> VitConfig:
    _check(where, "layer_norm_eps", config.layer_norm_eps, EPSILON)
    _activation(config.hidden_act, where, ("gelu",))
    fields = {
        "patch_size": config.patch_size,
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "head_dim": config.hidden_size // config.num_attention_heads,
        "mlp": config.intermediate_size,
    }
    return build(VitConfig, fields, where)


def _activation(name: str, where: Any, allowed: tuple[str, ...] = ("gelu", "silu")) -> str:
    if ACTIVATIONS.get(name) not in allowed:
        raise UserError(
            f"{where}: activation {shown(name)} is not built here; the known ones are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def _check(where: Any, key: str, value: Any, wanted: Any) -> None:
    if value != wanted:
        raise UserError(f"{where}: {key} is {value}, and the model here has {wanted}")


# --- big_vision -------------------------------------------------------------------------------------------------------


def _big_vision(source: NpzSource) -> Found:
    names = source.shapes
    if "llm/embedder/input_embedding" in names:
        vision, tokens, scanned = _vit_shapes(source, "img/")
        rows = _rows(source, "llm/embedder/input_embedding", 2)
        return Found("paligemma", vision, _gemma_shapes(source), tokens, rows, scanned)
    for kind, prefix in (("siglip", "img/"), ("vit", "")):
        if f"{prefix}embedding/kernel" in names:
            vision, tokens, scanned = _vit_shapes(source, prefix)
            return Found(kind, vision=vision, image_tokens=tokens, scanned=scanned)
    raise UserError(f"{source.path} holds no ViT, SigLIP or PaliGemma: no tensor is named embedding/kernel")


def _vit_shapes(source: NpzSource, prefix: str) -> tuple[VitConfig, int, bool]:
    scanned = f"{prefix}Transformer/encoderblock/LayerNorm_0/scale" in source.shapes
    block = f"{prefix}Transformer/encoderblock" + ("" if scanned else "_0")
    query = _shape(source, f"{block}/MultiHeadDotProductAttention_0/query/kernel", 3 + scanned)[-3:]
    mlp = _shape(source, f"{block}/MlpBlock_0/Dense_0/kernel", 2 + scanned)[-1]
    if scanned:
        layers = _rows(source, f"{block}/LayerNorm_0/scale", 2)
    else:
        start = f"{prefix}Transformer/encoderblock_"
        layers = len({name[len(start) :].split("/")[0] for name in source.shapes if name.startswith(start)})
    fields = {
        "patch_size": _shape(source, f"{prefix}embedding/kernel", 4)[0],
        "width": query[0],
        "layers": layers,
        "heads": query[1],
        "head_dim": query[2],
        "mlp": mlp,
    }
    vision = build(VitConfig, fields, shown_path(source.path))
    return vision, _shape(source, f"{prefix}pos_embedding", 3)[1], scanned


def _gemma_shapes(source: NpzSource) -> PrefixLmConfig:
    layers, heads, head_dim, width = _shape(source, "llm/layers/attn/attn_vec_einsum/w", 4)
    shared = "llm/layers/attn/kv_einsum/w"
    second = "llm/layers/post_attention_norm/scale" in source.shapes
    # Gemma 2 scales by head_dim, but for its 27B, which scales by width / heads (arXiv 2408.00118, table 1).
    scale = (width / heads) ** -0.5 if second and width == 4608 else 0.0
    fields = {
        "width": width,
        "layers": layers,
        "heads": heads,
        "kv_heads": _shape(source, shared, 5)[2] if shared in source.shapes else heads,
        "head_dim": head_dim,
        "mlp": _shape(source, "llm/layers/mlp/linear", 3)[1],
        "query_scale": scale,
        "post_norms": second,
        "sliding_window": 4096 if second else 0,
        "attention_softcap": 50.0 if second else 0.0,
        "logits_softcap": 30.0 if second else 0.0,
    }
    return build(PrefixLmConfig, fields, shown_path(source.path))


# --- T5X --------------------------------------------------------------------------------------------------------------


def _t5x(source: T5xSource) -> Found:
    scanned = "encoder/encoder/relpos_bias/rel_embedding" in source.shapes
    table = "encoder/encoder/relpos_bias/rel_embedding" if scanned else "encoder/relpos_bias/rel_embedding"
    block = "encoder/encoder" if scanned else "encoder/layers_0"
    heads, *_, buckets = _shape(source, table, 2 + scanned)
    query = _shape(source, f"{block}/attention/query/kernel", 4 if scanned else 2)
    if f"{block}/mlp/wi_0/kernel" not in source.shapes:
        raise UserError(
            f"{source.path}: {block}/mlp has no wi_0, so this is T5 1.0, without a gate; bring T5 1.1 or later"
        )
    layers = {stack: _t5x_layers(source, stack, scanned) for stack in ("encoder", "decoder")}
    fields = {
        "width": query[0],
        "encoder_layers": layers["encoder"],
        "decoder_layers": layers["decoder"],
        "heads": heads,
        "head_dim": query[-1] if scanned else query[-1] // heads,
        "mlp": _shape(source, f"{block}/mlp/wi_0/kernel", 2 + scanned)[-1],
        "tied_embeddings": "decoder/logits_dense/kernel" not in source.shapes,
        "per_layer_bias": scanned,
        "decoder_norm_scale": "decoder/decoder_norm/scale" in source.shapes,
        "relative_buckets": buckets,
    }
    text = build(EncoderDecoderConfig, fields, shown_path(source.path))
    # The activation leaves no trace in shapes; UL2 is known by its last norm, which has no scale.
    text = text if text.decoder_norm_scale else dataclasses.replace(text, activation="silu")
    kind = "umt5" if scanned else "t5"
    return Found(kind, text=text, vocab_size=_rows(source, "token_embedder/embedding", 2))


def _t5x_layers(source: T5xSource, stack: str, scanned: bool) -> int:
    if scanned:
        return _shape(source, f"{stack}/{stack}/mlp/wi_0/kernel", 3)[1]
    start = f"{stack}/layers_"
    return len({name[len(start) :].split("/")[0] for name in source.shapes if name.startswith(start)})


def _shape(source: Source, name: str, rank: int) -> tuple[int, ...]:
    if name not in source.shapes:
        raise UserError(f"{source.path} has no tensor {name}; bring the whole checkpoint")
    shape = source.shapes[name]
    if len(shape) != rank or not all(shape):
        raise UserError(f"{source.path}: tensor {name} has shape {list(shape)}, needs {rank} axes that are not empty")
    return shape


def _rows(source: Source, name: str, rank: int) -> int:
    return _shape(source, name, rank)[0]
