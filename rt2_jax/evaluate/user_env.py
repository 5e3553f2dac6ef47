"""Environments of a user's own, ``module:factory`` on the command line: whatever they do wrong is told in one line."""

import functools
import math
import numbers
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.evaluate.env import Environment, EnvSpec, Observation, Step
from rt2_jax.inputs.images import check_image
from rt2_jax.inputs.prompts import check_text
from rt2_jax.typed import shown
from rt2_jax.user_modules import call_user_code, import_user_module

_METHODS = ("reset", "step", "close")


class EnvironmentSource(Protocol):
    """Where environments come from: what they are called, what they are, and as many as are wanted."""

    name: str
    spec: EnvSpec

    def make(self, image_size: int) -> Environment:
        """Another one. `image_size` is the side of the policy's frames, for those that can render at any size."""
        ...

    def close(self) -> None:
        """Lets go of what was made and not handed out."""


class CheckedEnvironment:
    """An environment whose every answer is held to the protocol, and whose every error is one line.

    Args:
        env: the user's.
        where: what it is called in messages.
    """

    def __init__(self, env: Environment, where: str):
        self._env: Any = env  # whatever the user wrote
        self._where = where
        self.spec: EnvSpec = env.spec

    def reset(self, split: str, skill: str, seed: int) -> Observation:
        """As `Environment.reset`, checked."""
        where = f"{self._where}: reset({split!r}, {skill!r}, {seed})"
        return self._observation(call_user_code(where, self._env.reset, split, skill, seed), where)

    def reset_control(self, control: str, split: str, skill: str, seed: int) -> Observation:
        """As `ControlledEnvironment.reset_control`, checked."""
        where = f"{self._where}: reset_control({control!r}, {split!r}, {skill!r}, {seed})"
        return self._observation(call_user_code(where, self._env.reset_control, control, split, skill, seed), where)

    def step(self, action: np.ndarray) -> Step:
        """As `Environment.step`, checked."""
        where = f"{self._where}: step"
        step = call_user_code(where, self._env.step, action)
        if not isinstance(step, Step):
            raise UserError(f"{where} returned a {type(step).__name__}; return an rt2_jax.evaluate.env.Step")
        for field in ("done", "success", "truncated"):
            value = getattr(step, field)
            if not isinstance(value, bool | np.bool_):
                raise UserError(f"{where} returned {field} = {shown(value)}; return True or False")
        if not isinstance(step.metrics, Mapping):
            raise UserError(f"{where} returned metrics = {shown(step.metrics)}; return a dict of names and numbers")
        for name, value in step.metrics.items():
            if not isinstance(name, str) or not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise UserError(
                    f"{where} returned metric {shown(name)} = {shown(value)}; return a finite number, or leave it out"
                )
        self._observation(step.observation, where)
        return step

    def close(self) -> None:
        """As `Environment.close`; what it raises is told and does not undo the episodes that ran."""
        try:
            call_user_code(f"{self._where}: close", self._env.close)
        except UserError as error:
            print(error, file=sys.stderr)

    def _observation(self, observation: Any, where: str) -> Observation:
        if not isinstance(observation, Observation):
            raise UserError(
                f"{where} returned a {type(observation).__name__} as observation; return an "
                "rt2_jax.evaluate.env.Observation"
            )
        images = observation.images
        if not isinstance(images, Mapping):
            raise UserError(f"{where} returned images = a {type(images).__name__}; return a dict, camera name to frame")
        for camera in self.spec.cameras:
            if camera not in images:
                found = ", ".join(map(str, images)) or "none"
                raise UserError(f"{where} returned no image of camera {camera!r} (there: {found}); add it, or its name")
            check_image(images[camera], f"{where}: image of camera {camera!r}")
        for field in ("instruction", "judged"):
            text = getattr(observation, field)
            if field == "judged" and text is None:
                continue
            check_text(f"{where}: {field}", text)
            if not text.strip():
                raise UserError(f"{where} returned no {field}; say in words what the robot is to do")
        self._check_state(observation.state, where)
        return observation

    def _check_state(self, state: Any, where: str) -> None:
        width = len(self.spec.state_names)
        if state is None and not width:
            return
        if not width:
            raise UserError(f"{where} returned a state, and the spec has no state_names; name its numbers there")
        if not isinstance(state, np.ndarray) or state.dtype.kind != "f" or state.shape != (width,):
            found = f"{state.dtype}{list(state.shape)}" if isinstance(state, np.ndarray) else shown(state)
            raise UserError(
                f"{where} returned state = {found}; return float32[{width}]: {', '.join(self.spec.state_names)}"
            )
        if not np.isfinite(state).all():
            raise UserError(f"{where} returned state = {shown(state.tolist())}; return finite numbers")


class UserEnvironments:
    """The environments that a user's ``factory()`` makes.

    Args:
        name: ``module:factory``; the module is found on PYTHONPATH, and the factory is called without arguments.

    Attributes:
        spec: of the first one, which is made here and handed out first.

    Raises:
        UserError: another form of name, a module that cannot be imported, no such factory, whatever it raises, or
            something that is no environment.
    """

    def __init__(self, name: str):
        module, colon, path = name.partition(":")
        if not (module and colon and path):
            raise UserError(f"environment {name!r} is not module:factory; write for instance my_robot:make_env")
        self.name = name
        self._where = f"environment {name}"
        imported = import_user_module(module, "environment module")
        try:
            self._factory: Callable[[], Any] = functools.reduce(getattr, path.split("."), imported)
        except AttributeError as error:
            raise UserError(f"environment module {module!r} has no {path!r}; define it, or name another") from error
        if not callable(self._factory):
            raise UserError(f"{self._where} is a {type(self._factory).__name__}; name a class or a function")
        self._made: list[Environment] = []
        self._next: CheckedEnvironment | None = self._another()
        self.spec = self._next.spec

    def make(self, image_size: int) -> Environment:
        """Another one; their frames have what size they have."""
        env, self._next = self._next or self._another(), None
        if env.spec != self.spec:
            env.close()
            raise UserError(f"{self._where}: two of its environments differ in their spec; give all the same")
        return env

    def close(self) -> None:
        """Closes the first one if nobody took it."""
        if self._next is not None:
            self._next.close()
            self._next = None

    def _another(self) -> CheckedEnvironment:
        env = call_user_code(f"{self._where}: factory", self._factory)
        spec = call_user_code(f"{self._where}: spec", getattr, env, "spec", None)
        if not isinstance(spec, EnvSpec):
            raise UserError(
                f"{self._where} made a {type(env).__name__} whose spec is {shown(spec)}; give it an attribute spec, an "
                "rt2_jax.evaluate.env.EnvSpec"
            )
        needed = (*_METHODS, *(["reset_control"] if any(split.controls for split in spec.splits) else ()))
        lacks = [method for method in needed if not callable(getattr(env, method, None))]
        if lacks:
            raise UserError(f"{self._where} made a {type(env).__name__} without {', '.join(lacks)}; define it")
        if any(env is other for other in self._made):
            raise UserError(
                f"{self._where} made the same object twice, and {spec.seats} run at a time; make a new one each time, "
                "or say seats=1 in its spec"
            )
        self._made.append(env)
        return CheckedEnvironment(env, self._where)
