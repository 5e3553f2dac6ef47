"""What a model is: frozen dataclasses, written to JSON beside the weights."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from rt2_jax.errors import UserError
from rt2_jax.typed import INT_MAX, Natural, NotNegative, Positive, build, check_fields, one_line, shown

COMPUTE_DTYPES = ("float32", "bfloat16")
REMAT = ("none", "dots", "full")
ACTIVATIONS = ("gelu", "silu")
NORMS = ("rms", "layer")
QUANTIZED = ("int8",)

# Beyond any model that was ever trained, and within what shapes can be computed with.
Width = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
Layers = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Heads = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=2**14)]
VocabSize = Annotated[int, msgspec.Meta(ge=1, le=2**24)]
Token = Annotated[int, msgspec.Meta(ge=1, le=2**24)]
Rate = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]


@dataclasses.dataclass(frozen=True)
class VitConfig:
    """A vision transformer without pooling: pre-LayerNorm blocks over patch tokens.

    ``stem_widths`` () cuts patches of ``patch_size`` with one linear map; (16, 32) puts two convolutions of 3 x 3 and
    stride 2 with so many channels, each followed by GELU, before a map of patches of ``patch_size / 4``: a small model
    sees far sooner with overlapping windows at its bottom (arXiv 2106.14881).
    ``parallel_blocks``, ``qk_norm`` and the two bias switches are ViT-22B's changes (arXiv 2302.05442, section 2).
    ``branch_init`` scales the last kernels of every residual branch when they are drawn, and ``position_std`` is the
    position embedding's (0: width ** -0.5). From scratch, a model learns to see sooner when its patches start out
    different from each other; imported weights replace both.
    """

    patch_size: Pixels
    width: Width
    layers: Layers
    heads: Heads
    head_dim: Width
    mlp: Width
    stem_widths: Annotated[tuple[Width, ...], msgspec.Meta(max_length=8)] = ()
    parallel_blocks: bool = False
    qk_norm: bool = False
    qkv_bias: bool = True
    norm_bias: bool = True
    branch_init: NotNegative = 1.0
    position_std: NotNegative = 0.0
    dropout_rate: Rate = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "model", "vision")


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig:
    """A T5 1.1 style encoder-decoder (arXiv 2002.05202 for the gated MLP).

    ``per_layer_bias``: a relative-bias table in every layer (umT5) rather than one a stack (T5, mT5).
    ``decoder_norm_scale``: False for UL2, whose last decoder norm has no scale.
    ``tied_embeddings``: the token table is also the logits head, times width ** -0.5.
    ``encoder_branch_init`` scales the last kernels of the encoder's residual branches when they are drawn.
    """

    width: Width
    encoder_layers: Layers
    decoder_layers: Layers
    heads: Heads
    head_dim: Width
    mlp: Width
    activation: Literal[ACTIVATIONS] = "gelu"
    tied_embeddings: bool = False
    per_layer_bias: bool = False
    decoder_norm_scale: bool = True
    relative_buckets: Annotated[int, msgspec.Meta(ge=4, le=2**16)] = 32
    relative_max_distance: Annotated[int, msgspec.Meta(ge=1, le=INT_MAX)] = 128
    encoder_branch_init: NotNegative = 1.0
    dropout_rate: Rate = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "model", "text")
        _require(
            self.relative_max_distance > self.relative_buckets // 2,
            f"text.relative_max_distance {self.relative_max_distance} must be above {self.relative_buckets // 2}, half "
            "of relative_buckets, which hold one distance each",
        )


@dataclasses.dataclass(frozen=True)
class PrefixLmConfig:
    """A decoder-only language model over a prefix (arXiv 1910.10683, 3.2.1): Gemma, Gemma 2 or PaLM.

    ``kv_heads``: heads of keys and values, each shared by ``heads / kv_heads`` queries (1: multi-query).
    ``query_scale``: multiplies the queries; 0 stands for head_dim ** -0.5.
    ``parallel_block``: attention and MLP read one norm and are added at once (PaLM, arXiv 2204.02311, section 2).
    ``norm``: "rms" with scale 1 + s (Gemma), or "layer", a LayerNorm without bias (PaLM).
    ``post_norms``: what a branch gives is normed before it is added (Gemma 2, arXiv 2408.00118, section 2).
    ``sliding_window``: the keys that a local layer's query reaches back to, itself included; 0: no layer is local.
    ``global_every``: with a window, each so-many-th layer sees everything and the others are local.
    ``attention_softcap``, ``logits_softcap``: x -> cap * tanh(x / cap) on attention and output logits; 0: none.
    ``scaled_inputs``: the tied table is drawn small and multiplied by width ** 0.5 when it embeds (Gemma); otherwise it
    is drawn at 1 and multiplied by width ** -0.5 when it scores (PaLM).
    ``bidirectional_prefix``: prefix tokens see the whole prefix, rather than what stands before them.
    ``bos_id``, ``separator_id``: tokens that the model puts before and after every prompt; None: no such token.
    ``image_id``: the token in a prompt whose place an image's tokens take. Images that have no such token, all of them
    where it is None, stand before the prompt.
    ``branch_init`` scales the last kernels of the residual branches when they are drawn.
    """

    width: Width
    layers: Layers
    heads: Heads
    kv_heads: Heads
    head_dim: Width
    mlp: Width
    activation: Literal[ACTIVATIONS] = "gelu"
    rope_theta: Positive = 10_000.0
    query_scale: NotNegative = 0.0
    parallel_block: bool = False
    norm: Literal[NORMS] = "rms"
    post_norms: bool = False
    sliding_window: Natural = 0
    global_every: Layers = 2
    attention_softcap: NotNegative = 0.0
    logits_softcap: NotNegative = 0.0
    scaled_inputs: bool = True
    bidirectional_prefix: bool = True
    bos_id: Token | None = None
    separator_id: Token | None = None
    image_id: Token | None = None
    branch_init: NotNegative = 1.0
    dropout_rate: Rate = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "model", "text")
        _require(self.heads % self.kv_heads == 0, f"kv_heads {self.kv_heads} does not divide heads {self.heads}")
        _require(self.head_dim % 2 == 0, f"head_dim {self.head_dim} is odd, and rotary positions turn pairs")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters beside a model's kernels (arXiv 2106.09685, section 4.1): x W + (alpha / rank) (x A) B.

    ``pattern``: a regex; a kernel has them if it matches the whole of its path without "/kernel", such as
    "decoder/blocks/self_attention/query".
    """

    pattern: Annotated[str, msgspec.Meta(max_length=4096)]
    rank: Width
    alpha: Positive

    def __post_init__(self) -> None:
        check_fields(self, "model", "lora")
        try:
            re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise UserError(
                f"lora pattern {shown(self.pattern)} is not a regular expression ({one_line(error)}); fix it"
            ) from error


