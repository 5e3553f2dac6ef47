"""Pretrained weights in: any vision tower with any language model, streamed into a folder that training starts from."""

import dataclasses
import json
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from rich.progress import Progress

from rt2_jax.convert.params_folder import ParamsWriter
from rt2_jax.convert.resample import resample_positions
from rt2_jax.convert.weights import Index, Weights, open_weights, raise_all
from rt2_jax.errors import UserError
from rt2_jax.models.backbone import Backbone, make_backbone
from rt2_jax.models.config import ModelConfig, PrefixLmConfig
from rt2_jax.models.sizes import get_config
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.train.bundle import COMMIT_FILE, DTYPES, PARAMS_DIR, pretrained_meta, write_meta
from rt2_jax.train.full_disk import check_space, raise_if_disk_full

POSITIONS = "vision/position_embedding"
# Tables with an axis of the vocabulary: new tokens lengthen it.
VOCABULARY_AXIS = {"token_embedding/embedding": 0, "logits/kernel": 1}


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
    progress: Progress | None = None,
) -> Imported:
    """Writes `out`: ``bundle.json``, ``params/`` and the vocabulary, for a config's ``init_from`` and ``model``.

    Host memory stays within a few pieces of the largest tensor, whatever the model's size.

    Args:
        out: the folder; an existing one is replaced once the new one is whole.
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
        progress: a bar to report to.

    Raises:
        UserError: a source that cannot be read, parts that do not make a model, parameters left over, missing or of
            another shape (all named), no space left.
    """
    sources = _open(model, vision, text)
    config = _model_config(sources, size, dict(settings or {}), vocabulary)
    if dtype not in (None, *DTYPES):
        raise UserError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}, or none to keep the sources'")
    backbone = make_backbone(config)
    shapes = {
        path: tuple(leaf.shape)
        for path, leaf in flatten_dict(jax.eval_shape(backbone.init, jax.random.key(0)), sep="/").items()
    }
    origin = _match(sources, shapes, config, ignore, new)
    fresh = [path for path in shapes if path not in origin]
    specs = {
        path: jax.ShapeDtypeStruct(shape, _stored(origin.get(path), path, dtype)) for path, shape in shapes.items()
    }
    meta = pretrained_meta(config, vocabulary, [f"{source.kind}: {source.path.name}" for source in sources.values()])
    drawn = _drawn(backbone, fresh, seed)
    _write(pathlib.Path(out).resolve(), meta, vocabulary, specs, origin, drawn, progress)
    taken = {str(source.path): [path for path in origin if origin[path] is source] for source in sources.values()}
    extended = [_new_rows(path, weights.shapes[path], shapes[path]) for path, weights in origin.items()]
    old = origin[POSITIONS].shapes[POSITIONS][0] if POSITIONS in origin else 0
    resampled = (old, shapes[POSITIONS][0]) if old and old != shapes[POSITIONS][0] else None
    return Imported(config, taken, fresh + [rows for rows in extended if rows], resampled)


