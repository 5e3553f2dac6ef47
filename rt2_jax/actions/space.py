"""What the numbers of an action mean: names, units and bounds of each dimension."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from rt2_jax.errors import UserError
from rt2_jax.typed import build, check_fields, shown

ARM_NAMES = ("terminate", "dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
ARM_UNITS = ("flag", "m", "m", "m", "rad", "rad", "rad", "opening")

CONTINUOUS, BINARY, TERMINATE = KINDS = ("continuous", "binary", "terminate")
# Far beyond any robot's metres and radians, and within what float32 still computes a range of.
Bound = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


@dataclasses.dataclass(frozen=True)
class ActionSpace:
    """The dimensions of a physical action vector, in order, with inclusive bounds; as many as the robot has.

    Attributes:
        names: of the dimensions, each once.
        low, high: bounds in the dimension's unit.
        units: "m", "rad", ...; a text for people and for the report.
        kinds: "continuous"; "binary", which is `low` or `high` and nothing between; or "terminate", which ends the
            episode at 1.0 and goes on at 0.0. Left out, the dimension named "terminate" is one and all others are
            continuous, as in all files of the first releases.

    Raises:
        UserError: the fields differ in length, a name stands twice, a bound is not finite, ``low >= high``, or there
            are two terminate dimensions, or one whose bounds are not [0, 1].
    """

    names: tuple[str, ...]
    low: tuple[Bound, ...]
    high: tuple[Bound, ...]
    units: tuple[str, ...]
    kinds: tuple[Literal[KINDS], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "action space")
        if not self.kinds:
            object.__setattr__(self, "kinds", kinds_of(self.names))
        counts = {name: len(getattr(self, name)) for name in ("names", "low", "high", "units", "kinds")}
        if len(set(counts.values())) != 1 or not self.names:
            told = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise UserError(f"action space: {told}; give one of each for every dimension, and at least one dimension")
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice:
            raise UserError(f"action space: two dimensions are named {shown(twice[0])}; give each a name of its own")
        if self.kinds.count(TERMINATE) > 1:
            raise UserError("action space: two dimensions are of the kind 'terminate'; one tells that all is done")
        for name, low, high, kind in zip(self.names, self.low, self.high, self.kinds, strict=True):
            if not low < high:
                raise UserError(f"action space: bounds of {shown(name)} are [{low}, {high}]; give low < high")
            if kind == TERMINATE and (low, high) != (0, 1):
                raise UserError(
                    f"action space: {shown(name)} is of the kind 'terminate' with bounds [{low}, {high}]; give [0, 1]"
                )

    @property
    def width(self) -> int:
        """Number of dimensions, of every kind."""
        return len(self.names)

    @property
    def terminate(self) -> int | None:
        """Which dimension ends the episode; None where none does."""
        return self.kinds.index(TERMINATE) if TERMINATE in self.kinds else None

    def to_json(self) -> dict[str, Any]:
        """Plain lists for a JSON file; ``from_json`` reads them back. Kinds are left out where names tell them."""
        fields = {name: list(getattr(self, name)) for name in ("names", "low", "high", "units")}
        return fields if self.kinds == kinds_of(self.names) else fields | {"kinds": list(self.kinds)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], where: str = "action space", path: str = "") -> "ActionSpace":
        """The space that ``to_json`` wrote; `where` and `path` say in messages what holds it.

        Raises:
            UserError: a field is missing, unknown or of a wrong type, or a value is refused by the constructor.
        """
        return build(cls, fields, where, path)


def kinds_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of dimensions that nobody says: the one named "terminate" is that, all others are continuous."""
    return tuple(TERMINATE if name == TERMINATE else CONTINUOUS for name in names)


def arm_space(translation: float, rotation: float) -> ActionSpace:
    """RT-2's arm space (section 3.2) with symmetric bounds: `translation` in metres, `rotation` in radians.

    The gripper is RT-1's: -1 opens, +1 closes.
    """
    return ActionSpace(
        names=ARM_NAMES,
        low=(0.0, *(-translation,) * 3, *(-rotation,) * 3, -1.0),
        high=(1.0, *(translation,) * 3, *(rotation,) * 3, 1.0),
        units=ARM_UNITS,
    )


# RT-1's bounds (tokenizer of the public code): +-1 m of translation, +-pi/2 of rotation.
ARM = arm_space(translation=1.0, rotation=math.pi / 2)
