"""A gymnasium environment under our protocol: frames, words, success and numbers from where its owner says."""

import gymnasium
import numpy as np
import pytest

from rt2_jax.errors import UserError
from rt2_jax.evaluate.env import EnvSpec, Split
from rt2_jax.evaluate.gymnasium_env import GymnasiumEnv

NAMES, UNITS = ("dx", "terminate", "dy"), ("m", "flag", "m")
SPEC = EnvSpec(NAMES, UNITS, ("above",), 5, (Split("all", skills=("near", "far")),))


class Walk(gymnasium.Env):
    """A point that walks; it is done at one metre, and time is up after four steps."""

    observation_space = gymnasium.spaces.Dict({"image": gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)})
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    task = "walk"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(0, 0.1, 2), 0
        self.task = f"walk {(options or {}).get('task', 'on')}"
        self.got = []
        return self.observe(), {}

    def observe(self):
        return {"image": np.full((4, 4, 3), self.steps, np.uint8), "state": self.place}

    def step(self, action):
        self.got.append(action)
        self.place, self.steps = self.place + action, self.steps + 1
        far = float(np.linalg.norm(self.place))
        return self.observe(), 0.0, far >= 1, self.steps >= 4, {"success": float(far >= 1), "metres": far}

    def render(self):
        return np.full((8, 8, 3), 99, np.uint8)


def wrap(images="image", instruction=lambda env, observation, info: env.unwrapped.task, **settings):
    inner = Walk()
    settings = {"metrics": ("metres",), "options": lambda split, skill: {"task": skill}} | settings
    return inner, GymnasiumEnv(inner, SPEC, {"above": images}, instruction, **settings)


def act(dx, dy, terminate=0.0):
    return np.array([dx, terminate, dy], np.float32)


def test_an_episode_ends_where_the_environment_says():
    inner, env = wrap()
    first = env.reset("all", "far", 3)
    assert first.instruction == "walk far" and first.images["above"].shape == (4, 4, 3)
    start = inner.place
    step = env.step(act(0.3, 0.4))
    # "terminate" is no business of the environment's.
    assert inner.got[0].tolist() == pytest.approx([0.3, 0.4]) and (step.done, step.success) == (False, False)
    assert step.observation.images["above"].max() == 1 and step.metrics["metres"] == pytest.approx(0.5, abs=0.2)
    step = env.step(act(0.6, 0.8))
    assert (step.done, step.success, step.truncated) == (True, True, False)
    # The same seed gives the same start.
    env.reset("all", "near", 3)
    assert (inner.place == start).all() and inner.task == "walk near"
    for _ in range(4):
        step = env.step(act(0, 0))
    assert (step.done, step.success, step.truncated) == (True, False, True)
    env.close()


def test_the_policy_stops_without_a_step():
    inner, env = wrap()
    env.reset("all", "far", 0)
    assert (lambda step: (step.done, step.success, step.metrics))(env.step(act(0.5, 0, 1.0))) == (True, False, {})
    env.reset("all", "far", 0)
    before = env.step(act(0.1, 0))
    stopped = env.step(act(0.9, 0, 1.0))
    assert (stopped.done, stopped.success, stopped.truncated) == (True, False, False)
    assert stopped.observation is before.observation and stopped.metrics == before.metrics and len(inner.got) == 1


def test_a_robot_that_never_stops_by_itself_gets_every_number():
    inner = Walk()
    spec = EnvSpec(("dx", "dy"), ("m", "m"), ("above",), 5)
    env = GymnasiumEnv(inner, spec, {"above": "image"}, "walk")
    assert env.reset("all", "task", 0).instruction == "walk"
    env.step(np.array([0.6, 0.7], np.float32))
    assert inner.got[0].tolist() == pytest.approx([0.6, 0.7])


def test_frames_come_from_a_key_from_the_observation_or_from_rendering():
    _, env = wrap(images=None)
    assert env.reset("all", "far", 0).images["above"].max() == 99
    whole = gymnasium.wrappers.TransformObservation(Walk(), lambda observation: observation["image"], None)
    env = GymnasiumEnv(whole, SPEC, {"above": ""}, "walk")
    assert env.reset("all", "far", 0).images["above"].shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"images": "picture"}, r"observation has no 'picture' for camera 'above' \(there: image, state\)"),
        ({"success": "won"}, r"info has no 'won' after a step \(there: success, metres\)"),
        ({"metrics": ("height",)}, "info has no 'height' after a step"),
    ],
)
def test_what_is_not_there_is_named(settings, named):
    with pytest.raises(UserError, match=named):
        _, env = wrap(**settings)
        env.reset("all", "far", 0)
        env.step(act(0, 0))


def test_a_success_that_is_no_truth_value_is_refused():
    inner, env = wrap()
    env.reset("all", "far", 0)
    inner.place = np.array([np.nan, 0])
    inner.step = lambda action: (inner.observe(), 0.0, False, False, {"success": float("nan"), "metres": 0.0})
    with pytest.raises(UserError, match="success is nan"):
        env.step(act(0, 0))


def test_cameras_are_those_of_the_spec():
    with pytest.raises(UserError, match="images has cameras .*wrist.*the spec .*above"):
        GymnasiumEnv(Walk(), SPEC, {"wrist": "image"}, "walk")


def test_which_number_stops_is_a_matter_of_kinds_and_not_of_names():
    kinds = ("continuous", "terminate", "continuous")
    spec = EnvSpec(("dx", "all done", "dy"), UNITS, ("above",), 5, action_kinds=kinds)
    inner = Walk()
    env = GymnasiumEnv(inner, spec, {"above": "image"}, "walk")
    env.reset("all", "task", 0)
    env.step(act(0.1, 0.2))
    assert [len(action) for action in inner.got] == [2] and env.step(act(0, 0, 1)).done
    assert len(inner.got) == 1


def test_the_state_is_where_its_owner_says():
    spec = EnvSpec(NAMES, UNITS, ("above",), 5, state_names=("x", "y"), state_units=("m", "m"))
    inner = Walk()
    env = GymnasiumEnv(
        inner, spec, {"above": "image"}, "walk", state=lambda env, observation, info: observation["state"]
    )
    first = env.reset("all", "task", 0)
    assert first.state.dtype == np.float32 and first.state.tolist() == pytest.approx(inner.place.tolist())
    with pytest.raises(UserError, match="state_names is missing; give state too, or neither"):
        GymnasiumEnv(Walk(), spec, {"above": "image"}, "walk")
    with pytest.raises(UserError, match="state_names is missing; give state_names too, or neither"):
        GymnasiumEnv(Walk(), SPEC, {"above": "image"}, "walk", state=lambda *_: None)
