"""``bundle.json``: what weights, tokens and actions of a folder mean, as plain JSON that is checked when it is read."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from rt2_jax.actions.bins import ActionBins
from rt2_jax.actions.embodiment import Embodiment, card_from_json, hashed, with_hash
from rt2_jax.actions.envelope import Envelope
from rt2_jax.errors import UserError
from rt2_jax.files.writing import whole_file, write_text
from rt2_jax.models.config import ModelConfig
from rt2_jax.tokens.grammar import Grammar, build_grammar
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.typed import Count, Natural, build, join, read_json, shown, shown_path

BUNDLE_FILE = "bundle.json"
VOCABULARY_FILE = "vocabulary.model"
# Folders of the first format have no manifest, so nothing says whether their bytes are whole; the first two have one
# card and its bins where the third has embodiments. All are still read.
FIRST_FORMAT, BUNDLE_FORMAT = 1, 3
ANEW = "copy or export it again"
_OWN_HASH = "sha256"

_Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


@dataclasses.dataclass(frozen=True)
class VocabularySpec:
    """The vocabulary beside bundle.json: its file's digest, and the token of each integer where they were written."""

    file: Literal["vocabulary.model"]  # beside bundle.json, never elsewhere
    sha256: _Hash
    integer_ids: tuple[Natural, ...] | None = None


@dataclasses.dataclass(frozen=True)
class GrammarSpec:
    """The digest of the grammar that actions are decoded under (`Grammar.sha256`)."""

    sha256: _Hash


@dataclasses.dataclass(frozen=True)
class BundleSpec:
    """The content of bundle.json.

    Attributes:
        model: what computes.
        vocabulary: what tokens mean; None for converted weights that came without.
        embodiments: what actions mean, by name; empty for a model that was shown no robot.
        grammar: of the vocabulary and all embodiments; None where there is none.
        prompt_len, target_len: tokens that a prompt and an answer may have; None for weights that were never told.
        step: updates done when it was written.
        tasks: task -> weight of the mixture that it was trained on.
        sources: what weights were converted from.
        exported_from: the identity of the folder that it was exported from.
        envelopes: limits that no action leaves, by embodiment; those that have none are not in it.
        format: of the file that it was read from.
    """

    model: ModelConfig
    vocabulary: VocabularySpec | None
    embodiments: Mapping[str, Embodiment]
    grammar: GrammarSpec | None
    prompt_len: int | None = None
    target_len: int | None = None
    step: int = 0
    tasks: Mapping[str, float] | None = None
    sources: tuple[str, ...] = ()
    exported_from: str | None = None
    envelopes: Mapping[str, Envelope] = dataclasses.field(default_factory=dict)
    format: int = BUNDLE_FORMAT

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, in today's format; ``from_json`` reads them back."""
        vocabulary = self.vocabulary and {
            "file": self.vocabulary.file,
            "sha256": self.vocabulary.sha256,
            "integer_ids": self.vocabulary.integer_ids and list(self.vocabulary.integer_ids),
        }
        fields = {
            "format": BUNDLE_FORMAT,
            "model": self.model.to_json(),
            "vocabulary": vocabulary,
            "embodiments": {name: with_hash(embodiment) for name, embodiment in self.embodiments.items()},
            "grammar": self.grammar and {"sha256": self.grammar.sha256},
            "step": self.step,
        }
        optional = {
            "prompt_len": self.prompt_len,
            "target_len": self.target_len,
            "image_size": self.prompt_len and self.model.image_size,
            "tasks": self.tasks if self.tasks is None else dict(self.tasks),
            "sources": list(self.sources) or None,
            "exported_from": self.exported_from,
            "envelopes": {name: envelope.to_json() for name, envelope in self.envelopes.items()} or None,
        }
        return fields | {name: value for name, value in optional.items() if value is not None}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], where: str = BUNDLE_FILE) -> "BundleSpec":
        """The spec of a bundle.json's content, of this format or an earlier one; `where` names the file in messages.

        Raises:
            UserError: another format, a field that is missing, unknown or of a wrong type, or fields that contradict
                each other.
        """
        found = fields.get("format")
        if type(found) is not int or not FIRST_FORMAT <= found <= BUNDLE_FORMAT:
            raise UserError(
                f"{where} has format {found!r}, this release reads {FIRST_FORMAT} to {BUNDLE_FORMAT}; {ANEW}"
            )
        fields = _with_embodiments(fields, where) if found < BUNDLE_FORMAT else fields
        raw = build(_Fields, fields, where)
        try:
            model = ModelConfig.from_json(raw.model)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        embodiments = {
            name: hashed(fields, where, join("embodiments", name)) for name, fields in raw.embodiments.items()
        }
        for name, embodiment in embodiments.items():
            if embodiment.name != name:
                raise UserError(f"{where}: embodiments.{shown(name)} has a card named {shown(embodiment.name)}; {ANEW}")
        lacks = [
            name for name in ("vocabulary", "prompt_len", "target_len", "image_size") if getattr(raw, name) is None
        ]
        if bool(embodiments) != bool(raw.grammar) or (embodiments and lacks):
            has = "embodiments" if embodiments else "grammar"
            raise UserError(f"{where}: it has {has} of what an action needs, and not the rest; {ANEW}")
        if raw.image_size not in (None, model.image_size):
            raise UserError(
                f"{where}: image_size is {raw.image_size}, the model's frames are {model.image_size} pixels; {ANEW}"
            )
        kept = {field.name: getattr(raw, field.name) for field in dataclasses.fields(raw) if field.name != "image_size"}
        envelopes = envelopes_from_json(raw.envelopes or {}, embodiments, where, "envelopes")
        return cls(**{**kept, "model": model, "embodiments": embodiments, "envelopes": envelopes})


