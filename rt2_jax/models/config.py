"""What a model is: frozen dataclasses, written to JSON beside the weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rt2_jax.errors import UserError

COMPUTE_DTYPES = ("float32", "bfloat16")
REMAT = ("none", "dots", "full")
ACTIVATIONS = ("gelu", "silu")


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
class TextConfig:
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
class ModelConfig:
    """A PaLI model: ViT tokens of ``num_images`` images, then the prompt, into an encoder-decoder.

    ``image_size`` is the side of the square frames in pixels; ``vocab_size`` the embedding's rows. ``compute_dtype`` is
    what activations are computed in (parameters and logits are float32). ``remat``: what the backward pass recomputes,
    "none", "dots" (all but matrix products) or "full" (each layer). ``scan_unroll``: unroll the loop over layers, which
    runs faster on a CPU and compiles far slower; the parameters are the same.
    """

    name: str
    vision: VitConfig
    text: TextConfig
    image_size: int
    vocab_size: int
    num_images: int = 1
    compute_dtype: str = "float32"
    remat: str = "none"
    scan_unroll: bool = False

    def __post_init__(self):
        vision, text = self.vision, self.text
        _require(
            self.image_size % vision.patch_size == 0,
            f"image_size {self.image_size} is no multiple of patch_size {vision.patch_size}",
        )
        _require(
            vision.patch_size % 2 ** len(vision.stem_widths) == 0 and min(vision.stem_widths, default=1) > 0,
            f"stem_widths {vision.stem_widths} must be positive, and patch_size {vision.patch_size} a multiple of "
            f"{2 ** len(vision.stem_widths)}, for each halves the frame",
        )
        _require(
            self.compute_dtype in COMPUTE_DTYPES, f"compute_dtype {self.compute_dtype!r} is none of {COMPUTE_DTYPES}"
        )
        _require(self.remat in REMAT, f"remat {self.remat!r} is none of {REMAT}")
        _require(text.activation in ACTIVATIONS, f"activation {text.activation!r} is none of {ACTIVATIONS}")
        for owner, rate in (("vision", vision.dropout_rate), ("text", text.dropout_rate)):
            _require(0.0 <= rate < 1.0, f"{owner} dropout_rate {rate} must be in [0, 1)")

    @property
    def tokens_per_image(self) -> int:
        """Patch tokens that one image gives the encoder."""
        return (self.image_size // self.vision.patch_size) ** 2

    def to_json(self) -> dict[str, Any]:
        """Plain dict of numbers, strings and lists."""
        tree = dataclasses.asdict(self)
        tree["vision"]["stem_widths"] = list(self.vision.stem_widths)
        return tree

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "ModelConfig":
        """The inverse of `to_json`; UserError for an unknown or missing field or a value out of range."""
        tree = dict(tree)
        vision = dict(tree.pop("vision", {}))
        vision["stem_widths"] = tuple(vision.get("stem_widths", ()))
        text = _build(TextConfig, tree.pop("text", {}))
        return _build(cls, {**tree, "vision": _build(VitConfig, vision), "text": text})

    def replace(self, **changes: Any) -> "ModelConfig":
        """A copy with fields changed, those of ``vision`` and ``text`` included by giving a dict for them."""
        for part in ("vision", "text"):
            if isinstance(changes.get(part), Mapping):
                changes[part] = dataclasses.replace(getattr(self, part), **changes[part])
        return dataclasses.replace(self, **changes)


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
