"""Pretrained weights in: any vision tower with any language model, streamed into a folder that training starts from."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from rich.progress import Progress

from rt2_jax.bundle.params import tree_bytes
from rt2_jax.bundle.spec import BundleSpec, pretrained_spec, write_spec
from rt2_jax.bundle.steps import COMMIT_FILE, PARAMS_DIR
from rt2_jax.bundle.store import DTYPES, PRETRAINED_KIND
from rt2_jax.convert.params_folder import ParamsWriter
from rt2_jax.convert.plan import POSITIONS, VOCABULARY_AXIS, match, open_sources, plan_model
from rt2_jax.convert.resample import resample_positions
from rt2_jax.convert.weights import Index, Weights
from rt2_jax.errors import UserError
from rt2_jax.files.disk import check_space, raise_if_disk_full
from rt2_jax.files.writing import check_target, whole_folder
from rt2_jax.models.backbone import Backbone, make_backbone
from rt2_jax.models.config import ModelConfig
from rt2_jax.tokens.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Imported:
    """What `import_weights` did.

    Attributes:
        config: the model.
        taken: source -> the parameters it gave.
        new: parameters, or the tokens' rows of them, that no source gave.
        resampled: (old, new) number of position embeddings, or None.
    """

    config: ModelConfig
    taken: dict[str, list[str]]
    new: list[str]
    resampled: tuple[int, int] | None


def import_weights(
    out: str | pathlib.Path,
    *,
    model: str | pathlib.Path | None = None,
    vision: str | pathlib.Path | None = None,
    text: str | pathlib.Path | None = None,
    size: str | None = None,
    settings: Mapping[str, Any] | None = None,
    vocabulary: Vocabulary | None = None,
    ignore: Sequence[str] = (),
    new: Sequence[str] = (),
    dtype: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Imported:
    """Writes `out`: ``bundle.json``, ``params/`` and the vocabulary, for a config's ``init_from`` and ``model``.

    Host memory stays within a few pieces of the largest tensor, whatever the model's size.

    Args:
        out: the folder; see `files.writing.check_target` for what it may replace.
        model: gives every part; a transformers folder, a big_vision `.npz`, a T5X folder, or a folder of ours.
        vision, text: give that part, in place of the model's.
        size: a name of `models.sizes.SIZES`; None builds what the sources hold.
        settings: fields of the model's config to change, e.g. {"image_size": 448, "text.activation": "silu"}.
        vocabulary: of the tokens; a longer one than the tables extends them. None leaves the folder without one.
        ignore: regexes of our parameter paths that a source holds and the model is not to take.
        new: regexes of parameters that no source holds and that are drawn anew. The projection between a vision tower
            and a language model that have not met needs no regex.
        dtype: float32 or bfloat16; None stores each parameter as its source does (float16 as float32).
        seed: draws the new parameters.
        overwrite: replace a folder that holds something else.
        progress: a bar to report to.

    Raises:
        UserError: a source that cannot be read, parts that do not make a model, parameters left over, missing or of
            another shape (all named), no space left.
    """
    paths = [path for path in (model, vision, text) if path is not None]
    check_target(out, PRETRAINED_KIND, sources=paths, overwrite=overwrite)
    sources = open_sources(model, vision, text)
    config = plan_model(sources, size, settings or {}, vocabulary)
    if dtype not in (None, *DTYPES):
        raise UserError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}, or none to keep the sources'")
    backbone = make_backbone(config)
    leaves: dict[str, Any] = flatten_dict(jax.eval_shape(backbone.init, jax.random.key(0)), sep="/")
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    origin = match(sources, shapes, config, ignore, new)
    fresh = [path for path in shapes if path not in origin]
    specs = {
        path: jax.ShapeDtypeStruct(shape, _stored(origin.get(path), path, dtype)) for path, shape in shapes.items()
    }
    described = pretrained_spec(config, vocabulary, [f"{one.kind}: {one.path.name}" for one in sources.values()])

    def pieces(path: str) -> Iterator[tuple[Index, np.ndarray]]:
        if path in origin:
            yield from _fitted(path, origin[path], shapes[path])
        else:
            yield (), _drawn(backbone, path, seed)

    out = pathlib.Path(out)
    try:
        with whole_folder(out, PRETRAINED_KIND, sources=paths, overwrite=overwrite) as partial:
            check_space(out.resolve(), tree_bytes(specs))
            _write(partial, described, vocabulary, specs, pieces, progress)
    except UserError:
        raise
    except Exception as error:
        raise_if_disk_full(error, out)
        raise
    taken = {str(source.path): [path for path in origin if origin[path] is source] for source in sources.values()}
    extended = [_new_rows(path, weights.shapes[path], shapes[path]) for path, weights in origin.items()]
    old = origin[POSITIONS].shapes[POSITIONS][0] if POSITIONS in origin else 0
    resampled = (old, shapes[POSITIONS][0]) if old and old != shapes[POSITIONS][0] else None
    return Imported(config, taken, fresh + [rows for rows in extended if rows], resampled)


def _write(
    folder: pathlib.Path,
    described: BundleSpec,
    vocabulary: Vocabulary | None,
    specs: Mapping[str, jax.ShapeDtypeStruct],
    pieces: Callable[[str], Iterator[tuple[Index, np.ndarray]]],
    progress: Progress | None,
) -> None:
    bar = progress.add_task("parameters", total=sum(spec.size for spec in specs.values())) if progress else None
    writer = ParamsWriter(folder / PARAMS_DIR, specs)
    for path in specs:
        for index, piece in pieces(path):
            writer.write(path, index, piece)
            if progress and bar is not None:
                progress.advance(bar, piece.size)
    (folder / PARAMS_DIR / COMMIT_FILE).write_text("complete\n", encoding="utf-8")
    write_spec(folder, described, vocabulary)


def _fitted(path: str, weights: Weights, wanted: tuple[int, ...]) -> Iterator[tuple[Index, np.ndarray]]:
    """The parameter's pieces; positions resampled to the model's, tables lengthened to its vocabulary."""
    shape = weights.shapes[path]
    if path == POSITIONS and shape != wanted:
        whole = np.concatenate([piece for _, piece in weights.pieces(path)])
        yield (), resample_positions(whole, wanted[0])
        return
    axis = VOCABULARY_AXIS.get(path)
    if axis is None or shape == wanted:
        yield from weights.pieces(path)
        return
    total = np.zeros(wanted[1 - axis], np.float64)
    for index, piece in weights.pieces(path):
        # Where an index leaves an axis whole, it means the shorter table's.
        place = tuple(
            slice(0, size) if part == slice(None) else part
            for part, size in zip((*index, *(slice(None),) * (2 - len(index))), shape, strict=True)
        )
        total[place[1 - axis]] += piece.astype(np.float32).sum(axis, dtype=np.float64)
        yield place, piece
    # A new token starts as the average one: neither likelier nor less likely than what the model knows.
    mean = np.expand_dims((total / shape[axis]).astype(np.float32), axis)
    rows = np.repeat(mean, wanted[axis] - shape[axis], axis)
    tail = slice(shape[axis], wanted[axis])
    yield ((tail,) if axis == 0 else (slice(None), tail)), rows


def _new_rows(path: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    axis = VOCABULARY_AXIS.get(path)
    if axis is None or shape == wanted:
        return ""
    return f"{path}: tokens {shape[axis]} to {wanted[axis] - 1}, each the mean of the others"


def _drawn(backbone: Backbone, path: str, seed: int) -> np.ndarray:
    """A fresh value of this parameter alone: what the others would take is never computed."""
    draw = jax.jit(lambda rng: flatten_dict(backbone.init(rng), sep="/")[path])
    return np.asarray(draw(jax.random.key(seed)))


def _stored(weights: Weights | None, path: str, dtype: str | None) -> np.dtype:
    if dtype is not None:
        return jnp.dtype(dtype)
    kept = weights.dtype(path) if weights is not None else np.dtype(np.float32)
    return kept if kept.name == "bfloat16" else np.dtype(np.float32)