# What "kind" says of a model's language model in JSON; models written before there were two have no kind.
TEXT_KINDS = {"encoder_decoder": EncoderDecoderConfig, "prefix_lm": PrefixLmConfig}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A vision-language model: the ViT's tokens of ``num_images`` images and a prompt, answered by a language model.

    The language model decides how they are wired: an encoder-decoder reads image tokens, then the prompt, in its
    encoder (PaLI, models/pali.py); a prefix LM has them in its prefix (PaLM-E, models/palm_e.py). ``vision`` None, with
    ``num_images`` 0, is the language model alone.

    ``image_size`` is the side of the square frames in pixels; ``vocab_size`` the embedding's rows. ``compute_dtype`` is
    what activations are computed in (parameters and logits are float32). ``remat``: what the backward pass recomputes,
    "none", "dots" (all but matrix products) or "full" (each layer). ``scan_unroll``: unroll the loop over layers, which
    runs faster on a CPU and compiles far slower; the parameters are the same. ``lora``: kernels that have adapters; see
    models/lora.py. ``quantized``: how kernels and the token table are held where they are not float; see
    models/int8.py.
    """

    name: str
    vision: VitConfig | None
    text: EncoderDecoderConfig | PrefixLmConfig
    image_size: Pixels
    vocab_size: VocabSize
    num_images: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 1
    compute_dtype: Literal[COMPUTE_DTYPES] = "float32"
    remat: Literal[REMAT] = "none"
    scan_unroll: bool = False
    lora: LoraConfig | None = None
    quantized: Literal[QUANTIZED] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "model")
        _check_vision(self)
        _check_tokens(self)

    @property
    def tokens_per_image(self) -> int:
        """Patch tokens of one image; 0 without a vision tower."""
        return (self.image_size // self.vision.patch_size) ** 2 if self.vision else 0

    def to_json(self) -> dict[str, Any]:
        """Plain dict of numbers, strings and lists; without "lora" and "quantized" where they are None."""
        tree = dataclasses.asdict(self)
        for name in ("lora", "quantized"):
            if tree[name] is None:
                del tree[name]
        if self.vision:
            tree["vision"]["stem_widths"] = list(self.vision.stem_widths)
        kind = next(name for name, config in TEXT_KINDS.items() if isinstance(self.text, config))
        tree["text"] = {"kind": kind, **tree["text"]}
        return tree

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], where: str = "model", path: str = "") -> "ModelConfig":
        """The inverse of `to_json`.

        Args:
            tree: JSON's values.
            where, path: what holds them, for messages: "config", "model".

        Raises:
            UserError: an unknown or missing field, a wrong type, a value out of range.
        """
        text = tree.get("text") if isinstance(tree, Mapping) else None
        if isinstance(text, Mapping):
            start = f"{path}." if path else ""
            kind = text.get("kind", "encoder_decoder")
            if not isinstance(kind, str) or kind not in TEXT_KINDS:
                raise UserError(f"{where}: {start}text.kind is {shown(kind)}; allowed: {', '.join(TEXT_KINDS)}")
            fields = {name: value for name, value in text.items() if name != "kind"}
            tree = {**tree, "text": build(TEXT_KINDS[kind], fields, where, f"{start}text")}
        return build(cls, tree, where, path)

    def replace(self, **changes: Any) -> "ModelConfig":
        """A copy with fields changed, those of ``vision`` and ``text`` included by giving a dict for them."""
        for part in ("vision", "text"):
            if isinstance(changes.get(part), Mapping):
                old = getattr(self, part)
                fields = {} if old is None else vars(old)
                changes[part] = build(
                    VitConfig if old is None else type(old), {**fields, **changes[part]}, "model", part
                )
        return dataclasses.replace(self, **changes)


def _check_vision(config: ModelConfig) -> None:
    vision = config.vision
    if vision is None:
        _require(config.num_images == 0, f"num_images {config.num_images} needs a vision tower; set it to 0")
        return
    _require(config.num_images >= 1, f"num_images {config.num_images} must be 1 or more, or vision None")
    _require(
        config.image_size % vision.patch_size == 0,
        f"image_size {config.image_size} is no multiple of patch_size {vision.patch_size}",
    )
    _require(
        vision.patch_size % 2 ** len(vision.stem_widths) == 0,
        f"vision.stem_widths are {len(vision.stem_widths)}, so patch_size {vision.patch_size} must be a multiple of "
        f"{2 ** len(vision.stem_widths)}, for each halves the frame",
    )


def _check_tokens(config: ModelConfig) -> None:
    for name in ("bos_id", "separator_id", "image_id"):
        token = getattr(config.text, name, None)
        _require(
            token is None or token < config.vocab_size,
            f"text.{name} is {token}, allowed: 1 to {config.vocab_size - 1}, the vocabulary's tokens but the pad, or "
            "None",
        )


def _require(true: bool, message: str) -> None:
    if not true:
        raise UserError(f"model: {message}")
