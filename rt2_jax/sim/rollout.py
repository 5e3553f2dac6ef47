"""Demonstrations: the expert acts, the recorder keeps what it saw and what it would have done.

With noise, some steps execute a disturbed action while the expert's own action is recorded (DART, Laskey et al. 2017):
a cloned policy then sees states off the expert's path together with the way back.
"""

import dataclasses

import numpy as np

from rt2_jax.sim import skills
from rt2_jax.sim.env import ACTION_HIGH, ACTION_LOW, MAX_STEPS
from rt2_jax.sim.expert import expert_action
from rt2_jax.sim.scene import Scene, Task
from rt2_jax.sim.world import World

_DRIFT_XYZ = 0.030  # metres a disturbed step strays at most, per axis
_DRIFT_RPY = 0.12  # radians
_MAX_BURST = 3  # steps
_WRONG_GRIPPER = 0.15  # share of disturbances that also command the opposite gripper state


@dataclasses.dataclass(frozen=True)
class Episode:
    """A recorded episode of T steps; the last one's action terminates, unless the step limit came first."""

    images: np.ndarray  # uint8[T, H, W, 3]
    actions: np.ndarray  # float32[T, 8]: the expert's actions
    instruction: str
    plan: str
    skill: str
    success: bool
    seed: int


def record_episode(
    scene: Scene,
    task: Task,
    seed: int,
    image_size: int = 96,
    noise: float = 0.0,
    max_steps: int = MAX_STEPS,
    world: World | None = None,
) -> Episode:
    """Runs the expert.

    Args:
      scene, task: what to do.
      seed: of the disturbances; the episode is a pure function of the arguments.
      image_size: side of the frames, pixels.
      noise: chance per step that a disturbance of 1 to 3 steps begins, 0..1.
      max_steps: the episode is cut after so many steps.
      world: reused (with its own image size) if given, which saves making a GL context; else one is made and closed.
    """
    own = world is None
    world = World(scene, image_size) if own else world
    if not own:
        world.reset(scene)
    rng = np.random.default_rng(seed)
    start = skills.read_state(world)
    images, actions = [], []
    drift: np.ndarray | None = None
    left = 0
    while len(actions) < max_steps:
        action = expert_action(world, task)
        images.append(world.render())
        actions.append(action)
        if action[0] >= 0.5:
            break
        if left == 0 and rng.random() < noise:
            drift, left = _disturbance(rng, action), int(rng.integers(1, _MAX_BURST + 1))
        executed = action
        if left > 0:
            executed = np.clip(action * (1, *[0.5] * 6, 1) + drift, ACTION_LOW, ACTION_HIGH)
            left -= 1
        world.step(executed)
    done = skills.success(scene, task, start, skills.read_state(world))
    if own:
        world.close()
    return Episode(np.stack(images), np.stack(actions), task.instruction, task.plan, task.skill, done, seed)


def _disturbance(rng: np.random.Generator, action: np.ndarray) -> np.ndarray:
    """What is added to half of the expert's motion during a burst, float64[8]."""
    drift = np.zeros(8)
    drift[1:4] = rng.uniform(-_DRIFT_XYZ, _DRIFT_XYZ, 3)
    drift[4:7] = rng.uniform(-_DRIFT_RPY, _DRIFT_RPY, 3)
    if rng.random() < _WRONG_GRIPPER:
        drift[7] = -2 * action[7]
    return drift
