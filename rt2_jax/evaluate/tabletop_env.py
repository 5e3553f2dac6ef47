"""The tabletop world as an environment to be evaluated in: RT-2's splits, skills, controls. Needs the [sim] extra."""

import numpy as np

from rt2_jax.actions.space import ARM_NAMES, ARM_UNITS
from rt2_jax.evaluate.env import EnvSpec, Observation, Split, Step
from rt2_jax.evaluate.results import CONTROLS, WRONG_INSTRUCTION
from rt2_jax.sim.tasks.controls import other_scene, wrong_instruction
from rt2_jax.sim.tasks.env import MAX_STEPS, TabletopEnv
from rt2_jax.sim.tasks.splits import SPLITS, sample_task

CAMERA = "image"
# Groups of splits that the controls run on: where the policy should do well, and where understanding is the question.
CONTROL_GROUPS = ("seen", "emergent")
_LABELS = {
    "seen": "Seen",
    "unseen_objects_easy": "Objects, easy",
    "unseen_objects_hard": "Objects, hard",
    "unseen_backgrounds_easy": "Backgrounds, easy",
    "unseen_backgrounds_hard": "Backgrounds, hard",
    "unseen_environments_easy": "Environments, easy",
    "unseen_environments_hard": "Environments, hard",
    "symbols": "Symbols",
    "reasoning": "Reasoning",
    "persons": "Persons",
}


def tabletop_spec(max_steps: int = MAX_STEPS) -> EnvSpec:
    """What there is to run on the tabletop: RT-2's evaluations (sections 4.1 and 4.2), and the training split if named.

    Splits have random streams of their own: no seed of an evaluation gives a training scene.
    """
    splits = tuple(
        Split(
            name=split.name,
            skills=split.skills,
            label=_LABELS.get(split.name, ""),
            group="other" if split.group == "train" else split.group,
            controls=CONTROLS if split.group in CONTROL_GROUPS else (),
            optional=split.group == "train",
        )
        for split in SPLITS.values()
    )
    return EnvSpec(ARM_NAMES, ARM_UNITS, (CAMERA,), max_steps, splits)


class TabletopEnvironment:
    """`sim.tasks.env.TabletopEnv` under the protocol of `env.ControlledEnvironment`.

    Args:
        image_size: side of the frames in pixels; the policy's own size saves a resizing.
        max_steps: control steps after which an episode is cut.
    """

    def __init__(self, image_size: int, max_steps: int = MAX_STEPS):
        self.spec = tabletop_spec(max_steps)
        self.env = TabletopEnv(image_size, max_steps)
        self.twin: TabletopEnv | None = None
        self._twin_is_shown = False
        self._told = ""

    def reset(self, split: str, skill: str, seed: int) -> Observation:
        """Sets the scene and task of `sim.tasks.splits.sample_task`."""
        scene, task = sample_task(split, skill, seed)
        observation, _ = self.env.reset(options={"scene": scene, "task": task})
        self._told, self._twin_is_shown = task.instruction, False
        return self._observation(observation)

    def reset_control(self, control: str, split: str, skill: str, seed: int) -> Observation:
        """As `reset`, with another instruction of the same scene, or with another scene in the picture."""
        shown = self.reset(split, skill, seed)
        world, task = self.env.world, self.env.task
        assert world is not None and task is not None  # reset has set both
        scene = world.scene
        if control == WRONG_INSTRUCTION:
            self._told = wrong_instruction(scene, task, seed).instruction
            return Observation(shown.images, self._told, judged=task.instruction)
        # The policy drives both worlds and sees the other one, so that it is not blind: it looks at a wrong table.
        self.twin = self.twin or TabletopEnv(self.env.image_size, self.env.max_steps)
        self._twin_is_shown = True
        observation, _ = self.twin.reset(options={"scene": other_scene(scene, task, seed), "task": task})
        return self._observation(observation)

    def step(self, action: np.ndarray) -> Step:
        """One control step; action[0] >= 0.5 ends the episode."""
        observation, _, terminated, truncated, info = self.env.step(action)
        if self._twin_is_shown and self.twin is not None:
            observation = self.twin.step(action)[0]
        return Step(self._observation(observation), terminated or truncated, bool(info["success"]), truncated)

    def close(self) -> None:
        """Frees the GL contexts."""
        self.env.close()
        if self.twin is not None:
            self.twin.close()

    def _observation(self, observation: dict) -> Observation:
        return Observation({CAMERA: observation["image"]}, self._told)
