"""What lies on the table: plain data, shared by physics, rendering, language and evaluation.

World frame: the table top is z = 0; x points to the right of the image, y away from the camera, z up; metres, radians.
"""

import dataclasses

from rt2_jax.sim.world import catalog


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """A movable object: a colour, a shape and a size at a place on the table."""

    color: str
    shape: str
    size: str
    x: float
    y: float
    yaw: float = 0.0

    @property
    def name(self) -> str:
        """The words an instruction uses, e.g. ``"red cube"``; unique within a scene."""
        return f"{self.color} {self.shape}"

    @property
    def radius(self) -> float:
        """Half-extent in metres."""
        return catalog.SIZES[self.size]


@dataclasses.dataclass(frozen=True)
class Decal:
    """A flat picture on the table: a zone, digit, letter, icon or portrait. `size` is its side in metres."""

    kind: str  # "zone" | "digit" | "letter" | "icon" | "portrait"
    value: str
    x: float
    y: float
    size: float = 0.07

    @property
    def name(self) -> str:
        """The words an instruction uses, e.g. ``"number 3"``, ``"blue zone"``, ``"Ada"``."""
        match self.kind:
            case "zone":
                return f"{self.value} zone"
            case "digit":
                return f"number {self.value}"
            case "letter":
                return f"letter {self.value}"
            case "icon":
                return f"{self.value} sign"
            case "portrait":
                return self.value
        raise ValueError(f"unknown decal kind {self.kind!r}")


@dataclasses.dataclass(frozen=True)
class Environment:
    """What surrounds the table: table top, light and a small camera offset.

    `light` scales the lamp (1 = the robot data's), `light_azimuth` turns it (radians); `camera_shift` moves the camera
    (metres) and `surround` names the colour around the table. `clutter` props stand outside the workspace.
    """

    background: str = "grey"
    light: float = 1.0
    light_azimuth: float = 0.0
    camera_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    surround: str = "white"
    clutter: int = 0


@dataclasses.dataclass(frozen=True)
class GripperPose:
    """Where the gripper's grasp point starts: position in metres, yaw in radians, opening -1 (open) .. 1 (closed)."""

    x: float
    y: float
    z: float
    yaw: float = 0.0
    closed: float = -1.0


@dataclasses.dataclass(frozen=True)
class Scene:
    """A table with objects and decals, and a gripper above it (None in web images without a robot)."""

    objects: tuple[SceneObject, ...]
    decals: tuple[Decal, ...] = ()
    environment: Environment = Environment()
    gripper: GripperPose | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """One thing to do in a scene.

    `target` is the index of the object to handle. `reference` is where it goes, by skill: None (reach, pick), an
    object index (move_near), a direction's name (push), or a decal index (place; also symbols and persons).
    `plan` is the short plan that a chain-of-thought target states, e.g. ``"pick red cube"``.
    """

    skill: str
    target: int
    reference: int | str | None
    instruction: str
    plan: str


def index_of(reference: int | str | None) -> int:
    """The object or decal that a task's `reference` is; TypeError for a skill that has no such reference."""
    if reference is None or isinstance(reference, str):
        raise TypeError(f"the reference is {reference!r}, no object and no decal")
    return reference


def direction_of(reference: int | str | None) -> str:
    """The direction that a push's `reference` is; TypeError for another skill's."""
    if not isinstance(reference, str):
        raise TypeError(f"the reference is {reference!r}, no direction")
    return reference
