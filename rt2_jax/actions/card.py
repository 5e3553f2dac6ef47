"""A dataset's card: the bounds its actions are binned with, what they look like, and how much of it there is."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np

from rt2_jax.actions.space import ActionSpace
from rt2_jax.errors import UserError
from rt2_jax.files.writing import write_text
from rt2_jax.typed import Count, build, check_fields, read_json, shown, shown_path

CARD_FORMAT = 1
CARD_DIR = pathlib.Path(__file__).resolve().parents[1] / "resources" / "cards"
STATISTICS = ("mean", "std", "q01", "q99", "min", "max")
# Of a dataset; what a JSON number holds exactly wherever it is read.
Total = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


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
class DatasetCard:
    """What a team knows of a dataset before training on it.

    Attributes:
        name: the dataset's name, as TFDS spells it.
        space: names, units and bounds of its actions.
        description: one or two sentences: source, robot, how the bounds were chosen.
        statistics: of the training split alone, or None when not measured yet.
        num_episodes, num_steps: of the training split, or None.
        image_size: (height, width) in pixels of the stored frames, or None.
        instructions: a few examples of what the robot is told.

    Raises:
        UserError: statistics whose width is not the space's.
    """

    name: str
    space: ActionSpace
    description: str = ""
    statistics: ActionStatistics | None = None
    num_episodes: Total | None = None
    num_steps: Total | None = None
    image_size: tuple[Count, Count] | None = None
    instructions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "card")
        for field in STATISTICS if self.statistics else ():
            values = getattr(self.statistics, field)
            if len(values) != self.space.width:
                raise UserError(
                    f"card {shown_path(self.name)}: {len(values)} values of {field} for {self.space.width} action "
                    "dimensions; give one for each, null where unknown"
                )


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


def card_to_json(card: DatasetCard) -> dict[str, Any]:
    """The card as plain JSON values; ``card_from_json`` reads them back."""
    statistics = card.statistics
    return {
        "format": CARD_FORMAT,
        "name": card.name,
        "description": card.description,
        "space": card.space.to_json(),
        "statistics": statistics and {field: list(getattr(statistics, field)) for field in STATISTICS},
        "num_episodes": card.num_episodes,
        "num_steps": card.num_steps,
        "image_size": card.image_size and list(card.image_size),
        "instructions": list(card.instructions),
    }


def card_from_json(fields: Mapping[str, Any], where: str = "card", path: str = "") -> DatasetCard:
    """The card that ``card_to_json`` wrote; `where` and `path` say in messages what holds it.

    Raises:
        UserError: another format version, or a missing, unknown or malformed field.
    """
    if not isinstance(fields, Mapping):
        return build(DatasetCard, fields, where, path)  # which says what is there instead
    fields = dict(fields)
    version = fields.pop("format", None)
    if version != CARD_FORMAT or isinstance(version, bool):
        raise UserError(f"{where}: card format {shown(version)}, this release reads {CARD_FORMAT}; write it anew")
    return build(DatasetCard, fields, where, path)


def load_card(name_or_path: str | pathlib.Path) -> DatasetCard:
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


def save_card(card: DatasetCard, path: str | pathlib.Path) -> None:
    """Writes the card as JSON, making its folder where needed."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(card_to_json(card), indent=2, allow_nan=False) + "\n")
