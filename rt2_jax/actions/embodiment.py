"""An embodiment: what a robot's actions and observations are, as one value that travels with its data; its card.

A card is the embodiment as a JSON file. Preparing data writes it beside the examples, a run takes it from there into
its bundle, and the policy decodes with it.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np

from rt2_jax.actions.bins import ActionBins
from rt2_jax.actions.space import ActionSpace
from rt2_jax.errors import UserError
from rt2_jax.files.writing import write_text
from rt2_jax.typed import Count, Positive, build, check_fields, join, read_json, shown, shown_path

FIRST_CARD_FORMAT, CARD_FORMAT = 1, 2
CARD_DIR = pathlib.Path(__file__).resolve().parents[1] / "resources" / "cards"
STATISTICS = ("mean", "std", "q01", "q99", "min", "max")
# Of a dataset; what a JSON number holds exactly wherever it is read.
Total = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
# Fields that tell of a dataset, and change nothing of what is seen, said or done.
_TOLD = ("name", "description", "statistics", "num_episodes", "num_steps", "image_size", "instructions")


@dataclasses.dataclass(frozen=True)
class ActionStatistics:
    """Per-dimension statistics of a training split's actions, in the space's units; None where nobody measured."""

    mean: tuple[float | None, ...]
    std: tuple[float | None, ...]
    q01: tuple[float | None, ...]
    q99: tuple[float | None, ...]
    min: tuple[float | None, ...]
    max: tuple[float | None, ...]

    def __post_init__(self) -> None:
        check_fields(self, "card", "statistics")


@dataclasses.dataclass(frozen=True)
class Embodiment:
    """What a robot's actions and observations mean, and what a team knows of the dataset that they come from.

    Attributes:
        name: of the embodiment, such as the dataset's name in TFDS; a mixture may hold several, each with its name.
        bins: the action's dimensions, and the integers that stand for their values.
        description: one or two sentences: source, robot, how the bounds were chosen.
        robot: the words that name it in a prompt; "robot" leaves the prompt as RT-2 has it.
        gripper: what the gripper's numbers mean, for people: "-1 opens, +1 closes".
        control_hz: actions a second, or None where nobody knows.
        cameras: their names, in the order in which the model sees them.
        history: frames of each camera in one example.
        chunk: actions in one answer: of this step and of the `chunk` - 1 that follow.
        proprioception: what the robot's own state is, and the integers that stand for it in the prompt; None where the
            prompt has none.
        statistics: of the actions of the training split alone, or None when not measured yet.
        num_episodes, num_steps: of the training split, or None.
        image_size: (height, width) in pixels of the stored frames, or None.
        instructions: a few examples of what the robot is told.

    Raises:
        UserError: statistics whose width is not the space's, no camera or two of one name, a state that terminates.
    """

    name: Name
    bins: ActionBins
    description: str = ""
    robot: Name = "robot"
    gripper: str = ""
    control_hz: Positive | None = None
    cameras: tuple[Name, ...] = ("image",)
    history: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    chunk: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    proprioception: ActionBins | None = None
    statistics: ActionStatistics | None = None
    num_episodes: Total | None = None
    num_steps: Total | None = None
    image_size: tuple[Count, Count] | None = None
    instructions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "card")
        where = f"card {shown_path(self.name)}"
        for field in STATISTICS if self.statistics else ():
            values = getattr(self.statistics, field)
            if len(values) != self.space.width:
                raise UserError(
                    f"{where}: {len(values)} values of {field} for {self.space.width} action "
                    "dimensions; give one for each, null where unknown"
                )
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise UserError(f"{where}: cameras are {shown(list(self.cameras))}; name at least one, and each once")
        if self.proprioception and self.proprioception.space.terminate is not None:
            raise UserError(f"{where}: proprioception has a dimension of the kind 'terminate'; a state ends nothing")

    @property
    def space(self) -> ActionSpace:
        """The dimensions of one action."""
        return self.bins.space

    @property
    def state_names(self) -> tuple[str, ...]:
        """Of the numbers of its state; () where the prompt has none."""
        return self.proprioception.space.names if self.proprioception else ()

    @property
    def state_units(self) -> tuple[str, ...]:
        """Of the numbers of its state; () where the prompt has none."""
        return self.proprioception.space.units if self.proprioception else ()

    @property
    def num_integers(self) -> int:
        """Integers in one answer: ``chunk`` actions of the space's width."""
        return self.chunk * self.bins.width

    @property
    def num_images(self) -> int:
        """Frames in one example: of every camera and every moment of the history."""
        return len(self.cameras) * self.history

    @property
    def allowed(self) -> np.ndarray:
        """bool[num_integers, first + num_bins]: which integers each position of an answer may take."""
        return np.tile(self.bins.allowed, (self.chunk, 1))

    @functools.cached_property
    def sha256(self) -> str:
        """Digest of all that gives frames, prompts and integers their meaning; what only tells of a dataset is not in.

        A field at its default is left out, so that what an earlier release hashed keeps its digest.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        fields = card_to_json(self)
        meaning = {
            name: fields[name]
            for name, default in defaults.items()
            if name not in (*_TOLD, "bins") and getattr(self, name) != default
        }
        return hashlib.sha256(json.dumps(fields["bins"] | meaning, sort_keys=True).encode()).hexdigest()


def difference(one: Embodiment | None, other: Embodiment | None, *, told: bool = False) -> tuple[str, Any, Any] | None:
    """(what differs, its two values) of the first thing in which two embodiments mean different things, or None.

    Args:
        told: what only tells of a dataset counts as well.
    """
    facts = [_facts(embodiment, told) for embodiment in (one, other)]
    for key in {**facts[0], **facts[1]}:
        values = [fact.get(key) for fact in facts]
        if values[0] != values[1]:
            return key, values[0], values[1]
    return None


def _facts(embodiment: Embodiment | None, told: bool) -> dict[str, Any]:
    if embodiment is None:
        return {"dimensions": None}
    facts = _bins_facts(embodiment.bins, "")
    fields = card_to_json(embodiment)
    if embodiment.proprioception:
        facts |= _bins_facts(embodiment.proprioception, " in the state")
    facts |= {f"the card's {name}": fields[name] for name in fields if name not in ("bins", "proprioception", *_TOLD)}
    if not told:
        return facts
    facts |= {f"the card's {name}": fields[name] for name in _TOLD if name != "statistics"}
    for field in STATISTICS if embodiment.statistics else ():
        for name, value in zip(embodiment.space.names, getattr(embodiment.statistics, field), strict=True):
            facts[f"the card's {field} of {name}"] = value
    return facts


def _bins_facts(bins: ActionBins, of: str) -> dict[str, Any]:
    space = bins.space
    facts: dict[str, Any] = {f"dimensions{of}": space.names}
    for number, name in enumerate(space.names):
        facts[f"the lower bound of {name}{of}"] = space.low[number]
        facts[f"the upper bound of {name}{of}"] = space.high[number]
        facts[f"the unit of {name}{of}"] = space.units[number]
        facts[f"the kind of {name}{of}"] = space.kinds[number]
    settings = {field.name: getattr(bins, field.name) for field in dataclasses.fields(bins) if field.name != "space"}
    return facts | {f"{name}{of}": value for name, value in settings.items()}


def action_statistics(actions: np.ndarray) -> ActionStatistics:
    """Statistics of float[N, width] physical actions (population standard deviation).

    Raises:
        UserError: no action, or a value that is not finite.
    """
    actions = np.asarray(actions, np.float64)
    if actions.ndim != 2 or not len(actions) or not np.isfinite(actions).all():
        raise UserError(f"statistics: actions of shape {actions.shape}; give finite ones [N, width] with N > 0")
    low, high = np.quantile(actions, [0.01, 0.99], axis=0)
    columns = (actions.mean(0), actions.std(0), low, high, actions.min(0), actions.max(0))
    return ActionStatistics(*(tuple(float(value) for value in column) for column in columns))


def card_to_json(embodiment: Embodiment) -> dict[str, Any]:
    """The card as plain JSON values; ``card_from_json`` reads them back."""
    fields = {field.name: getattr(embodiment, field.name) for field in dataclasses.fields(embodiment)}
    for name in ("bins", "proprioception"):
        fields[name] = fields[name] and fields[name].to_json()
    for name in ("cameras", "instructions", "image_size"):
        fields[name] = fields[name] and list(fields[name])
    if embodiment.statistics:
        fields["statistics"] = {name: list(getattr(embodiment.statistics, name)) for name in STATISTICS}
    return {"format": CARD_FORMAT} | fields | {"instructions": list(embodiment.instructions)}


def card_from_json(fields: Mapping[str, Any], where: str = "card", path: str = "") -> Embodiment:
    """The embodiment of a card as ``card_to_json`` or a person wrote it; `where` and `path` say what holds it.

    A card of the first format has a space, and the bins that all had then.

    Raises:
        UserError: another format version, or a missing, unknown or malformed field.
    """
    if not isinstance(fields, Mapping):
        return build(Embodiment, fields, where, path)  # which says what is there instead
    fields = dict(fields)
    version = fields.pop("format", None)
    if type(version) is not int or not FIRST_CARD_FORMAT <= version <= CARD_FORMAT:
        raise UserError(
            f"{where}: card format {shown(version)}, this release reads {FIRST_CARD_FORMAT} and {CARD_FORMAT}; "
            "write it anew"
        )
    if version == FIRST_CARD_FORMAT:
        later = [key for key in fields if key not in (*_TOLD, "space")]
        if later:
            raise UserError(f"{where}: unknown key {join(path, later[0])} in a card of format 1; make it format 2")
        fields["bins"] = {"space": fields.pop("space", None)}
    return build(Embodiment, fields, where, path)


def with_hash(embodiment: Embodiment) -> dict[str, Any]:
    """The card and the embodiment's digest, as data and bundles hold them; ``hashed`` reads them back."""
    return {"sha256": embodiment.sha256, "card": card_to_json(embodiment)}


