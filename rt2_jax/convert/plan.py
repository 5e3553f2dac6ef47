"""What an import will do, decided before anything is written: the model, and which source gives each parameter."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rt2_jax.convert.weights import Weights, open_weights, raise_all
from rt2_jax.errors import UserError
from rt2_jax.models.config import ModelConfig, PrefixLmConfig
from rt2_jax.models.sizes import get_config
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.typed import shown

POSITIONS = "vision/position_embedding"
# Tables with an axis of the vocabulary: new tokens lengthen it.
VOCABULARY_AXIS = {"token_embedding/embedding": 0, "logits/kernel": 1}


def open_sources(
    model: str | pathlib.Path | None, vision: str | pathlib.Path | None, text: str | pathlib.Path | None
) -> dict[str, Weights]:
    """Role ("model", "vision", "text") -> the weights named for it.

    Raises:
        UserError: none is named, one cannot be read or lacks the part that it is named for.
    """
    paths = {role: path for role, path in (("model", model), ("vision", vision), ("text", text)) if path is not None}
    if not paths:
        raise UserError("no weights are named; give a model, or a text and perhaps a vision checkpoint")
    sources = {role: open_weights(path) for role, path in paths.items()}
    for role in ("vision", "text"):
        if role in sources and getattr(sources[role], role) is None:
            raise UserError(f"{sources[role].path} ({sources[role].kind}) has no {role} model; name one that has")
    return sources


def plan_model(
    sources: Mapping[str, Weights], size: str | None, settings: Mapping[str, Any], vocabulary: Vocabulary | None
) -> ModelConfig:
    """The model to build: the named size or what the sources hold, for a vocabulary, with settings changed.

    Raises:
        UserError: no language model, an unknown size or setting, or values that make no model.
    """
    vision, text = (sources.get(role, sources.get("model")) for role in ("vision", "text"))
    if size is not None:
        config = get_config(size)
    else:
        if text is None or text.text is None:
            assert vision is not None  # some weights are named, and they are no language model's
            raise UserError(f"{vision.path} ({vision.kind}) has no language model; name a text checkpoint beside it")
        tower, image_size = None, 224
        if vision is not None and vision.vision is not None:
            tower, image_size = vision.vision, round(vision.image_tokens**0.5) * vision.vision.patch_size
        # A language model alone reads its prompt backwards only; one that is given images has a prefix (PaliGemma).
        prefix = {"bidirectional_prefix": True} if tower and isinstance(text.text, PrefixLmConfig) else {}
        config = ModelConfig(
            name="_".join(dict.fromkeys(weights.kind for weights in (vision, text) if weights is not None)),
            vision=tower,
            text=dataclasses.replace(text.text, **prefix),
            image_size=image_size,
            vocab_size=text.vocab_size,
            num_images=1 if tower else 0,
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
            raise UserError(f"the model's config has no field {shown(key)}; it has {', '.join(known)}")
        group[field] = value
    return ModelConfig.from_json(tree)


def _prompt_tokens(vocabulary: Vocabulary, kind: str) -> dict[str, int | None]:
    """The tokens that a prefix LM puts around a prompt; PaliGemma ends it with a new line (arXiv 2407.07726, 3.1)."""
    newline = vocabulary.encode("\n") if kind == "paligemma" else []
    separator = newline[-1] if len(newline) == 1 else None
    return {"bos_id": vocabulary.bos_id, "image_id": vocabulary.image_id, "separator_id": separator}


def match(
    sources: Mapping[str, Weights],
    shapes: Mapping[str, tuple[int, ...]],
    config: ModelConfig,
    ignore: Sequence[str],
    new: Sequence[str],
) -> dict[str, Weights]:
    """Our path -> the weights that give it; the paths of `shapes` that are not in it are to be drawn.

    Raises:
        UserError: names what is left over, missing or misshapen.
    """
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
    given = [path for weights in sources.values() for path in weights.shapes]
    for option, regexes, paths in (("ignore", ignored, given), ("new", drawn, shapes)):
        wrong += [
            f"{option} {regex.pattern!r} names no parameter (take it out, or correct it)"
            for regex in regexes
            if not any(regex.fullmatch(path) for path in paths)
        ]
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


def _compiled(regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except re.error as error:
        raise UserError(f"{regex!r} is no regular expression ({error})") from error


def parse_setting(text: str) -> tuple[str, Any]:
    """``key=value`` of a command line: numbers, true, false and null as in JSON, anything else a text.

    Raises:
        UserError: no "=".
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"setting {shown(text)} has no value; write key=value")
    try:
        return key, msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeError):
        return key, value
    except RecursionError as error:
        raise UserError(f"setting {shown(text)} is nested too deep; write key=value") from error
