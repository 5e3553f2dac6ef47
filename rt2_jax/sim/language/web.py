"""Web-like image and text pairs: a rendered wide scene with what a page would say about it.

They stand in for WebLI, captioning and VQA data (RT-2, section 3.2): colours, shapes, numbers, faces, languages and
reasoning come from here, motions from the robot data.
"""

import dataclasses
import math

import numpy as np

from rt2_jax.sim.language.describe import DEFAULT_COUNTS, Annotation, Counts, annotate
from rt2_jax.sim.language.lexicon import GRIPPER, UNDER_GRIPPER
from rt2_jax.sim.world.mjcf import FINGER_TRAVEL
from rt2_jax.sim.world.sampling import wide_scene
from rt2_jax.sim.world.scene import Scene
from rt2_jax.sim.world.world import World

# Keeps web scenes apart from every split's (splits.py counts from 1).
WEB_STREAM = 100
# An object or decal counts as hidden when the gripper covers more of its middle than this: then less than half of its
# pixels are left.
MOST_COVERED = 0.8
# The gripper's parts as boxes in its own frame: centre above the grasp point, half-extents (metres).
_PALM = ((0.0, 0.0, 0.058), (0.046, 0.007, 0.007))
_WRIST = ((0.0, 0.0, 0.086), (0.009, 0.009, 0.020))
_FINGER_HALF = (0.004, 0.008, 0.028)
_FINGER_HEIGHT = 0.020


@dataclasses.dataclass(frozen=True)
class WebExample:
    """A picture and what is said about it. `image` is uint8[H, W, 3]."""

    image: np.ndarray
    annotations: tuple[Annotation, ...]
    scene: Scene


class WebRenderer:
    """Renders web examples with one GL context, made with the first example and freed by `close`."""

    def __init__(self, image_size: int):
        self._image_size = image_size
        self._world: World | None = None

    def example(self, seed: int, counts: Counts = DEFAULT_COUNTS) -> WebExample:
        """The web example of `seed`: the same for every process, order and machine with the same GL library."""
        rng = np.random.default_rng(np.random.SeedSequence([WEB_STREAM, seed]))
        scene = wide_scene(rng)
        if self._world is None:
            self._world = World(scene, self._image_size)
        else:
            self._world.reset(scene)
        annotations = annotate(scene, visible_positions(self._world), rng, counts)
        return WebExample(self._world.render(), tuple(annotations), scene)

    def close(self) -> None:
        """Frees the GL context, if there is one."""
        if self._world is not None:
            self._world.close()
            self._world = None


def web_example(seed: int, image_size: int) -> WebExample:
    """One web example; for many, keep a `WebRenderer`."""
    renderer = WebRenderer(image_size)
    try:
        return renderer.example(seed)
    finally:
        renderer.close()


def visible_positions(world: World) -> dict[str, tuple[float, float]]:
    """Where the visible things of the world's scene are: name -> (x, y) percent of the frame from its left and top.

    Objects are where their centres are, the gripper where its grasp point is; `UNDER_GRIPPER` is the spot on the table
    below it. Things out of the frame, and things that the gripper covers by more than `MOST_COVERED`, are left out.
    """
    scene = world.scene
    centres = world.object_positions()
    positions: dict[str, tuple[float, float]] = {}
    for thing, centre in zip(scene.objects, centres, strict=True):
        _see(world, positions, thing.name, centre, disc(centre, 0.8 * thing.radius))
    for decal in scene.decals:
        centre = np.array([decal.x, decal.y, 0.0])
        _see(world, positions, decal.name, centre, square(centre, 0.4 * decal.size))
    if scene.gripper is not None:
        _see(world, positions, GRIPPER, world.gripper_pose()[0], None)
        _see(world, positions, UNDER_GRIPPER, world.under_gripper(), None)
    return positions


def covered_by_gripper(world: World, points: np.ndarray) -> float:
    """The share of `points` float[N, 3] (metres) that the gripper hides from the camera."""
    if world.scene.gripper is None:
        return 0.0
    grasp_point, rpy, closed = world.gripper_pose()
    yaw = rpy[2]
    rotation = np.array([[math.cos(yaw), math.sin(yaw), 0.0], [-math.sin(yaw), math.cos(yaw), 0.0], [0.0, 0.0, 1.0]])
    eye = rotation @ (world.camera.position - grasp_point)
    targets = (points - grasp_point) @ rotation.T
    opening = FINGER_TRAVEL * (1.0 - closed) / 2 + _FINGER_HALF[0]
    boxes = [_PALM, _WRIST, *(((side * opening, 0.0, _FINGER_HEIGHT), _FINGER_HALF) for side in (-1.0, 1.0))]
    hidden = np.zeros(len(points), bool)
    for centre, half in boxes:
        hidden |= _segment_hits_box(eye, targets, np.array(centre), np.array(half))
    return float(hidden.mean())


def _see(
    world: World,
    positions: dict[str, tuple[float, float]],
    name: str,
    centre: np.ndarray,
    surface: np.ndarray | None,
) -> None:
    x, y = world.camera.project(centre)
    if not (0.0 <= x < 1.0 and 0.0 <= y < 1.0):
        return
    if surface is None or covered_by_gripper(world, surface) <= MOST_COVERED:
        positions[name] = (100.0 * float(x), 100.0 * float(y))


def disc(centre: np.ndarray, radius: float) -> np.ndarray:
    """Points of a horizontal disc, its middle included: float[17, 3]."""
    angles = np.arange(8) * math.pi / 4
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(8)], axis=1)
    return centre + radius * np.concatenate([np.zeros((1, 3)), 0.5 * ring, ring])


def square(centre: np.ndarray, half: float) -> np.ndarray:
    """Points of a horizontal square: float[25, 3]."""
    steps = np.linspace(-half, half, 5)
    return centre + np.array([(x, y, 0.0) for x in steps for y in steps])


def _segment_hits_box(start: np.ndarray, ends: np.ndarray, centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    """bool[N]: whether the segments from `start` to `ends` [N, 3] meet an axis-aligned box (slab test)."""
    ray = ends - start
    ray = np.where(np.abs(ray) < 1e-12, 1e-12, ray)
    first, second = (centre - half - start) / ray, (centre + half - start) / ray
    enters = np.minimum(first, second).max(axis=1)
    leaves = np.maximum(first, second).min(axis=1)
    return (enters <= leaves) & (leaves > 0.0) & (enters < 1.0)
