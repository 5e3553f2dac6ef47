"""The tabletop world as a gymnasium environment."""

import string
from typing import Any

import gymnasium
import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.sim.tasks import skills
from rt2_jax.sim.tasks.splits import sample_task
from rt2_jax.sim.world.scene import Scene, Task
from rt2_jax.sim.world.world import World

MAX_STEPS = 40
# terminate; metres; radians; gripper. The action space's bounds, as in rt2_jax/resources/cards/tabletop.json.
ACTION_LOW = np.array((0, -0.04, -0.04, -0.04, -0.3, -0.3, -0.3, -1), np.float32)
ACTION_HIGH = np.array((1, 0.04, 0.04, 0.04, 0.3, 0.3, 0.3, 1), np.float32)
# What instructions are written with, in English and the other languages of the reasoning evaluation.
_TEXT = string.ascii_letters + string.digits + " .,;:!?'-" + "àâäáåæçéèêëîïíìñôöóòøœùûüúßÀÂÄÁÇÉÈÊÎÖÓÜÚÑ¿¡"


class TabletopEnv(gymnasium.Env):
    """One task in one scene: frames and an instruction out, actions in.

    `reset(options={"scene": Scene, "task": Task})` sets the task; without options a training task is drawn from the
    seed. Observations: {"image": uint8[H, W, 3], "instruction": str}. Actions: float32[8]; an episode ends when
    action[0] >= 0.5 (terminated; nothing moves in that step) or after `max_steps` (truncated). The reward is 1 in the
    ending step of a successful episode, else 0; `info` has "success", "step" and "skill".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 (gymnasium types it)

    def __init__(self, image_size: int = 96, max_steps: int = MAX_STEPS, render_mode: str | None = "rgb_array"):
        if max_steps < 1:
            raise UserError(f"max_steps {max_steps} must be at least 1")
        self.image_size = image_size
        self.max_steps = max_steps
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Dict(
            {
                "image": gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
                "instruction": gymnasium.spaces.Text(max_length=200, charset=_TEXT),
            }
        )
        self.action_space = gymnasium.spaces.Box(ACTION_LOW, ACTION_HIGH, dtype=np.float32)
        self.world: World | None = None
        self.task: Task | None = None
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; see the class."""
        super().reset(seed=seed)
        scene, self.task = self._choose(options or {})
        if self.world is None:
            self.world = World(scene, self.image_size)
        else:
            self.world.reset(scene)
        self._start = skills.read_state(self.world)
        self._steps = 0
        return self._observation(), self._info()

    def _choose(self, options: dict[str, Any]) -> tuple[Scene, Task]:
        if "scene" in options and "task" in options:
            return options["scene"], options["task"]
        if options:
            raise UserError(f"reset options {sorted(options)} must hold both 'scene' and 'task'")
        return sample_task("train", None, int(self.np_random.integers(2**31)))

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step; returns (observation, reward, terminated, truncated, info)."""
        world, _ = self._running("step")
        action = np.clip(np.asarray(action, np.float32), ACTION_LOW, ACTION_HIGH)
        terminated = bool(action[0] >= 0.5)
        if not terminated:
            world.step(action)
        self._steps += 1
        truncated = not terminated and self._steps >= self.max_steps
        info = self._info()
        reward = float(info["success"] and (terminated or truncated))
        return self._observation(), reward, terminated, truncated, info

    def render(self) -> np.ndarray:
        """The present frame, uint8[H, W, 3]."""
        return self._running("render")[0].render()

    def close(self) -> None:
        """Frees the GL context."""
        if self.world is not None:
            self.world.close()
            self.world = None

    def _running(self, what: str) -> tuple[World, Task]:
        """The world and its task, for `what` needs them."""
        if self.world is None or self.task is None:
            raise UserError(f"{what} was called before reset: call reset first")
        return self.world, self.task

    def _observation(self) -> dict[str, Any]:
        world, task = self._running("observing")
        return {"image": world.render(), "instruction": task.instruction}

    def _info(self) -> dict[str, Any]:
        world, task = self._running("observing")
        done = skills.success(world.scene, task, self._start, skills.read_state(world))
        return {"success": done, "step": self._steps, "skill": task.skill}
