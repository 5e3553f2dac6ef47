"""``bundle.json``: what weights, tokens and actions of a folder mean, as plain JSON that is checked when it is read."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from rt2_jax.actions.bins import ActionBins
from rt2_jax.actions.card import DatasetCard, card_from_json, card_to_json
from rt2_jax.errors import UserError
from rt2_jax.files.writing import whole_file, write_text
from rt2_jax.models.config import ModelConfig
from rt2_jax.tokens.grammar import build_grammar
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.typed import Count, Natural, build, read_json

BUNDLE_FILE = "bundle.json"
VOCABULARY_FILE = "vocabulary.model"
# Folders of the first format have no manifest, so nothing says whether their bytes are whole; they are still read.
FIRST_FORMAT, BUNDLE_FORMAT = 1, 2
ANEW = "copy or export it again"

_Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


@dataclasses.dataclass(frozen=True)
class _VocabularyMeta:
    file: Literal["vocabulary.model"]  # beside bundle.json, never elsewhere
    sha256: _Hash
    integer_ids: tuple[Natural, ...] | None = None


@dataclasses.dataclass(frozen=True)
class _GrammarMeta:
    sha256: _Hash


@dataclasses.dataclass(frozen=True)
class _Meta:
    """The fields of bundle.json and their types; `bundle_meta` and `pretrained_meta` say what they mean."""

    format: int
    model: dict[str, Any]
    vocabulary: _VocabularyMeta | None
    card: dict[str, Any] | None
    bins: dict[str, Any] | None
    grammar: _GrammarMeta | None
    prompt_len: Count | None = None
    target_len: Count | None = None
    image_size: Natural | None = None
    step: Natural = 0
    tasks: dict[str, float] | None = None
    sources: tuple[str, ...] = ()
    exported_from: _Hash | None = None


def bundle_meta(
    model: ModelConfig,
    vocabulary: Vocabulary,
    card: DatasetCard | None,
    bins: ActionBins | None,
    *,
    prompt_len: int,
    target_len: int,
    step: int = 0,
    tasks: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The content of bundle.json; `card` and `bins` are None for a model that was shown no robot."""
    return {
        "format": BUNDLE_FORMAT,
        "model": model.to_json(),
        "vocabulary": {
            "file": VOCABULARY_FILE,
            "sha256": vocabulary.sha256,
            "integer_ids": vocabulary.integer_ids.tolist(),
        },
        "card": card and card_to_json(card),
        "bins": bins and bins.to_json(),
        "grammar": bins and {"sha256": build_grammar(vocabulary, bins.allowed).sha256},
        "prompt_len": prompt_len,
        "target_len": target_len,
        "image_size": model.image_size,
        "step": step,
        "tasks": dict(tasks or {}),
    }


def pretrained_meta(model: ModelConfig, vocabulary: Vocabulary | None, sources: list[str]) -> dict[str, Any]:
    """bundle.json of weights that have not seen a robot: no card, no bins; training starts from them."""
    return {
        "format": BUNDLE_FORMAT,
        "model": model.to_json(),
        "vocabulary": vocabulary and {"file": VOCABULARY_FILE, "sha256": vocabulary.sha256},
        "card": None,
        "bins": None,
        "grammar": None,
        "step": 0,
        "sources": sources,
    }


def write_meta(directory: pathlib.Path, meta: Mapping[str, Any], vocabulary: Vocabulary | None) -> None:
    """Writes bundle.json and the vocabulary, if there is one, beside it, each whole."""
    if vocabulary is not None:
        # Read before it is written: the file may be the very one.
        words = vocabulary.path.read_bytes()
        with whole_file(directory / VOCABULARY_FILE) as partial:
            partial.write_bytes(words)
    write_text(directory / BUNDLE_FILE, json.dumps(meta, indent=2) + "\n")


