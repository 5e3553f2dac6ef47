"""The scripted expert: a Markov controller, so that a policy that sees one frame can imitate it.

Its action is a function of the present state alone. It has few modes, and each shows in the picture: fingers open or
closed, high or low, around the object or not. Every axis moves proportionally to its error, clipped to the action
space; sideways motion is allowed where the fingertips clear the objects, descent only close to the goal (a funnel).
"""

import numpy as np

from rt2_jax.sim.tasks import skills
from rt2_jax.sim.tasks.skills import State
from rt2_jax.sim.world.catalog import DIRECTIONS
from rt2_jax.sim.world.mjcf import FINGER_TRAVEL
from rt2_jax.sim.world.scene import Scene, Task, direction_of, index_of
from rt2_jax.sim.world.world import World

MAX_MOVE = 0.04  # metres a step, per axis
MAX_TURN = 0.3  # radians a step, per axis
# Errors below these are left alone: no frame shows them, and a demonstration of what cannot be seen teaches noise.
STILL_MOVE = 0.002  # metres
STILL_TURN = 0.05  # radians
OPEN, CLOSE = -1.0, 1.0
GRASP_Z = 0.012  # height of the grasp point when fingers close or push
RELEASE_Z = 0.016
REACH_Z = 0.035
HOVER_Z = 0.068  # fingertips clear every object
CARRY_Z = 0.085  # a carried object clears every other one
LIFT_Z = 0.100
_ALIGNED = 0.012  # metres of horizontal error under which the gripper may go down, and the fingers close
_FUNNEL = 0.020  # under this error a low gripper may still correct sideways
_HALF_FINGERS = 0.008  # half-width of the closed fingers


def expert_action(world: World, task: Task) -> np.ndarray:
    """The action to take now, float32[8] (terminate, metres, radians, gripper); terminate is 1 when it is done."""
    scene, state = world.scene, skills.read_state(world)
    match task.skill:
        case "reach":
            return _reach(scene, task, state)
        case "pick":
            return _pick(scene, task, state)
        case "push":
            return _push(scene, task, state)
        case "move_near" | "place":
            return _deliver(scene, task, state)
    raise ValueError(f"unknown skill {task.skill!r}")


def is_holding(scene: Scene, index: int, state: State) -> bool:
    """Whether the fingers are closed around an object."""
    offset = state.objects[index] - state.xyz
    half_gap = FINGER_TRAVEL * (1 - state.closed) / 2
    around = np.hypot(*offset[:2]) < 0.02 and abs(offset[2]) < 0.025
    return bool(around and half_gap < 1.3 * scene.objects[index].radius + 0.002)


def _action(state: State, xy: np.ndarray, z: float, gripper: float, lateral: float = MAX_MOVE) -> np.ndarray:
    """A move towards a goal, with the hand turning upright; `lateral` caps sideways motion (metres)."""
    move = _unless_still(np.array((*xy, z)) - state.xyz, STILL_MOVE, MAX_MOVE)
    move[:2] = np.clip(move[:2], -lateral, lateral)
    turn = _unless_still(-np.asarray(state.rpy), STILL_TURN, MAX_TURN)
    return np.array((0.0, *move, *turn, gripper), np.float32)


def _unless_still(error: np.ndarray, still: float, most: float) -> np.ndarray:
    """The correction of each axis's error: the error up to `most`, nothing below `still`."""
    return np.where(np.abs(error) < still, 0.0, np.clip(error, -most, most))


def _stop(gripper: float) -> np.ndarray:
    return np.array((1, 0, 0, 0, 0, 0, 0, gripper), np.float32)


def _travel(state: State, xy: np.ndarray, low: float, high: float, gripper: float) -> np.ndarray:
    """Goes over `xy` at height `high`, then down to `low`; rises first where it is low and far."""
    error = float(np.hypot(*(xy - state.xyz[:2])))
    z = low if error < _ALIGNED else high
    if _ALIGNED <= error < _FUNNEL:
        z = min(max(state.xyz[2], low), high)
    clearance = np.clip((state.xyz[2] - (high - 0.020)) / 0.015, 0.0, 1.0)
    lateral = MAX_MOVE if error < _FUNNEL else MAX_MOVE * float(clearance)
    return _action(state, xy, z, gripper, lateral)


def _approach(state: State, xy: np.ndarray, low: float) -> np.ndarray:
    """Goes down around something at `xy` with open fingers; opens them before it goes down."""
    is_open = state.closed < -0.6
    return _travel(state, xy, low if is_open else max(HOVER_Z, state.xyz[2]), HOVER_Z, OPEN)


