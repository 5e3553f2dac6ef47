"""Controls that show what an evaluation measures: an agent that ignores the instruction, or the image, must fail.

For each split a score is worth its name only if acting on another instruction of the same scene, or on the picture of
another scene, brings it down to chance. `wrong_instruction` and `other_scene` make those two agents of any agent.
"""

import dataclasses
import math

import numpy as np

from rt2_jax.sim.tasks.splits import alternatives, is_feasible
from rt2_jax.sim.world import sampling
from rt2_jax.sim.world.catalog import DIRECTIONS
from rt2_jax.sim.world.sampling import DecalKind, ObjectKind
from rt2_jax.sim.world.scene import Scene, Task, direction_of

# In the other scene, the target is at least this far from where it truly is, metres.
MIN_DISPLACEMENT = 0.08
# Its streams of random numbers (splits.py counts from 1).
_WRONG_INSTRUCTION_STREAM = 200
_OTHER_SCENE_STREAM = 201
_TRIES = 2000


def wrong_instruction(scene: Scene, task: Task, seed: int) -> Task:
    """Another feasible task of the same skill in `scene`: its target and its reference both differ from the task's.

    An agent that gets its instruction must fail `task`, by which it is still judged. Deterministic in its arguments.
    """
    options = list(alternatives(scene, task))
    if not options:
        raise ValueError(f"the scene has no other feasible {task.skill} task; sample_task gives scenes that have one")
    rng = np.random.default_rng(np.random.SeedSequence([_WRONG_INSTRUCTION_STREAM, seed]))
    return options[int(rng.integers(len(options)))]


def other_scene(scene: Scene, task: Task, seed: int) -> Scene:
    """The same things on the same table at other places, such that `task` can be done there too but by other motions.

    The target (and a decal it goes to) lie elsewhere; the gripper starts where it does in `scene`, so only what the
    image shows of the table differs. Deterministic in its arguments.
    """
    objects = [ObjectKind(thing.color, thing.shape, thing.size) for thing in scene.objects]
    decals = [DecalKind(decal.kind, decal.value, decal.size) for decal in scene.decals]
    rng = np.random.default_rng(np.random.SeedSequence([_OTHER_SCENE_STREAM, seed]))
    for _ in range(_TRIES):
        placed, placed_decals = sampling.layout(rng, objects, decals)
        other = dataclasses.replace(scene, objects=placed, decals=placed_decals)
        if _is_elsewhere(scene, other, task) and is_feasible(other, task):
            return other
    raise RuntimeError(f"no other layout of the scene allows the {task.skill} task in {_TRIES} tries")


def _is_elsewhere(scene: Scene, other: Scene, task: Task) -> bool:
    dx = other.objects[task.target].x - scene.objects[task.target].x
    dy = other.objects[task.target].y - scene.objects[task.target].y
    if task.skill == "push":  # a push along the same line would move the true target as well
        forward = DIRECTIONS[direction_of(task.reference)]
        return abs(dx * forward[1]) + abs(dy * forward[0]) >= MIN_DISPLACEMENT
    return math.hypot(dx, dy) >= MIN_DISPLACEMENT
