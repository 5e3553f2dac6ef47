"""What a model is: frozen dataclasses, written to JSON beside the weights."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from rt2_jax.errors import UserError

COMPUTE_DTYPES = ("float32", "bfloat16")
REMAT = ("none", "dots", "full")
ACTIVATIONS = ("gelu", "silu")
NORMS = ("rms", "layer")


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

    patch_size: int
    width: int
    layers: int
    heads: int
    head_dim: int
    mlp: int
    stem_widths: tuple[int, ...] = ()
    parallel_blocks: bool = False
    qk_norm: bool = False
    qkv_bias: bool = True
    norm_bias: bool = True
    branch_init: float = 1.0
    position_std: float = 0.0
    dropout_rate: float = 0.0


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig:
    """A T5 1.1 style encoder-decoder (arXiv 2002.05202 for the gated MLP).

    ``per_layer_bias``: a relative-bias table in every layer (umT5) rather than one a stack (T5, mT5).
    ``decoder_norm_scale``: False for UL2, whose last decoder norm has no scale.
    ``tied_embeddings``: the token table is also the logits head, times width ** -0.5.
    ``encoder_branch_init`` scales the last kernels of the encoder's residual branches when they are drawn.
    """

    width: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    head_dim: int
    mlp: int
    activation: str = "gelu"
    tied_embeddings: bool = False
    per_layer_bias: bool = False
    decoder_norm_scale: bool = True
    relative_buckets: int = 32
    relative_max_distance: int = 128
    encoder_branch_init: float = 1.0
    dropout_rate: float = 0.0


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

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    activation: str = "gelu"
    rope_theta: float = 10_000.0
    query_scale: float = 0.0
    parallel_block: bool = False
    norm: str = "rms"
    post_norms: bool = False
    sliding_window: int = 0
    global_every: int = 2
    attention_softcap: float = 0.0
    logits_softcap: float = 0.0
    scaled_inputs: bool = True
    bidirectional_prefix: bool = True
    bos_id: int | None = None
    separator_id: int | None = None
    image_id: int | None = None
    branch_init: float = 1.0
    dropout_rate: float = 0.0


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters beside a model's kernels (arXiv 2106.09685, section 4.1): x W + (alpha / rank) (x A) B.

    ``pattern``: a regex; a kernel has them if it matches the whole of its path without "/kernel", such as
    "decoder/blocks/self_attention/query".
    """

    pattern: str
    rank: int
    alpha: float

    def __post_init__(self):
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UserError(f"lora pattern {self.pattern!r} is not a regular expression ({error}); mend it") from error
        _require(self.rank >= 1, f"lora rank {self.rank} must be 1 or more")
        _require(0.0 < self.alpha < math.inf, f"lora alpha {self.alpha} must be above 0 and finite; the rank is usual")


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
    models/lora.py.
    """

    name: str
    vision: VitConfig | None
    text: EncoderDecoderConfig | PrefixLmConfig
    image_size: int
    vocab_size: int
    num_images: int = 1
    compute_dtype: str = "float32"
    remat: str = "none"
    scan_unroll: bool = False
    lora: LoraConfig | None = None

    def __post_init__(self):
        _check_vision(self)
        _check_text(self)
        _require(
            self.compute_dtype in COMPUTE_DTYPES, f"compute_dtype {self.compute_dtype!r} is none of {COMPUTE_DTYPES}"
        )
        _require(self.remat in REMAT, f"remat {self.remat!r} is none of {REMAT}")

    @property
    def tokens_per_image(self) -> int:
        """Patch tokens of one image; 0 without a vision tower."""
        return (self.image_size // self.vision.patch_size) ** 2 if self.vision else 0

    def to_json(self) -> dict[str, Any]:
        """Plain dict of numbers, strings and lists; without "lora" where there is none."""
        tree = dataclasses.asdict(self)
        if self.lora is None:
            del tree["lora"]
        if self.vision:
            tree["vision"]["stem_widths"] = list(self.vision.stem_widths)
        kind = next(name for name, config in TEXT_KINDS.items() if isinstance(self.text, config))
        tree["text"] = {"kind": kind, **tree["text"]}
        return tree

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "ModelConfig":
        """The inverse of `to_json`; UserError for an unknown or missing field or a value out of range."""
        tree = dict(tree)
        vision, text = tree.pop("vision", {}), dict(tree.pop("text", {}))
        if vision is not None:
            vision = _build(VitConfig, {**vision, "stem_widths": tuple(vision.get("stem_widths", ()))})
        kind = text.pop("kind", "encoder_decoder")
        _require(kind in TEXT_KINDS, f"text kind {kind!r} is none of {tuple(TEXT_KINDS)}")
        if tree.get("lora") is not None:
            tree["lora"] = _build(LoraConfig, tree["lora"])
        return _build(cls, {**tree, "vision": vision, "text": _build(TEXT_KINDS[kind], text)})

    def replace(self, **changes: Any) -> "ModelConfig":
        """A copy with fields changed, those of ``vision`` and ``text`` included by giving a dict for them."""
        for part in ("vision", "text"):
            if isinstance(changes.get(part), Mapping):
                changes[part] = dataclasses.replace(getattr(self, part), **changes[part])
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
        vision.patch_size % 2 ** len(vision.stem_widths) == 0 and min(vision.stem_widths, default=1) > 0,
        f"stem_widths {vision.stem_widths} must be positive, and patch_size {vision.patch_size} a multiple of "
        f"{2 ** len(vision.stem_widths)}, for each halves the frame",
    )
    _require(0.0 <= vision.dropout_rate < 1.0, f"vision dropout_rate {vision.dropout_rate} must be in [0, 1)")


def _check_text(config: ModelConfig) -> None:
    text = config.text
    _require(text.activation in ACTIVATIONS, f"activation {text.activation!r} is none of {ACTIVATIONS}")
    _require(0.0 <= text.dropout_rate < 1.0, f"text dropout_rate {text.dropout_rate} must be in [0, 1)")
    if isinstance(text, EncoderDecoderConfig):
        return
    _require(
        text.kv_heads > 0 and text.heads % text.kv_heads == 0,
        f"kv_heads {text.kv_heads} does not divide heads {text.heads}",
    )
    _require(text.head_dim % 2 == 0, f"head_dim {text.head_dim} is odd, and rotary positions turn pairs")
    _require(text.norm in NORMS, f"norm {text.norm!r} is none of {NORMS}")
    _require(text.sliding_window >= 0, f"sliding_window {text.sliding_window} must be 0 (none) or more")
    _require(text.global_every >= 1, f"global_every {text.global_every} must be 1 or more")
    for name in ("bos_id", "separator_id", "image_id"):
        token = getattr(text, name)
        _require(
            token is None or 0 < token < config.vocab_size,
            f"{name} {token} must be in 1..{config.vocab_size - 1}, the vocabulary's tokens but the pad, or None",
        )


def _build(kind: type, tree: Mapping[str, Any]) -> Any:
    fields = dataclasses.fields(kind)
    unknown = sorted(set(tree) - {field.name for field in fields})
    _require(not unknown, f"{kind.__name__} has no field {unknown[:1]}; is the file from a newer version?")
    required = {field.name for field in fields if field.default is dataclasses.MISSING}
    missing = sorted(required - set(tree))
    _require(not missing, f"{kind.__name__} lacks the field {missing[:1]}; add it")
    return kind(**tree)


def _require(true: bool, message: str) -> None:
    if not true:
        raise UserError(message)
