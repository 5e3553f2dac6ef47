"""The five skills: when they have succeeded, and in which scenes they can be asked for.

Success is judged on the state at the end of an episode against the state at its start, never on the way.
"""

import dataclasses

import numpy as np

from rt2_jax.sim.world.catalog import DIRECTIONS, SUCCESS_RADIUS
from rt2_jax.sim.world.mjcf import FINGER_TRAVEL, TIP_BELOW, object_half_height
from rt2_jax.sim.world.scene import GripperPose, Scene, Task, direction_of, index_of
from rt2_jax.sim.world.world import World

LIFT_HEIGHT = 0.04  # metres an object must have risen to be picked
PUSH_DISTANCE = 0.04  # metres an object must have moved to be pushed
# A push ends where the object's centre crosses this line (metres from the table's middle, along the direction): an
# end that can be seen in one frame. Its start must lie in PUSH_START, which leaves at least 5 cm to go.
PUSH_LINE = 0.10
PUSH_START = (-0.11, 0.05)
_LOW = 0.012  # an object this close to its rest height (metres) lies on the table
_OPEN = -0.5  # closedness below which the fingers touch nothing
NEAR_GAP = 0.013  # metres between two objects that the expert leaves when it puts one near the other
_CLEAR_START = 0.068  # a gripper that starts this high (metres) touches no object
# Half-extents (metres) of the table area that the open fingers sweep around the grasp point.
_FOOTPRINT = (0.052, 0.013)


@dataclasses.dataclass(frozen=True)
class State:
    """What success and the expert look at: objects float64[N, 3] (centres, metres), gripper pose and closedness."""

    objects: np.ndarray
    xyz: np.ndarray
    rpy: np.ndarray
    closed: float


def read_state(world: World) -> State:
    """The world's present state; the scene needs a gripper."""
    xyz, rpy, closed = world.gripper_pose()
    return State(world.object_positions(), xyz, rpy, closed)


def rest_height(scene: Scene, index: int) -> float:
    """Height of an object's centre when it stands on the table, metres."""
    return object_half_height(scene.objects[index].shape, scene.objects[index].radius)


def near_distance(scene: Scene, target: int, reference: int) -> float:
    """Largest horizontal distance of two centres that counts as near, metres."""
    return SUCCESS_RADIUS + scene.objects[target].radius + scene.objects[reference].radius


def is_low(scene: Scene, index: int, state: State) -> bool:
    """Whether an object lies on the table."""
    return bool(state.objects[index, 2] < rest_height(scene, index) + _LOW)


def _released(index: int, state: State) -> bool:
    return state.closed < _OPEN or bool(np.linalg.norm(state.objects[index] - state.xyz) > 0.05)


def success(scene: Scene, task: Task, start: State, state: State) -> bool:
    """Whether the task is done in `state`, which an episode that began in `start` ended with."""
    item, t = state.objects[task.target], task.target
    match task.skill:
        case "reach":
            beside = np.linalg.norm(state.xyz[:2] - item[:2])
            above = state.xyz[2] - TIP_BELOW - (item[2] + rest_height(scene, t))
            return bool(beside <= SUCCESS_RADIUS and above <= SUCCESS_RADIUS)
        case "pick":
            held = np.linalg.norm(item - state.xyz) < SUCCESS_RADIUS
            return bool(held and item[2] - start.objects[t, 2] >= LIFT_HEIGHT)
        case "move_near":
            reference = index_of(task.reference)
            gap = np.linalg.norm(item[:2] - state.objects[reference, :2])
            near = gap <= near_distance(scene, t, reference)
            return bool(near) and is_low(scene, t, state) and _released(t, state)
        case "push":
            moved = item[:2] - start.objects[t, :2]
            direction = np.array(DIRECTIONS[direction_of(task.reference)])
            forward, lateral = moved @ direction, abs(moved @ direction[::-1])
            return bool(forward >= PUSH_DISTANCE and lateral < forward) and is_low(scene, t, state)
        case "place":
            decal = scene.decals[index_of(task.reference)]
            gap = np.linalg.norm(item[:2] - (decal.x, decal.y))
            return bool(gap <= SUCCESS_RADIUS) and is_low(scene, t, state) and _released(t, state)
    raise ValueError(f"unknown skill {task.skill!r}")