@dataclasses.dataclass(frozen=True)
class _Fields:
    """The fields of bundle.json and their types; `BundleSpec` says what they mean."""

    format: int
    model: dict[str, Any]
    vocabulary: VocabularySpec | None
    embodiments: dict[str, dict[str, Any]]
    grammar: GrammarSpec | None
    prompt_len: Count | None = None
    target_len: Count | None = None
    image_size: Natural | None = None
    step: Natural = 0
    tasks: dict[str, float] | None = None
    sources: tuple[str, ...] = ()
    exported_from: _Hash | None = None
    envelopes: dict[str, dict[str, Any]] | None = None


def envelopes_from_json(
    fields: Mapping[str, Any], embodiments: Mapping[str, Embodiment], where: str, path: str = ""
) -> dict[str, Envelope]:
    """The envelopes of a JSON object by embodiment; `where` and `path` say in messages what holds it.

    Raises:
        UserError: an embodiment that is unknown, or an envelope that is malformed or does not fit it.
    """
    envelopes = {}
    for name, limits in fields.items():
        if name not in embodiments:
            known = ", ".join(embodiments) or "none"
            raise UserError(f"{where}: {join(path, name)} is of no embodiment; there are: {known}")
        robot = embodiments[name]
        envelopes[name] = Envelope.from_json(limits, f"{where}: {join(path, name)}")
        try:
            envelopes[name].check(robot.space, robot.state_names)
        except UserError as error:
            raise UserError(f"{where}: {join(path, name)}: {error}") from error
    return envelopes


def with_envelopes(spec: BundleSpec, path: str | pathlib.Path) -> BundleSpec:
    """The spec with the envelopes of a JSON file: ``{embodiment: envelope}``, null for one that is to have none.

    What the file does not name stays as it is.

    Raises:
        UserError: no such file, or as `envelopes_from_json`.
    """
    where, fix = f"envelope {shown_path(path)}", "fix or replace it"
    fields = read_json(path, "envelope", fix)
    given = envelopes_from_json(
        {name: each for name, each in fields.items() if each is not None}, spec.embodiments, where
    )
    dropped = [name for name, each in fields.items() if each is None]
    for name in dropped:
        if name not in spec.embodiments:
            raise UserError(f"{where}: {join('', name)} is of no embodiment; there are: {', '.join(spec.embodiments)}")
    kept = {name: each for name, each in spec.envelopes.items() if name not in dropped}
    return dataclasses.replace(spec, envelopes=kept | given)