def _write(
    out: pathlib.Path,
    meta: Mapping[str, Any],
    vocabulary: Vocabulary | None,
    specs: Mapping[str, jax.ShapeDtypeStruct],
    origin: Mapping[str, Weights],
    drawn: Mapping[str, jax.Array],
    progress: Progress | None,
) -> None:
    """The whole folder, or nothing."""
    temporary = out.with_name(out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    check_space(out, specs)
    bar = progress.add_task("parameters", total=sum(spec.size for spec in specs.values())) if progress else None
    try:
        temporary.mkdir(parents=True)
        writer = ParamsWriter(temporary / PARAMS_DIR, specs)
        for path, spec in specs.items():
            pieces = _fitted(path, origin[path], spec.shape) if path in origin else [((), np.asarray(drawn[path]))]
            for index, piece in pieces:
                writer.write(path, index, piece)
                if progress:
                    progress.advance(bar, piece.size)
        (temporary / PARAMS_DIR / COMMIT_FILE).write_text("complete\n", encoding="utf-8")
        write_meta(temporary, meta, vocabulary)
        shutil.rmtree(out, ignore_errors=True)
        temporary.rename(out)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise_if_disk_full(error, out)
        raise


def _open(model, vision, text) -> dict[str, Weights]:
    """Role -> weights; a path given twice is opened once."""
    paths = {role: path for role, path in (("model", model), ("vision", vision), ("text", text)) if path is not None}
    if not paths:
        raise UserError("no weights are named; give a model, or a text and perhaps a vision checkpoint")
    sources = {role: open_weights(path) for role, path in paths.items()}
    for role in ("vision", "text"):
        if role in sources and getattr(sources[role], role) is None:
            raise UserError(f"{sources[role].path} ({sources[role].kind}) has no {role} model; name one that has")
    return sources


def _model_config(
    sources: dict[str, Weights], size: str | None, settings: dict[str, Any], vocabulary: Vocabulary | None
) -> ModelConfig:
    vision, text = (sources.get(role, sources.get("model")) for role in ("vision", "text"))
    if size is not None:
        config = get_config(size)
    else:
        if text is None or text.text is None:
            raise UserError(f"{vision.path} ({vision.kind}) has no language model; name a text checkpoint beside it")
        has_vision = vision is not None and vision.vision is not None
        # A language model alone reads its prompt backwards only; one that is given images has a prefix (PaliGemma).
        prefix = {"bidirectional_prefix": True} if has_vision and isinstance(text.text, PrefixLmConfig) else {}
        config = ModelConfig(
            name="_".join(dict.fromkeys(weights.kind for weights in (vision, text) if weights is not None)),
            vision=vision.vision if has_vision else None,
            text=dataclasses.replace(text.text, **prefix),
            image_size=round(vision.image_tokens**0.5) * vision.vision.patch_size if has_vision else 224,
            vocab_size=text.vocab_size,
            num_images=1 if has_vision else 0,
            compute_dtype="bfloat16",
            remat="full",
        )
    tree = config.to_json()
    if vocabulary is not None:
        tree["vocab_size"] = vocabulary.size
        if isinstance(config.text, PrefixLmConfig):
            tree["text"] |= _prompt_tokens(vocabulary, text.kind if text else "")
    for key, value in settings.items():
        *groups, field = key.split(".")
        group = tree
        for name in groups:
            group = group.get(name) if isinstance(group, dict) else None
        if not isinstance(group, dict) or field not in group:
            known = [*tree, *(f"{part}.{name}" for part in ("vision", "text") for name in tree[part] or ())]
            raise UserError(f"the model's config has no field {key!r}; it has {', '.join(known)}")
        group[field] = value
    return ModelConfig.from_json(tree)


def _prompt_tokens(vocabulary: Vocabulary, kind: str) -> dict[str, int | None]:
    """The tokens that a prefix LM puts around a prompt; PaliGemma ends it with a new line (arXiv 2407.07726, 3.1)."""
    newline = vocabulary.encode("\n") if kind == "paligemma" else []
    separator = newline[-1] if len(newline) == 1 else None
    return {"bos_id": vocabulary.bos_id, "image_id": vocabulary.image_id, "separator_id": separator}


def _match(
    sources: dict[str, Weights],
    shapes: Mapping[str, tuple[int, ...]],
    config: ModelConfig,
    ignore: Sequence[str],
    new: Sequence[str],
) -> dict[str, Weights]:
    """Our path -> the weights that give it; raises when anything is left over, missing or misshapen."""
    ignored, drawn = ([_compiled(regex) for regex in regexes] for regexes in (ignore, new))
    met = not {"vision", "text"} & sources.keys()
    origin: dict[str, Weights] = {}
    wrong = []
    for role, weights in sources.items():
        for path, shape in weights.shapes.items():
            if not _gives(role, path, sources) or any(regex.fullmatch(path) for regex in ignored):
                continue
            if path not in shapes:
                wrong.append(f"{path} {list(shape)} of {weights.path} has no place in the model (ignore it by name)")
            elif not _fits(path, shape, shapes[path]):
                wrong.append(f"{path} has shape {list(shape)} in {weights.path}, the model's is {list(shapes[path])}")
            else:
                origin[path] = weights
    for path, shape in shapes.items():
        projection = path.startswith("image_projection/") and not met
        if path not in origin and not projection and not any(regex.fullmatch(path) for regex in drawn):
            wrong.append(f"{path} {list(shape)} is in no source (draw it by naming it as new)")
    raise_all(wrong, f"model {config.name}")
    return origin


def _gives(role: str, path: str, sources: Mapping[str, Weights]) -> bool:
    group = path.split("/")[0]
    part = group if group in ("vision", "image_projection") else "text"
    if role == "model":
        # A tower and a language model that have not met share no projection.
        return part not in sources if part != "image_projection" else not {"vision", "text"} & sources.keys()
    return role == part


def _fits(path: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if path == POSITIONS:
        return shape[1:] == wanted[1:]
    axis = VOCABULARY_AXIS.get(path)
    if axis is None:
        return shape == wanted
    return shape[axis] <= wanted[axis] and shape[1 - axis] == wanted[1 - axis]


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


def _drawn(backbone: Backbone, paths: Sequence[str], seed: int) -> dict[str, jax.Array]:
    """Fresh values of these parameters alone: what the rest would take is never computed."""
    if not paths:
        return {}

    @jax.jit
    def draw(rng):
        params = flatten_dict(backbone.init(rng), sep="/")
        return {path: params[path] for path in paths}

    return draw(jax.random.key(seed))


def _stored(weights: Weights | None, path: str, dtype: str | None) -> np.dtype:
    if dtype is not None:
        return jnp.dtype(dtype)
    kept = weights.dtype(path) if weights is not None else np.dtype(np.float32)
    return kept if kept.name == "bfloat16" else np.dtype(np.float32)


def _compiled(regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except re.error as error:
        raise UserError(f"{regex!r} is no regular expression ({error})") from error


def parse_setting(text: str) -> tuple[str, Any]:
    """ "key=value" of a command line: numbers, true, false and null as in JSON, anything else a text.

    Raises:
        UserError: no "=".
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"setting {text!r} has no value; write key=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