def near_spot(scene: Scene, objects: np.ndarray, target: int, reference: int) -> np.ndarray | None:
    """Where to put the target near the reference, float64[2]: in front of it if that is free, else behind; or None.

    Front and behind leave room for the fingers, which open along x. objects: float[N, 3].
    """
    middle = objects[reference, :2]
    distance = scene.objects[target].radius + scene.objects[reference].radius + NEAR_GAP
    in_front_fits = middle[1] > -0.085
    for side in (-1.0, 1.0) if in_front_fits else (1.0, -1.0):
        spot = middle + np.array((0.0, side * distance))
        inside = np.abs(spot).max() <= 0.165
        if inside and _spot_is_free(scene, objects, spot, scene.objects[target].radius, (target, reference)):
            return spot
    return None


def _spot_is_free(scene: Scene, objects: np.ndarray, spot: np.ndarray, radius: float, but: tuple[int, ...]) -> bool:
    """Whether the open gripper, around something of `radius`, fits at `spot` beside all objects except `but`."""
    for index, item in enumerate(scene.objects):
        if index in but:
            continue
        dx, dy = np.abs(objects[index, :2] - spot)
        if dx < _FOOTPRINT[0] + item.radius and dy < _FOOTPRINT[1] + item.radius:
            return False
        if np.hypot(dx, dy) < radius + item.radius + 0.006:
            return False
    return True


def feasible(scene: Scene, task: Task) -> bool:
    """Whether the scripted expert can do the task here: room for the fingers, something left to do, a free way."""
    objects = np.array([(item.x, item.y, rest_height(scene, i)) for i, item in enumerate(scene.objects)])
    target, t = scene.objects[task.target], task.target
    here = objects[t, :2]
    if scene.gripper is None or not _start_is_free(scene.gripper, objects):
        return False
    if task.skill == "push":
        return _push_is_free(scene, objects, task)
    if not _spot_is_free(scene, objects, here, target.radius, (t,)):
        return False
    match task.skill:
        case "move_near":
            reference = index_of(task.reference)
            apart = np.linalg.norm(here - objects[reference, :2])
            far = apart > near_distance(scene, t, reference) + 0.04
            return bool(far) and near_spot(scene, objects, t, reference) is not None
        case "place":
            decal = scene.decals[index_of(task.reference)]
            spot = np.array((decal.x, decal.y))
            far = np.linalg.norm(here - spot) > 2.5 * SUCCESS_RADIUS
            return bool(far) and _spot_is_free(scene, objects, spot, target.radius, (t,))
    return True


def _start_is_free(pose: GripperPose, objects: np.ndarray) -> bool:
    """Whether the gripper starts above everything, or in a gap."""
    away = np.linalg.norm(objects[:, :2] - (pose.x, pose.y), axis=-1)
    return pose.z >= _CLEAR_START or bool((away > FINGER_TRAVEL + 0.04).all())


def _push_is_free(scene: Scene, objects: np.ndarray, task: Task) -> bool:
    """Whether a push has the right start, room behind the target for the closed fingers, and a free way to its end."""
    forward = np.array(DIRECTIONS[direction_of(task.reference)])
    along = objects[:, :2] @ forward
    across = objects[:, :2] @ np.abs(forward[::-1])
    t, radius = task.target, scene.objects[task.target].radius
    if not PUSH_START[0] <= along[t] <= PUSH_START[1]:
        return False
    for index, item in enumerate(scene.objects):
        if index == t:
            continue
        beside = abs(across[index] - across[t]) > radius + item.radius + 0.012
        behind = along[index] + item.radius < along[t] - radius - 0.045
        beyond = along[index] - item.radius > PUSH_LINE + 0.04 + radius
        if not (beside or behind or beyond):
            return False
    return True
