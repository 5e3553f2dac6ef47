"""What the numbers of an action mean: names, units and bounds of each dimension."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from rt2_jax.errors import UserError
from rt2_jax.typed import build, check_fields, shown

ARM_NAMES = ("terminate", "dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
ARM_UNITS = ("flag", "m", "m", "m", "rad", "rad", "rad", "opening")

# Far beyond any robot's metres and radians, and within what float32 still computes a range of.
Bound = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


@dataclasses.dataclass(frozen=True)
class ActionSpace:
    """The dimensions of a physical action vector, in order, with inclusive bounds.

    Dimension 0 is always ``terminate``: 1.0 = stop, 0.0 = continue.

    Raises:
        UserError: the fields differ in length, a bound is not finite, or ``low >= high``.
    """

    names: tuple[str, ...]
    low: tuple[Bound, ...]
    high: tuple[Bound, ...]
    units: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self, "action space")
        lengths = {len(self.names), len(self.low), len(self.high), len(self.units)}
        if len(lengths) != 1:
            raise UserError(
                f"action space: {len(self.names)} names, {len(self.low)} low, {len(self.high)} high and "
                f"{len(self.units)} units; give one of each for every dimension"
            )
        if not self.names or self.names[0] != "terminate":
            raise UserError(
                f"action space: the first dimension must be 'terminate', not {shown(self.names[:1])}; reorder it"
            )
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if not low < high:
                raise UserError(f"action space: bounds of {shown(name)} are [{low}, {high}]; give low < high")

    @property
    def width(self) -> int:
        """Number of dimensions, ``terminate`` included."""
        return len(self.names)

    def to_json(self) -> dict[str, Any]:
        """Plain lists for a JSON file; ``from_json`` reads them back."""
        return {"names": list(self.names), "low": list(self.low), "high": list(self.high), "units": list(self.units)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], where: str = "action space", path: str = "") -> "ActionSpace":
        """The space that ``to_json`` wrote; `where` and `path` say in messages what holds it.

        Raises:
            UserError: a field is missing, unknown or of a wrong type, or a value is refused by the constructor.
        """
        return build(cls, fields, where, path)


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