def _with_embodiments(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The content of an earlier bundle.json, its one card and bins as an embodiment."""
    fields = dict(fields)
    if "embodiments" in fields:
        raise UserError(f"{where}: unknown key embodiments in format {fields['format']}; {ANEW}")
    for name in ("card", "bins"):
        if name not in fields:
            raise UserError(f"{where}: {name} is missing; {ANEW}")
    card, bins = fields.pop("card"), fields.pop("bins")
    if (card is None) != (bins is None):
        raise UserError(
            f"{where}: it has {'card' if bins is None else 'bins'} of what an action needs, and not the rest; {ANEW}"
        )
    fields["embodiments"] = {}
    if card is not None:
        told = card_from_json(card, where, "card")
        cut = ActionBins.from_json(bins, where, "bins")
        what = next((name for name in _SPACE if getattr(told.space, name) != getattr(cut.space, name)), None)
        if what:
            one, other = getattr(cut.space, what), getattr(told.space, what)
            raise UserError(f"{where}: bins and card differ in space.{what}: {list(one)} and {list(other)}; {ANEW}")
        fields["embodiments"] = {told.name: with_hash(dataclasses.replace(told, bins=cut))}
    return fields


_SPACE = ("names", "low", "high", "units", "kinds")


def bundle_spec(
    model: ModelConfig,
    vocabulary: Vocabulary,
    embodiments: Mapping[str, Embodiment],
    *,
    prompt_len: int,
    target_len: int,
    step: int = 0,
    tasks: Mapping[str, float] | None = None,
) -> BundleSpec:
    """The spec of a model that was trained here; `embodiments` is empty for one that was shown no robot."""
    return BundleSpec(
        model=model,
        vocabulary=VocabularySpec(VOCABULARY_FILE, vocabulary.sha256, tuple(vocabulary.integer_ids.tolist())),
        embodiments=dict(embodiments),
        grammar=GrammarSpec(grammar_of(vocabulary, embodiments).sha256) if embodiments else None,
        prompt_len=prompt_len,
        target_len=target_len,
        step=step,
        tasks=dict(tasks or {}),
    )


def pretrained_spec(model: ModelConfig, vocabulary: Vocabulary | None, sources: list[str]) -> BundleSpec:
    """The spec of weights that have not seen a robot; training starts from them."""
    words = vocabulary and VocabularySpec(VOCABULARY_FILE, vocabulary.sha256)
    return BundleSpec(model=model, vocabulary=words, embodiments={}, grammar=None, sources=tuple(sources))


def grammar_of(vocabulary: Vocabulary, embodiments: Mapping[str, Embodiment]) -> Grammar:
    """The grammar of a vocabulary and a model's embodiments; errors as `build_grammar`."""
    return build_grammar(vocabulary, {name: embodiment.allowed for name, embodiment in embodiments.items()})


def write_spec(
    directory: pathlib.Path, spec: BundleSpec, vocabulary: Vocabulary | None, *, sealed: bool = True
) -> None:
    """Writes bundle.json and the vocabulary, if there is one, beside it, each whole.

    Where no manifest will hold the folder's bytes to their hashes (not `sealed`: a run's folder, which changes all the
    time), bundle.json has a hash over itself in it, as it has the vocabulary's.
    """
    if vocabulary is not None:
        # Read before it is written: the file may be the very one.
        words = vocabulary.path.read_bytes()
        with whole_file(directory / VOCABULARY_FILE) as partial:
            partial.write_bytes(words)
    fields = spec.to_json()
    own = {} if sealed else {_OWN_HASH: _hash_of(fields)}
    write_text(directory / BUNDLE_FILE, json.dumps(fields | own, indent=2) + "\n")


def read_spec(directory: str | pathlib.Path) -> BundleSpec:
    """bundle.json of a bundle or run directory.

    Raises:
        UserError: no such folder or file, not JSON, other content than was written, another format version, or a field
            that is wrong.
    """
    path = pathlib.Path(directory) / BUNDLE_FILE
    if not path.is_file():
        raise UserError(f"{directory} has no {BUNDLE_FILE}; name a bundle or a run directory")
    fields = dict(read_json(path, fix=ANEW))
    if _OWN_HASH in fields and fields.pop(_OWN_HASH) != _hash_of(fields):
        raise UserError(
            f"{path} has changed since it was written; put the file back, or go on with the run, which writes it anew"
        )
    return BundleSpec.from_json(fields, str(path))


def check_vocabulary(spec: BundleSpec, sha256: str, what: str) -> None:
    """Raises a UserError that names both hashes when `sha256` is not the vocabulary of `spec`."""
    if spec.vocabulary is None:
        raise UserError(f"the weights have no vocabulary, so {what} cannot be checked; convert them again with one")
    if spec.vocabulary.sha256 != sha256:
        raise UserError(
            f"vocabulary {sha256[:12]} of {what} is not {spec.vocabulary.sha256[:12]}, which the weights were "
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
    return _hash_of(_hashed(known))


def _hash_of(fields: Mapping[str, Any]) -> str:
    """sha256 over a JSON object, in whatever order and layout its text has it."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def same_meaning(one: BundleSpec, other: BundleSpec) -> str | None:
    """The first field in which two contents of bundle.json mean different things, or None."""
    for field in dataclasses.fields(BundleSpec):
        values: list[Any] = [getattr(spec, field.name) for spec in (one, other)]
        if field.name == "model":
            values = [model_hash(model.to_json()) for model in values]
        if field.name == "vocabulary":
            values = [words and words.sha256 for words in values]
        if field.name not in ("format", "step", "exported_from") and values[0] != values[1]:
            return field.name
    return None


def _hashed(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {key: _hashed(value) for key, value in tree.items() if key not in _NOT_HASHED and not key.endswith("_init")}
