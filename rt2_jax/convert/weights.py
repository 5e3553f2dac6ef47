"""Where a model's parameters come from: a foreign checkpoint through its layout, or one of our own folders."""

import collections
import os
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

import numpy as np

from rt2_jax.bundle.spec import BUNDLE_FILE
from rt2_jax.bundle.store import open_folder
from rt2_jax.convert import big_vision_layout, t5x_layout, transformers_layout
from rt2_jax.convert.infer import Found, infer
from rt2_jax.convert.layout import Layout, Leaf
from rt2_jax.convert.params_folder import ParamsReader
from rt2_jax.convert.sources import NpzSource, SafetensorsSource, Source, T5xSource, open_source
from rt2_jax.errors import UserError
from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig, PrefixLmConfig, VitConfig
from rt2_jax.models.int8 import check_float
from rt2_jax.typed import shown_path

# Tables without layers are read so many bytes at a time: they are a checkpoint's largest tensors.
PIECE_BYTES = 64 << 20

# The folders of a PaLI model that went out to transformers.
PARTS = ("text", "vision", "projection")

Index = tuple[int | slice, ...]


class Weights(Protocol):
    """Parameters by our path.

    Attributes:
        path: where they lie, for messages.
        kind: what they are, e.g. "umt5".
        vision, text: the configs of the parts that they hold.
        image_tokens: rows of the position embedding; 0 without vision.
        vocab_size: rows of the token table; 0 without text.
        shapes: path -> our shape, of every parameter they hold.
    """

    @property
    def path(self) -> pathlib.Path: ...
    @property
    def kind(self) -> str: ...
    @property
    def vision(self) -> VitConfig | None: ...
    @property
    def text(self) -> EncoderDecoderConfig | PrefixLmConfig | None: ...
    @property
    def image_tokens(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def dtype(self, path: str) -> np.dtype:
        """What the parameter is stored in."""
        ...

    def pieces(self, path: str) -> Iterator[tuple[Index, np.ndarray]]:
        """The parameter, piece by piece: where each belongs in it, and its values."""
        ...


class NativeWeights:
    """A bundle, a run's folder, or what `rt2 convert` wrote."""

    def __init__(self, path: pathlib.Path):
        opened = open_folder(path)
        config = opened.spec.model
        if config.lora is not None:
            raise UserError(f"{path} has LoRA adapters; merge them into a bundle first (rt2 export --merge-lora)")
        check_float(config, path, "which cannot be trained or converted")
        self.path, self.kind = path, config.name
        self.vision, self.text = config.vision, config.text
        self.image_tokens, self.vocab_size = config.tokens_per_image, config.vocab_size
        self._reader = ParamsReader(opened.params)
        self.shapes = self._reader.shapes

    def dtype(self, path: str) -> np.dtype:
        """See `Weights.dtype`."""
        return self._reader.dtypes[path]

    def pieces(self, path: str) -> Iterator[tuple[Index, np.ndarray]]:
        """See `Weights.pieces`."""
        shape = self.shapes[path]
        if "/blocks/" in path:
            for layer in range(shape[0]):
                yield (layer,), self._reader.read(path, (layer,))
            return
        for rows in _row_slices(shape):
            yield (rows,), self._reader.read(path, (rows,))


class ForeignWeights:
    """A foreign checkpoint read through its layout.

    Raises:
        UserError: it holds a tensor that the layout neither uses nor ignores, lacks one, or has one of a shape that its
            own description denies; all of them are named.
    """

    def __init__(self, source: Source):
        found = infer(source)
        self.path, self.kind = source.path, found.kind
        self.vision, self.text = found.vision, found.text
        self.image_tokens, self.vocab_size = found.image_tokens, found.vocab_size
        self._source = source
        self._layout = layout_of(source, found)
        self._leaves = {leaf.path: leaf for leaf in self._layout.leaves}
        self._layers = {
            "vision": found.vision.layers if found.vision else 0,
            "encoder": getattr(found.text, "encoder_layers", 0),
            "decoder": getattr(found.text, "decoder_layers", getattr(found.text, "layers", 0)),
        }
        self._check()
        self.shapes = {path: self._our_shape(leaf) for path, leaf in self._leaves.items()}

    def dtype(self, path: str) -> np.dtype:
        """See `Weights.dtype`; where layers have tensors of their own, the first one's."""
        return self._source.dtypes[self._leaves[path].name.format(0)]

    def pieces(self, path: str) -> Iterator[tuple[Index, np.ndarray]]:
        """See `Weights.pieces`."""
        leaf, sizes, source = self._leaves[path], self._layout.sizes, self._source
        if leaf.stacked is not None:
            whole = source.read(leaf.name)
            for layer in range(whole.shape[leaf.stacked]):
                yield (layer,), leaf.ours(whole.take(layer, leaf.stacked), sizes)
        elif leaf.layered:
            for layer in range(self._layers[path.split("/")[0]]):
                yield (layer,), leaf.ours(source.read(leaf.name.format(layer)), sizes)
        elif leaf.part is None and leaf.axes in ("v w -> v w", "v w -> w v"):
            for rows in _row_slices(source.shapes[leaf.name]):
                index = (rows,) if leaf.axes == "v w -> v w" else (slice(None), rows)
                yield index, leaf.ours(source.read(leaf.name, rows.start, rows.stop), sizes)
        else:
            yield (), leaf.ours(source.read(leaf.name), sizes)

    def _our_shape(self, leaf: Leaf) -> tuple[int, ...]:
        shape, sizes = self._source.shapes[leaf.name.format(0)], self._layout.sizes
        if leaf.stacked is not None:
            layers, shape = (shape[leaf.stacked],), shape[: leaf.stacked] + shape[leaf.stacked + 1 :]
        else:
            layers = (self._layers[leaf.path.split("/")[0]],) if leaf.layered else ()
        return layers + leaf.ours(np.broadcast_to(np.zeros((), np.uint8), shape), sizes).shape

    def _check(self) -> None:
        wanted = collections.defaultdict(list)
        for leaf in self._layout.leaves:
            own_tensor = leaf.layered and leaf.stacked is None
            for layer in range(self._layers[leaf.path.split("/")[0]]) if own_tensor else (0,):
                wanted[leaf.name.format(layer)].append(leaf)
        have = self._source.shapes
        wrong = [f"{name} is missing" for name in wanted if name not in have]
        for name in have:
            ignored = any(re.fullmatch(regex, name) for regex, _ in self._layout.ignored)
            if name not in wanted and name not in self._layout.copies and not ignored:
                wrong.append(f"{shown_path(name)} {list(have[name])} is not used")
        if not wrong:
            for name, leaves in wanted.items():
                for leaf in leaves:
                    wrong += self._misshapen(name, leaf)
        raise_all(wrong, f"{self.path}, read as {self.kind}")
        for name, other in self._layout.copies.items():
            if name in have:
                self._check_copy(name, other)

    def _misshapen(self, name: str, leaf: Leaf) -> list[str]:
        first = self._source.shapes[leaf.name.format(0)]
        shape = self._source.shapes[name]
        try:
            self._our_shape(leaf)
        except Exception:  # einops raises the bare class for an axis that does not divide
            return [f"{name} has shape {list(shape)}, which is not {leaf.axes.split('->')[0].strip()!r}"]
        return [] if shape == first else [f"{name} has shape {list(shape)}, the first layer's is {list(first)}"]

    def _check_copy(self, name: str, other: str) -> None:
        shapes = self._source.shapes
        same = shapes[name] == shapes[other] and all(
            np.array_equal(
                self._source.read(name, rows.start, rows.stop), self._source.read(other, rows.start, rows.stop)
            )
            for rows in _row_slices(shapes[name])
        )
        if not same:
            raise UserError(
                f"{self.path}: {name} is not equal to {other}, and a {self.kind} model has one table for both; "
                "tie them, or bring a checkpoint that does"
            )


class JoinedWeights:
    """What our exporter writes of a PaLI model for `transformers`: the folders ``text``, ``vision``, ``projection``."""

    def __init__(self, path: pathlib.Path):
        text, vision, _ = parts = [open_weights(path / name) for name in PARTS]
        self.path, self.kind = path, f"{vision.kind}_{text.kind}"
        self.vision, self.text = vision.vision, text.text
        self.image_tokens, self.vocab_size = vision.image_tokens, text.vocab_size
        self._parts = {name: part for part in parts for name in part.shapes}
        self.shapes = {name: shape for part in parts for name, shape in part.shapes.items()}

    def dtype(self, path: str) -> np.dtype:
        """See `Weights.dtype`."""
        return self._parts[path].dtype(path)

    def pieces(self, path: str) -> Iterator[tuple[Index, np.ndarray]]:
        """See `Weights.pieces`."""
        return self._parts[path].pieces(path)


def open_weights(path: str | pathlib.Path) -> Weights:
    """The weights at a path, of any format.

    Raises:
        UserError: see `open_source`, `infer` and `ForeignWeights`.
    """
    path = pathlib.Path(path)
    # os.path's answer is no, where pathlib raises, for a name that is too long for the file system.
    if os.path.isfile(path / BUNDLE_FILE):
        return NativeWeights(path)
    if all(os.path.isfile(path / name / "config.json") for name in PARTS):
        return JoinedWeights(path)
    return ForeignWeights(open_source(path))


def layout_of(source: Source, found: Found) -> Layout:
    """The layout in which a source spells what was found in it."""
    if isinstance(source, T5xSource):
        assert isinstance(found.text, EncoderDecoderConfig)
        return t5x_layout.t5x_layout(found.text)
    if isinstance(source, NpzSource):
        if found.kind == "paligemma":
            config = parts_config(found)
            return big_vision_layout.paligemma_layout(config, found.scanned)
        assert found.vision is not None
        make = big_vision_layout.siglip_layout if found.kind == "siglip" else big_vision_layout.vit_layout
        return make(found.vision, found.scanned)
    assert isinstance(source, SafetensorsSource)
    return transformers_spelling(found, source.shapes)


def transformers_spelling(found: Found, names: Collection[str] = ()) -> Layout:
    """The layout of a `transformers` folder with these tensors; none of them stands for the public files' spelling."""
    if found.kind == "paligemma":
        return transformers_layout.paligemma_spelling(parts_config(found), names)
    if isinstance(found.text, PrefixLmConfig):
        return transformers_layout.gemma_spelling(found.text)
    if found.text is not None:
        return transformers_layout.t5_layout(found.text, names)
    if found.vision is None:
        return transformers_layout.projector_layout()
    return transformers_layout.siglip_spelling(found.vision, found.kind == "siglip2", names)


def parts_config(found: Found) -> ModelConfig:
    """What was found as a model's config."""
    assert found.text is not None
    side = round(found.image_tokens**0.5) * found.vision.patch_size if found.vision else 224
    return ModelConfig(
        name=found.kind,
        vision=found.vision,
        text=found.text,
        image_size=side,
        vocab_size=found.vocab_size,
        num_images=1 if found.vision else 0,
    )


def raise_all(wrong: list[str], where: str) -> None:
    """Raises one UserError that names the first ten of what is wrong; returns when nothing is."""
    if wrong:
        more = f"; and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise UserError(f"{where}: {'; '.join(wrong[:10])}{more}")


def _row_slices(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(1, PIECE_BYTES // (4 * max(1, int(np.prod(shape[1:])))))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))