def hashed(fields: Any, where: str, path: str) -> Embodiment:
    """The embodiment that ``with_hash`` wrote, which must mean to this release what it meant to the one that wrote it.

    Raises:
        UserError: a field is missing or malformed, or the card has another digest.
    """
    sealed = build(_Hashed, fields, where, path)
    embodiment = card_from_json(sealed.card, where, f"{path}.card")
    if embodiment.sha256 != sealed.sha256:
        raise UserError(
            f"{where}: {path}.card means {embodiment.sha256[:12]} to this release, {sealed.sha256[:12]} was written; "
            "make it anew, or use the release that wrote it"
        )
    return embodiment


@dataclasses.dataclass(frozen=True)
class _Hashed:
    sha256: str
    card: dict[str, Any]


def load_card(name_or_path: str | pathlib.Path) -> Embodiment:
    """Reads a card: a path to a JSON file, or the name of one that ships in rt2_jax/resources/cards.

    Raises:
        UserError: no such card, or not a card.
    """
    # os.path's answer is no, where pathlib raises, for a name that is too long for the file system.
    path = next((path for path in (name_or_path, CARD_DIR / f"{name_or_path}.json") if os.path.isfile(path)), None)
    if path is None:
        shipped = ", ".join(sorted(card.stem for card in CARD_DIR.glob("*.json")))
        raise UserError(
            f"card {shown(str(name_or_path))} is neither a file nor a shipped card; choose one of: {shipped}"
        )
    return card_from_json(read_json(path, "card", "fix or replace it"), f"card {shown_path(path)}")


def save_card(embodiment: Embodiment, path: str | pathlib.Path) -> None:
    """Writes the card as JSON, making its folder where needed."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(card_to_json(embodiment), indent=2, allow_nan=False) + "\n")
