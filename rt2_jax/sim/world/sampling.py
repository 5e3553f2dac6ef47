"""Random scenes: which things lie on the table and where.

Every function takes a `numpy.random.Generator` and is deterministic given its state. `wide_scene` draws from the whole
catalogue (the web's images); `robot_scene` from the subset that demonstrations may show (RT-2, section 4.1, "seen").
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from rt2_jax.sim.world import catalog
from rt2_jax.sim.world.scene import Decal, Environment, GripperPose, Scene, SceneObject

# Free table between the edges of two objects, metres: a finger of the gripper fits in between.
OBJECT_GAP = 0.022
# Free table between a decal's edge and anything that is not meant to lie on it, metres.
DECAL_GAP = 0.006
# Robot scenes keep this far between centres, metres, so that the gripper can come down around most objects and decals
# (`skills.feasible` has the last word).
ROBOT_OBJECT_DISTANCE = 0.072
ROBOT_DECAL_DISTANCE = 0.077

ALL_PAIRS: tuple[tuple[str, str], ...] = tuple(itertools.product(catalog.COLORS, catalog.SHAPES))
ROBOT_PAIRS: tuple[tuple[str, str], ...] = tuple(
    pair for pair in itertools.product(catalog.ROBOT_COLORS, catalog.ROBOT_SHAPES) if pair not in catalog.HELD_OUT_PAIRS
)
ALL_DECALS: tuple[tuple[str, str], ...] = (
    *(("zone", color) for color in catalog.ZONE_COLORS),
    *(("digit", digit) for digit in catalog.DIGITS),
    *(("letter", letter) for letter in catalog.LETTERS),
    *(("icon", icon) for icon in catalog.ICONS),
    *(("portrait", person) for person in catalog.PERSONS),
)
ROBOT_DECALS: tuple[tuple[str, str], ...] = (
    *(("zone", color) for color in catalog.ROBOT_ZONE_COLORS),
    *(("icon", icon) for icon in catalog.ROBOT_ICONS),
)

_TRIES_PER_LAYOUT = 200
_POINTS_PER_TRY = 48


@dataclasses.dataclass(frozen=True)
class ObjectKind:
    """An object before it has a place."""

    color: str
    shape: str
    size: str


@dataclasses.dataclass(frozen=True)
class DecalKind:
    """A decal before it has a place; `size` is its side in metres."""

    kind: str
    value: str
    size: float = 0.07


def draw_sizes(rng: np.random.Generator, count: int) -> list[str]:
    """`count` object sizes: mixed, or (20% each) exactly one small or exactly one large, so that superlatives hold."""
    pattern = rng.choice(["mixed", "one small", "one large"], p=[0.6, 0.2, 0.2])
    if pattern == "mixed":
        return [str(size) for size in rng.choice(list(catalog.SIZES), size=count)]
    odd, rest = ("small", "large") if pattern == "one small" else ("large", "small")
    sizes = [rest] * count
    sizes[int(rng.integers(count))] = odd
    return sizes


def draw_objects(
    rng: np.random.Generator, count: int, pairs: Sequence[tuple[str, str]], first: Sequence[tuple[str, str]] = ()
) -> list[ObjectKind]:
    """`count` objects with different names: those of `first`, then others from `pairs` (colour, shape)."""
    others = [pair for pair in pairs if pair not in first]
    chosen = [others[int(i)] for i in rng.permutation(len(others))[: count - len(first)]]
    names = [*first, *chosen]
    sizes = draw_sizes(rng, len(names))
    return [ObjectKind(color, shape, size) for (color, shape), size in zip(names, sizes, strict=True)]


def draw_decals(
    rng: np.random.Generator, count: int, kinds: Sequence[tuple[str, str]], size: float = 0.07
) -> list[DecalKind]:
    """`count` different decals from `kinds` (kind, value)."""
    return [DecalKind(*kinds[int(i)], size) for i in rng.permutation(len(kinds))[:count]]


def layout(
    rng: np.random.Generator,
    objects: Sequence[ObjectKind],
    decals: Sequence[DecalKind],
    *,
    half_width: float = catalog.WORKSPACE,
    object_distance: float = ROBOT_OBJECT_DISTANCE,
    decal_distance: float = ROBOT_DECAL_DISTANCE,
) -> tuple[tuple[SceneObject, ...], tuple[Decal, ...]]:
    """Places decals, then objects, uniformly in the square `|x|, |y| <= half_width` without overlaps.

    Objects' centres are at least `object_distance` from each other and `decal_distance` from decals' centres (metres).
    Raises RuntimeError when the square is too small for them.
    """
    for _ in range(_TRIES_PER_LAYOUT):
        placed_decals = _place_decals(rng, decals, half_width)
        if placed_decals is None:
            continue
        placed = _place_objects(rng, objects, placed_decals, half_width, object_distance, decal_distance)
        if placed is not None:
            return placed, placed_decals
    raise RuntimeError(f"{len(objects)} objects and {len(decals)} decals do not fit a square of {2 * half_width:.2f} m")


def start_pose(rng: np.random.Generator) -> GripperPose:
    """An open gripper above the table, as every episode starts: z 0.08..0.14 m, yaw within 0.5 rad."""
    x, y = rng.uniform(-0.11, 0.11, size=2)
    return GripperPose(float(x), float(y), float(rng.uniform(0.08, 0.14)), float(rng.uniform(-0.5, 0.5)))


def robot_scene(
    rng: np.random.Generator,
    *,
    pairs: Sequence[tuple[str, str]] = ROBOT_PAIRS,
    first: Sequence[tuple[str, str]] = (),
    decals: Sequence[DecalKind] | None = None,
    environment: Environment | None = None,
) -> Scene:
    """Four to six objects and up to three decals as the robot sees them, in the robot's own environment.

    Args:
      pairs: (colour, shape) pairs to draw from; `first` are pairs that must be there, as the first objects.
      decals: the decals to lay out; None draws zero to three that the robot knows.
      environment: None draws a table top that the robot knows, at the robot's light and camera.
    """
    objects = draw_objects(rng, int(rng.integers(4, 7)), pairs, first)
    if decals is None:
        decals = draw_decals(rng, int(rng.integers(0, 4)), ROBOT_DECALS)
    if environment is None:
        environment = Environment(background=str(rng.choice(catalog.ROBOT_BACKGROUNDS)))
    placed, placed_decals = layout(rng, objects, decals)
    return Scene(placed, placed_decals, environment, start_pose(rng))


def wide_scene(rng: np.random.Generator) -> Scene:
    """Anything the catalogue has: up to six objects, up to three decals, any surroundings; a gripper in about half.

    A third are plain pictures of one or two objects: what a name means and where it points is learnt from these first,
    as from a web full of pictures of single things. Of the rest, most spread over the whole workspace, as robot scenes
    do; one in six huddles in its middle. Now and then an object lies on a zone.
    """
    half_width = 0.12 if rng.random() < 1 / 6 else catalog.WORKSPACE
    most = 4 if half_width < catalog.WORKSPACE else 6
    plain = rng.random() < 1 / 3
    count = int(rng.integers(1, 3)) if plain else min(most, int(rng.choice([3, 4, 5, 6], p=[0.18, 0.26, 0.28, 0.28])))
    objects = draw_objects(rng, count, ALL_PAIRS)
    kinds = [] if plain else _wide_decals(rng, objects, most // 2)
    placed, decals = layout(rng, objects, kinds, half_width=half_width, object_distance=0.0, decal_distance=0.0)
    placed = _put_on_zone(rng, placed, decals) if rng.random() < 0.5 else placed
    gripper = _wide_gripper(rng, placed) if rng.random() < 0.55 else None
    return Scene(placed, decals, _wide_environment(rng), gripper)


def _place_decals(rng: np.random.Generator, decals: Sequence[DecalKind], half_width: float) -> tuple[Decal, ...] | None:
    placed: list[Decal] = []
    for decal in decals:
        limit = half_width - decal.size / 2
        points = rng.uniform(-limit, limit, size=(_POINTS_PER_TRY, 2))
        free = np.ones(_POINTS_PER_TRY, bool)
        for other in placed:
            side = (decal.size + other.size) / 2 + DECAL_GAP
            free &= np.abs(points - [other.x, other.y]).max(axis=1) >= side
        if not free.any():
            return None
        x, y = points[free.argmax()]
        placed.append(Decal(decal.kind, decal.value, float(x), float(y), decal.size))
    return tuple(placed)


def _place_objects(
    rng: np.random.Generator,
    objects: Sequence[ObjectKind],
    decals: Sequence[Decal],
    half_width: float,
    object_distance: float,
    decal_distance: float,
) -> tuple[SceneObject, ...] | None:
    placed: list[SceneObject] = []
    for kind in objects:
        radius = catalog.SIZES[kind.size]
        points = rng.uniform(-(half_width - radius), half_width - radius, size=(_POINTS_PER_TRY, 2))
        free = np.ones(_POINTS_PER_TRY, bool)
        for other in placed:
            distance = np.hypot(points[:, 0] - other.x, points[:, 1] - other.y)
            free &= distance >= max(object_distance, radius + other.radius + OBJECT_GAP)
        for decal in decals:
            offset = points - [decal.x, decal.y]
            outside = np.maximum(np.abs(offset) - decal.size / 2, 0.0)
            free &= np.hypot(outside[:, 0], outside[:, 1]) >= radius + DECAL_GAP
            free &= np.hypot(offset[:, 0], offset[:, 1]) >= decal_distance
        if not free.any():
            return None
        x, y = points[free.argmax()]
        yaw = float(rng.uniform(-math.pi, math.pi))
        placed.append(SceneObject(kind.color, kind.shape, kind.size, float(x), float(y), yaw))
    return tuple(placed)


def _wide_decals(rng: np.random.Generator, objects: Sequence[ObjectKind], most: int) -> list[DecalKind]:
    """Up to `most` decals, often several of one kind so that telling them apart is worth learning."""
    count = int(rng.integers(0, most + 1))
    size = float(rng.uniform(0.06, 0.075))
    kind = str(rng.choice(["any", "any", "zone", "digit", "digit", "letter", "icon", "portrait"]))
    pool = ALL_DECALS if kind == "any" else [decal for decal in ALL_DECALS if decal[0] == kind]
    if kind == "zone":  # at least as often as not, a zone that shares its colour with an object
        shared = [("zone", thing.color) for thing in objects if thing.color in catalog.ZONE_COLORS]
        pool = shared if len(set(shared)) == len(shared) >= count else pool
    return draw_decals(rng, count, pool, size)


def _put_on_zone(
    rng: np.random.Generator, objects: tuple[SceneObject, ...], decals: Sequence[Decal]
) -> tuple[SceneObject, ...]:
    zones = [decal for decal in decals if decal.kind == "zone"]
    if not zones:
        return objects
    zone = zones[int(rng.integers(len(zones)))]
    index = int(rng.integers(len(objects)))
    x, y = zone.x + rng.uniform(-0.01, 0.01), zone.y + rng.uniform(-0.01, 0.01)
    return (*objects[:index], dataclasses.replace(objects[index], x=float(x), y=float(y)), *objects[index + 1 :])


def _wide_gripper(rng: np.random.Generator, objects: Sequence[SceneObject]) -> GripperPose:
    """High above the table, low over it, or coming down beside or over an object: what episodes look like midway."""
    closed = float(rng.choice([-1.0, -1.0, 1.0, rng.uniform(-1.0, 1.0)]))
    yaw = float(rng.uniform(-0.8, 0.8))
    where = rng.choice(["high", "low", "beside", "over"], p=[0.5, 0.15, 0.2, 0.15])
    if where in ("high", "low"):
        x, y = rng.uniform(-catalog.WORKSPACE, catalog.WORKSPACE, size=2)
        z = rng.uniform(0.07, 0.14) if where == "high" else rng.uniform(0.03, 0.08)
        return GripperPose(float(x), float(y), float(z), yaw, closed)
    thing = objects[int(rng.integers(len(objects)))]
    if where == "over":
        return GripperPose(thing.x, thing.y, float(rng.uniform(0.03, 0.09)), yaw, -1.0)
    angle, distance = rng.uniform(-math.pi, math.pi), thing.radius + rng.uniform(0.02, 0.04)
    x, y = thing.x + distance * math.cos(angle), thing.y + distance * math.sin(angle)
    return GripperPose(float(x), float(y), float(rng.uniform(0.03, 0.1)), yaw, closed)


def _wide_environment(rng: np.random.Generator) -> Environment:
    background = str(rng.choice([*catalog.BACKGROUNDS_PLAIN, *catalog.BACKGROUNDS_PATTERN]))
    if rng.random() < 0.35:  # the robot's own light and camera, so that these are not foreign to web data
        return Environment(background=background)
    shift = rng.uniform(-0.015, 0.015, size=3) if rng.random() < 0.6 else np.zeros(3)
    return Environment(
        background=background,
        light=float(rng.uniform(0.5, 1.5)),
        light_azimuth=float(rng.uniform(-math.pi, math.pi)),
        camera_shift=(float(shift[0]), float(shift[1]), float(shift[2])),
        surround=str(rng.choice(list(catalog.SURROUNDS))),
        clutter=int(rng.integers(0, 7)),
    )