def read_meta(directory: str | pathlib.Path) -> dict[str, Any]:
    """bundle.json of a bundle or run directory, every field of the right type and fitting the others.

    Raises:
        UserError: no such folder or file, not JSON, another format version, or a field that is wrong.
    """
    path = pathlib.Path(directory) / BUNDLE_FILE
    if not path.is_file():
        raise UserError(f"{directory} has no {BUNDLE_FILE}; name a bundle or a run directory")
    meta = read_json(path, fix=ANEW)
    check_meta(meta, str(path))
    return meta


def check_meta(meta: Mapping[str, Any], where: str) -> None:
    """Raises a UserError that names the first field of bundle.json's content that is wrong."""
    found = meta.get("format")
    if type(found) is not int or not FIRST_FORMAT <= found <= BUNDLE_FORMAT:
        raise UserError(f"{where} has format {found!r}, this release reads {FIRST_FORMAT} to {BUNDLE_FORMAT}; {ANEW}")
    build(_Meta, meta, where)
    try:
        model = ModelConfig.from_json(meta["model"])
        card = meta["card"] and card_from_json(meta["card"])
        bins = meta["bins"] and ActionBins.from_json(meta["bins"])
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    of_robot = [name for name in ("card", "bins", "grammar") if meta[name] is not None]
    lacks = [name for name in ("vocabulary", "prompt_len", "target_len", "image_size") if meta.get(name) is None]
    if len(of_robot) not in (0, 3) or (of_robot and lacks):
        raise UserError(f"{where}: it has {', '.join(of_robot)} of what an action needs, and not the rest; {ANEW}")
    if bins and bins.space != card.space:
        raise UserError(f"{where}: bins and card differ in {_first_difference(bins, card)}; {ANEW}")
    size = meta.get("image_size")
    if size not in (None, model.image_size):
        raise UserError(f"{where}: image_size is {size}, the model's frames are {model.image_size} pixels; {ANEW}")


def _first_difference(bins: ActionBins, card: DatasetCard) -> str:
    for name in ("names", "low", "high", "units"):
        one, other = getattr(bins.space, name), getattr(card.space, name)
        if one != other:
            return f"space.{name}: {list(one)} and {list(other)}"
    return "space"


def check_vocabulary(meta: Mapping[str, Any], sha256: str, what: str) -> None:
    """Raises a UserError that names both hashes when `sha256` is not the vocabulary of `meta`."""
    if meta["vocabulary"] is None:
        raise UserError(f"the weights have no vocabulary, so {what} cannot be checked; convert them again with one")
    if meta["vocabulary"]["sha256"] != sha256:
        raise UserError(
            f"vocabulary {sha256[:12]} of {what} is not {meta['vocabulary']['sha256'][:12]}, which the weights were "
            "trained with; name that vocabulary, for its token ids mean other text"
        )


# Fields of a model's config that change neither which parameters it has nor what they compute.
_HOW_COMPUTED = ("name", "remat", "scan_unroll", "compute_dtype", "dropout_rate")
_HOW_DRAWN = ("position_std", "branch_init", "encoder_branch_init")
_NOT_HASHED = (*_HOW_COMPUTED, *_HOW_DRAWN)


def model_hash(model: Mapping[str, Any]) -> str:
    """sha256 over the fields of a model's JSON that decide which parameters it has and what they compute.

    A field that the JSON lacks, since it was written before the field existed, counts as its default.
    """
    known = ModelConfig.from_json(model).to_json()
    return hashlib.sha256(json.dumps(_hashed(known), sort_keys=True).encode()).hexdigest()


def same_meaning(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first field in which two contents of bundle.json mean different things, or None."""
    for name in sorted({*one, *other} - {"format", "step", "exported_from"}):
        values = [meta.get(name) for meta in (one, other)]
        if name == "model":
            values = [model_hash(value) for value in values]
        if values[0] != values[1]:
            return name
    return None


def _hashed(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {key: _hashed(value) for key, value in tree.items() if key not in _NOT_HASHED and not key.endswith("_init")}
