"""Things named by what they are like, not by their name: "smallest object", "number that is 1 plus 2".

RT-2's reasoning evaluation (section 4.2) asks for such things in instructions; the web data teaches them by pointing
and questions only, in the same words.
"""

import dataclasses
import math
from collections.abc import Iterator

from rt2_jax.sim.language.lexicon import GRIPPER
from rt2_jax.sim.world.scene import Scene, SceneObject

# By how much a superlative must hold, metres.
MARGIN = 0.025
# The categories that RT-2's reasoning evaluation uses; the others are for web data alone.
REASONING_CATEGORIES: tuple[str, ...] = ("size", "colour", "arithmetic")


@dataclasses.dataclass(frozen=True)
class Reference:
    """An expression (without its article) that fits exactly one thing of a scene.

    `index` counts in `scene.decals` if `is_decal`, else in `scene.objects`. `anchor` is the name of the other thing
    that the expression mentions, if any.
    """

    category: str
    text: str
    name: str
    index: int
    is_decal: bool = False
    anchor: str | None = None


def references(scene: Scene) -> list[Reference]:
    """Every such expression that holds in `scene`, in a fixed order."""
    return [*_by_size(scene), *_by_colour(scene), *_by_arithmetic(scene), *_by_place(scene)]


def sums(result: int) -> list[str]:
    """Every ``"a plus b"`` and ``"a minus b"`` of digits 1 to 9 that gives `result`."""
    plus = [f"{a} plus {result - a}" for a in range(1, result)]
    return plus + [f"{a} minus {a - result}" for a in range(result + 1, 10)]


def odd_size(objects: tuple[SceneObject, ...], size: str) -> int | None:
    """The index of the only object of `size`, or None."""
    indices = [index for index, thing in enumerate(objects) if thing.size == size]
    return indices[0] if len(indices) == 1 and len(objects) > 1 else None


def objects_of_colour(scene: Scene, color: str) -> list[int]:
    """Indices of the objects of that colour."""
    return [index for index, thing in enumerate(scene.objects) if thing.color == color]


def nearest_object(scene: Scene, x: float, y: float, skip: int | None = None) -> int | None:
    """The object nearest to a point of the table, if it is nearest by `MARGIN`."""
    ranked = sorted(
        (math.hypot(thing.x - x, thing.y - y), index) for index, thing in enumerate(scene.objects) if index != skip
    )
    if len(ranked) < 2 or ranked[1][0] - ranked[0][0] < MARGIN:
        return None
    return ranked[0][1]


def object_on(scene: Scene, decal_index: int) -> int | None:
    """The object whose centre lies on the decal, or None."""
    decal = scene.decals[decal_index]
    for index, thing in enumerate(scene.objects):
        if max(abs(thing.x - decal.x), abs(thing.y - decal.y)) < decal.size / 2:
            return index
    return None


def _object(scene: Scene, category: str, text: str, index: int, anchor: str | None = None) -> Reference:
    return Reference(category, text, scene.objects[index].name, index, anchor=anchor)


def _by_size(scene: Scene) -> Iterator[Reference]:
    for size, word in (("small", "smallest"), ("large", "largest")):
        index = odd_size(scene.objects, size)
        if index is not None:
            yield _object(scene, "size", f"{word} object", index)


def _by_colour(scene: Scene) -> Iterator[Reference]:
    for decal_index, decal in enumerate(scene.decals):
        if decal.kind != "zone":
            continue
        same = objects_of_colour(scene, decal.value)
        if len(same) == 1:
            yield _object(scene, "colour", f"object with the same colour as the {decal.name}", same[0], decal.name)
        for index in same:
            name = scene.objects[index].name
            text = f"zone with the same colour as the {name}"
            yield Reference("colour", text, decal.name, decal_index, True, name)
    for color in sorted({thing.color for thing in scene.objects}):
        same = objects_of_colour(scene, color)
        if len(same) == 2:
            for index, other in (same, same[::-1]):
                name = scene.objects[other].name
                yield _object(scene, "colour", f"object with the same colour as the {name}", index, name)


def _by_arithmetic(scene: Scene) -> Iterator[Reference]:
    for decal_index, decal in enumerate(scene.decals):
        if decal.kind == "digit":
            for text in sums(int(decal.value)):
                yield Reference("arithmetic", f"number that is {text}", decal.name, decal_index, True)


def _by_place(scene: Scene) -> Iterator[Reference]:
    if len(scene.objects) > 1:
        by_x = sorted(range(len(scene.objects)), key=lambda index: scene.objects[index].x)
        for word, first, second in (("leftmost", 0, 1), ("rightmost", -1, -2)):
            if abs(scene.objects[by_x[first]].x - scene.objects[by_x[second]].x) >= MARGIN:
                yield _object(scene, "place", f"{word} object", by_x[first])
    for decal_index, decal in enumerate(scene.decals):
        on = object_on(scene, decal_index)
        name = f"portrait of {decal.name}" if decal.kind == "portrait" else decal.name
        if on is not None:
            yield _object(scene, "place", f"object on the {name}", on, decal.name)
        nearest = nearest_object(scene, decal.x, decal.y)
        if nearest is not None:
            yield _object(scene, "place", f"object nearest to the {name}", nearest, decal.name)
    for index, thing in enumerate(scene.objects):
        nearest = nearest_object(scene, thing.x, thing.y, skip=index)
        if nearest is not None:
            yield _object(scene, "place", f"object nearest to the {thing.name}", nearest, thing.name)
    if scene.gripper is not None:
        nearest = nearest_object(scene, scene.gripper.x, scene.gripper.y)
        if nearest is not None and scene.gripper.z < 0.1:
            yield _object(scene, "place", f"object nearest to the {GRIPPER}", nearest, GRIPPER)
