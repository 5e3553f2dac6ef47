"""Any gymnasium environment, to be evaluated in: say where its frames, its instruction and its success are found.

gymnasium itself is not imported: the environment that is wrapped brings it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rt2_jax.actions.space import TERMINATE
from rt2_jax.errors import UserError
from rt2_jax.evaluate.env import EnvSpec, Observation, Step
from rt2_jax.typed import shown


class GymnasiumEnv:
    """A `gymnasium.Env` under the protocol of `env.Environment`.

    ``step`` passes on the policy's numbers but for one of the kind "terminate", which ends the episode where it is at
    least 0.5 and is no business of the environment's. What is scaled otherwise there goes through a gymnasium wrapper
    first.

    Args:
        env: the environment; its `step` takes float32[width] without what is of the kind "terminate".
        spec: names of its actions, cameras, splits.
        images: camera name -> key of the observation dictionary that holds uint8[H, W, 3]; "" is the observation
            itself, and None is ``env.render()``.
        instruction: the text that the robot is told, or a function of (env, observation, info) that gives it: an
            attribute, ``lambda env, observation, info: env.unwrapped.task``; a key of the observation,
            ``lambda env, observation, info: observation["instruction"]``.
        success: key of the info dictionary that says whether the task is done.
        metrics: keys of the info dictionary whose numbers are averaged in the report.
        options: a function of (split, skill) that gives the `options` of ``env.reset``, where they choose the task.
        state: a function of (env, observation, info) that gives the state, where the spec has `state_names`.

    Raises:
        UserError: `images` names other cameras than `spec`, or one of state and `state_names` is missing.
    """

    def __init__(
        self,
        env: Any,
        spec: EnvSpec,
        images: Mapping[str, str | None],
        instruction: str | Callable[[Any, Any, Mapping[str, Any]], str],
        success: str = "success",
        metrics: tuple[str, ...] = (),
        options: Callable[[str, str], dict[str, Any]] | None = None,
        state: Callable[[Any, Any, Mapping[str, Any]], np.ndarray] | None = None,
    ):
        if set(images) != set(spec.cameras):
            raise UserError(
                f"images has cameras {shown(tuple(images))}, the spec {shown(spec.cameras)}; name the same in both"
            )
        if bool(spec.state_names) != (state is not None):
            lacks = "state" if state is None else "state_names"
            raise UserError(f"one of state and the spec's state_names is missing; give {lacks} too, or neither")
        self.spec = spec
        self._env, self._images, self._instruction = env, dict(images), instruction
        self._success, self._metrics, self._options = success, metrics, options
        self._state = state
        self._stop = spec.action_kinds.index(TERMINATE) if TERMINATE in spec.action_kinds else None
        self._last: Step | None = None

    def reset(self, split: str, skill: str, seed: int) -> Observation:
        """``env.reset(seed=seed, options=options(split, skill))``."""
        options = self._options(split, skill) if self._options else None
        found, info = self._env.reset(seed=seed, options=options)
        observation = self._observation(found, info)
        self._last = Step(observation, done=False, success=_flag(info.get(self._success, False)))
        return observation

    def step(self, action: np.ndarray) -> Step:
        """One step of the environment, or none where the policy stops."""
        if self._stop is not None:
            if action[self._stop] >= 0.5:
                assert self._last is not None, "step was called before reset"
                return Step(self._last.observation, done=True, success=self._last.success, metrics=self._last.metrics)
            action = np.delete(action, self._stop)
        found, _, terminated, truncated, info = self._env.step(action)
        self._last = Step(
            self._observation(found, info),
            done=bool(terminated or truncated),
            success=_flag(self._of(info, self._success)),
            truncated=bool(truncated and not terminated),
            metrics={name: float(self._of(info, name)) for name in self._metrics},
        )
        return self._last

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _observation(self, found: Any, info: Mapping[str, Any]) -> Observation:
        images = {}
        for camera, key in self._images.items():
            if key is None:
                images[camera] = self._env.render()
            elif not key:
                images[camera] = found
            elif isinstance(found, Mapping) and key in found:
                images[camera] = found[key]
            else:
                there = ", ".join(found) if isinstance(found, Mapping) else f"a {type(found).__name__}"
                raise UserError(f"observation has no {key!r} for camera {camera!r} (there: {there}); name another key")
        text = self._instruction if isinstance(self._instruction, str) else self._instruction(self._env, found, info)
        state = self._state and np.asarray(self._state(self._env, found, info), np.float32)
        return Observation(images, text, state=state)

    def _of(self, info: Mapping[str, Any], key: str) -> Any:
        if key not in info:
            raise UserError(
                f"info has no {key!r} after a step (there: {', '.join(map(str, info)) or 'nothing'}); name another key"
            )
        return info[key]


def _flag(value: Any) -> bool:
    """A truth value that some environments give as 0.0 and 1.0; NaN is neither."""
    if not np.isfinite(value):
        raise UserError(f"success is {shown(value)}; give True or False")
    return bool(value)
