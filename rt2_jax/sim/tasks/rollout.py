"""Demonstrations: the expert acts, the recorder keeps what it saw and what it would have done.

With noise, some steps execute a disturbed action while the expert's own action is recorded (DART, Laskey et al. 2017):
a cloned policy then sees states off the expert's path together with the way back.
"""

import dataclasses

import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.sim.tasks import skills
from rt2_jax.sim.tasks.env import ACTION_HIGH, ACTION_LOW, MAX_STEPS
from rt2_jax.sim.tasks.expert import expert_action
from rt2_jax.sim.tasks.plans import grounded_plan
from rt2_jax.sim.world.scene import Scene, Task
from rt2_jax.sim.world.world import World

_DRIFT_XYZ = 0.030  # metres a disturbed step strays at most, per axis
_DRIFT_RPY = 0.12  # radians
_MAX_BURST = 3  # steps
_WRONG_GRIPPER = 0.08  # share of disturbances that also command the opposite gripper state


@dataclasses.dataclass(frozen=True)
class Episode:
    """A recorded episode of T steps; the last one's action terminates, unless the step limit came first."""

    images: np.ndarray  # uint8[T, H, W, 3]
    actions: np.ndarray  # float32[T, 8]: the expert's actions
    instruction: str
    plans: tuple[str, ...]  # T texts: see plans.py
    skill: str
    success: bool
    seed: int


class Disturbance:
    """Turns some of the expert's actions into disturbed ones: bursts of drift, now and then with the wrong gripper.

    rng decides; `chance` is the probability, per undisturbed step, that a burst of 1 to 3 steps begins.
    """

    def __init__(self, rng: np.random.Generator, chance: float):
        if not 0.0 <= chance <= 1.0:
            raise UserError(f"noise {chance} is not a probability: choose 0 to 1")
        self._rng = rng
        self._chance = chance
        self._left = 0
        self._drift = np.zeros(8)

    def apply(self, action: np.ndarray) -> np.ndarray:
        """The action to execute, float32[8], in place of the expert's `action`; within the action space."""
        if self._left == 0 and self._rng.random() < self._chance:
            self._left = int(self._rng.integers(1, _MAX_BURST + 1))
            self._drift = np.zeros(8)
            self._drift[1:4] = self._rng.uniform(-_DRIFT_XYZ, _DRIFT_XYZ, 3)
            self._drift[4:7] = self._rng.uniform(-_DRIFT_RPY, _DRIFT_RPY, 3)
            if self._rng.random() < _WRONG_GRIPPER:
                self._drift[7] = -2 * action[7]
        if self._left == 0:
            return action.copy()
        self._left -= 1
        half = np.array((1.0, *[0.5] * 6, 1.0))  # the expert still steers, at half its speed
        return np.clip(action * half + self._drift, ACTION_LOW, ACTION_HIGH).astype(np.float32)


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
    start = skills.read_state(world)
    disturbance = Disturbance(np.random.default_rng(seed), noise)
    images, actions, plans = [], [], []
    while len(actions) < max_steps:
        action = expert_action(world, task)
        images.append(world.render())
        plans.append(grounded_plan(world, task))
        actions.append(action)
        if action[0] >= 0.5:
            break
        world.step(disturbance.apply(action))
    done = skills.success(scene, task, start, skills.read_state(world))
    if own:
        world.close()
    return Episode(np.stack(images), np.stack(actions), task.instruction, tuple(plans), task.skill, done, seed)