def _reach(scene: Scene, task: Task, state: State) -> np.ndarray:
    xy = state.objects[task.target, :2]
    error = float(np.hypot(*(xy - state.xyz[:2])))
    if error < 0.018 and state.xyz[2] < REACH_Z + 0.010:
        return _stop(OPEN)
    return _approach(state, xy, REACH_Z)


def _grasp(scene: Scene, target: int, state: State) -> np.ndarray:
    """Goes around the target and closes the fingers on it."""
    xy = state.objects[target, :2]
    aligned = np.hypot(*(xy - state.xyz[:2])) < _ALIGNED and state.xyz[2] < GRASP_Z + 0.008
    if aligned and abs(state.rpy[2]) < 0.25:
        return _action(state, xy, GRASP_Z, CLOSE)
    return _approach(state, xy, GRASP_Z)


def _pick(scene: Scene, task: Task, state: State) -> np.ndarray:
    if not is_holding(scene, task.target, state):
        return _grasp(scene, task.target, state)
    if state.objects[task.target, 2] - skills.rest_height(scene, task.target) > skills.LIFT_HEIGHT + 0.015:
        return _stop(CLOSE)
    return _action(state, state.xyz[:2], LIFT_Z, CLOSE)


def _deliver(scene: Scene, task: Task, state: State) -> np.ndarray:
    """Carries the target to a spot (near the reference, or on the decal), lets go, stops."""
    target = task.target
    spot = _spot(scene, task, state)
    here = state.objects[target, :2]
    holding = is_holding(scene, target, state)
    if not holding:
        if skills.is_low(scene, target, state) and _is_delivered(scene, task, state, spot):
            return _stop(OPEN) if state.closed < -0.6 else _action(state, state.xyz[:2], state.xyz[2], OPEN)
        return _grasp(scene, target, state)
    error = float(np.hypot(*(spot - here)))
    if error < _ALIGNED and state.xyz[2] < RELEASE_Z + 0.008:
        return _action(state, state.xyz[:2], RELEASE_Z, OPEN)
    return _travel(state, state.xyz[:2] + spot - here, RELEASE_Z, CARRY_Z, CLOSE)


def _spot(scene: Scene, task: Task, state: State) -> np.ndarray:
    """Where the target goes, float64[2]."""
    reference = index_of(task.reference)
    if task.skill == "place":
        return np.array((scene.decals[reference].x, scene.decals[reference].y))
    spot = skills.near_spot(scene, state.objects, task.target, reference)
    if spot is None:  # objects were knocked into the way: aim in front all the same
        apart = scene.objects[task.target].radius + scene.objects[reference].radius + skills.NEAR_GAP
        return state.objects[reference, :2] - (0.0, apart)
    return spot


def _is_delivered(scene: Scene, task: Task, state: State, spot: np.ndarray) -> bool:
    """Whether the target lies where success holds, with half a centimetre to spare."""
    here = state.objects[task.target, :2]
    if task.skill == "place":
        return bool(np.hypot(*(spot - here)) < 0.025)
    reference = index_of(task.reference)
    gap = np.hypot(*(state.objects[reference, :2] - here))
    return bool(gap < skills.near_distance(scene, task.target, reference) - 0.005)


def _push(scene: Scene, task: Task, state: State) -> np.ndarray:
    """Gets behind the target with closed fingers and pushes it over the line; a strayed target is approached anew."""
    forward = np.array(DIRECTIONS[direction_of(task.reference)])
    item = state.objects[task.target, :2]
    if item @ forward >= skills.PUSH_LINE:
        return _stop(CLOSE)
    radius = scene.objects[task.target].radius
    relative = state.xyz[:2] - item
    behind = -float(relative @ forward)
    sideways = relative - (relative @ forward) * forward
    contact = radius + _HALF_FINGERS
    in_line = np.hypot(*sideways) < 0.015 and 0.3 * radius < behind < contact + 0.03
    if in_line and state.xyz[2] < GRASP_Z + 0.015 and state.closed > 0.6:
        ahead = skills.PUSH_LINE + 0.008 - contact - float(state.xyz[:2] @ forward)
        return _action(state, state.xyz[:2] - sideways + max(ahead, 0.012) * forward, GRASP_Z, CLOSE)
    return _travel(state, item - (contact + 0.012) * forward, GRASP_Z, HOVER_Z, CLOSE)
