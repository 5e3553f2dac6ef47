"""Environments of a user's own: what is right goes through untouched, whatever is wrong is one line that names it."""

import dataclasses
import itertools

import numpy as np
import pytest

from rt2_jax.actions import ActionBins, Embodiment
from rt2_jax.actions.space import ActionSpace
from rt2_jax.errors import UserError
from rt2_jax.evaluate.closed_loop import make_jobs, run_jobs
from rt2_jax.evaluate.env import EnvSpec, Observation, Split, Step, cameras_seen, check_robot
from rt2_jax.evaluate.run import closed_loop_jobs
from rt2_jax.evaluate.user_env import UserEnvironments

NUMBERS = itertools.count()
NAMES, UNITS = ("terminate", "dx", "dy"), ("flag", "m", "m")
SPEC = EnvSpec(NAMES, UNITS, ("above", "wrist"), 3)

ENVIRONMENT = """
import numpy as np
from rt2_jax.evaluate.env import EnvSpec, Observation, Split, Step

FRAME = np.zeros((4, 6, 3), np.uint8)
IMAGES = {"above": FRAME, "wrist": FRAME}
SEEN = Observation(IMAGES, "push it")

class Env:
    spec = EnvSpec(("terminate", "dx", "dy"), ("flag", "m", "m"), ("above", "wrist"), 3)
    def reset(self, split, skill, seed):
        return SEEN
    def step(self, action):
        return Step(SEEN, False, False)
    def close(self):
        pass
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of the given text and gives its name, another one each time."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text):
        name = f"environment_of_a_user_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


class Still:
    """Decodes nothing but "stay"."""

    def __init__(self):
        self.calls = []

    def act(self, images, instructions, mode="action", states=None):
        self.calls.append((images, list(instructions)))
        rows = len(images)
        return dataclasses.make_dataclass("Output", ["actions", "bins", "text"])(
            np.zeros((rows, 3), np.float32), np.ones((rows, 3), np.int32), ["1 128 128"] * rows
        )


def drive(source, image_size=4, **settings):
    jobs = make_jobs(source.spec, [source.spec.splits[0].name], None, 1)
    return run_jobs(Still(), jobs, lambda: source.make(image_size), image_size=image_size, **settings)


def test_one_that_keeps_the_protocol_runs(module):
    source = UserEnvironments(f"{module(ENVIRONMENT)}:Env")
    (one,) = drive(source).skills
    assert (one.split, one.label, one.group, one.skill, one.max_steps) == ("all", "All", "other", "task", 3)
    # It never says that it is done: the evaluation cuts it.
    assert [(o.steps, o.terminated, o.instruction) for o in one.outcomes] == [(3, False, "push it")]


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("pusher", "", "is not module:factory"),
        (":make", "", "is not module:factory"),
        ("no_such_module_of_mine:make", "", "cannot be imported .*put it on PYTHONPATH"),
        ("{}:make", "raise ValueError('no\nsense')", "cannot be imported"),
        ("{}:make", "", "has no 'make'; define it"),
        ("{}:make", "make = 5", "is a int; name a class or a function"),
        ("{}:make", "def make():\n    return 1 / 0", r"factory raised ZeroDivisionError: .*\.py:2; fix it"),
        ("{}:make", "def make():\n    raise SystemExit", "factory raised SystemExit"),
        ("{}:make", "def make(size):\n    pass", "factory raised TypeError"),
        ("{}:make", "def make():\n    pass", "made a NoneType whose spec is None; give it an attribute spec"),
        ("{}:Env", "{E}\nEnv.spec = 5", "made a Env whose spec is 5"),
        ("{}:Env", "{E}\ndel Env.step", "made a Env without step; define it"),
        (
            "{}:Env",
            "{E}\nEnv.spec = EnvSpec(('dx',), ('m',), ('above',), 3, (Split('a', controls=('other_image',)),))",
            "made a Env without reset_control",
        ),
        (
            "{}:Env",
            "{E}\nEnv.spec = EnvSpec(('dx',), (), ('above',), 3)",
            "1 action_names, 0 action_units, 1 action_kinds; give one of each",
        ),
        (
            "{}:Env",
            "{E}\nEnv.spec = EnvSpec(('dx',), ('m',), ('above',), 3, state_names=('x',))",
            "1 state_names, 0 state_units; give one of each",
        ),
        ("{}:Env", "{E}\nEnv.spec = EnvSpec(('dx',), ('m',), (), 3)", "cameras is .*name at least one"),
        ("{}:Env", "{E}\nEnv.spec = EnvSpec(('dx', 'dx'), ('m', 'm'), ('a',), 3)", "action_names is .*each once"),
        ("{}:Env", "{E}\nEnv.spec = EnvSpec(('dx',), ('m',), ('a',), 0)", "max_steps"),
        ("{}:Env", "{E}\nEnv.spec = EnvSpec(('dx',), ('m',), ('a',), 3, (Split('a', skills=()),))", "skills"),
    ],
)
def test_what_is_no_environment_is_one_line(module, name, text, named):
    text = text.replace("{E}", ENVIRONMENT)
    with pytest.raises(UserError, match=named) as caught:
        UserEnvironments(name.format(module(text)))
    assert "\n" not in str(caught.value) and "environment" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Env.reset = lambda *_: 1 / 0", r"reset\('all', 'task', 0\) raised ZeroDivisionError"),
        ("Env.reset = lambda *_: None", "returned a NoneType as observation"),
        ("Env.reset = lambda *_: Observation(FRAME, 'x')", "returned images = a ndarray; return a dict"),
        ("Env.reset = lambda *_: Observation({'above': FRAME}, 'x')", r"no image of camera 'wrist' \(there: above\)"),
        ("IMAGES['wrist'] = FRAME / 255", "image of camera 'wrist': dtype float64, needs uint8"),
        ("IMAGES['wrist'] = FRAME * np.float32('nan')", "image of camera 'wrist': dtype float32, needs uint8"),
        ("IMAGES['above'] = FRAME[0]", r"image of camera 'above': shape \(6, 3\), needs \[H, W, 3\]"),
        ("IMAGES['above'] = [[1]]", "image of camera 'above': a list, needs a numpy array"),
        ("SEEN = Observation(IMAGES, '')", "returned no instruction; say in words"),
        ("SEEN = Observation(IMAGES, None)", "instruction: a NoneType, needs text"),
        ("SEEN = Observation(IMAGES, 'x', judged=' ')", "returned no judged"),
        ("Env.step = lambda *_: 1 / 0", "step raised ZeroDivisionError"),
        ("Env.step = lambda *_: (SEEN, 0.0, False, False, {})", "step returned a tuple; return an .*Step"),
        ("Env.step = lambda *_: Step(SEEN, False, float('nan'))", "returned success = nan; return True or False"),
        ("Env.step = lambda *_: Step(SEEN, None, True)", "returned done = None"),
        ("Env.step = lambda *_: Step(SEEN, False, True, metrics=[1])", r"returned metrics = \[1\]; return a dict"),
        (
            "Env.step = lambda *_: Step(SEEN, False, True, metrics={'m': float('nan')})",
            "metric 'm' = nan; return a fin",
        ),
        ("Env.step = lambda *_: Step(SEEN, False, True, metrics={'m': 'far'})", "metric 'm' = 'far'"),
        ("Env.step = lambda *_: Step(None, False, True)", "step returned a NoneType as observation"),
    ],
)
def test_what_it_does_wrong_is_one_line(module, text, named):
    source = UserEnvironments(f"{module(ENVIRONMENT + text)}:Env")
    with pytest.raises(UserError, match=named) as caught:
        drive(source)
    assert "\n" not in str(caught.value) and "environment_of_a_user" in str(caught.value)


def test_one_object_cannot_sit_in_two_seats(module):
    text = ENVIRONMENT + "ONE = Env()\nmake = lambda: ONE\n"
    source = UserEnvironments(f"{module(text)}:make")
    jobs = make_jobs(source.spec, ["all"], None, 3)
    with pytest.raises(UserError, match="made the same object twice, and 16 run at a time"):
        run_jobs(Still(), jobs, lambda: source.make(4), image_size=4)
    alone = text + "import dataclasses\nEnv.spec = dataclasses.replace(Env.spec, seats=1)\n"
    source, policy = UserEnvironments(f"{module(alone)}:make"), Still()
    assert run_jobs(policy, jobs, lambda: source.make(4), image_size=4).skills[0].episodes == 3
    assert {len(images) for images, _ in policy.calls} == {1}


def test_the_first_one_is_used_and_every_one_is_closed_once(module):
    counting = (
        "MADE = []\n"
        "class Counting(Env):\n"
        "    def __init__(self):\n"
        "        MADE.append(self)\n"
        "        self.closed = 0\n"
        "    def close(self):\n"
        "        self.closed += 1\n"
        "        raise OSError('the socket is gone')\n"
    )
    name = module(ENVIRONMENT + counting)
    source = UserEnvironments(f"{name}:Counting")
    jobs = make_jobs(source.spec, ["all"], None, 2)
    # What closing raises does not undo what ran.
    assert run_jobs(Still(), jobs, lambda: source.make(4), image_size=4).skills[0].episodes == 2
    source.close()
    made = __import__(name).MADE
    assert [env.closed for env in made] == [1, 1]
    UserEnvironments(f"{name}:Counting").close()
    assert [env.closed for env in made] == [1, 1, 1]


def test_environments_of_one_factory_are_alike(module):
    text = ENVIRONMENT + (
        "import dataclasses, itertools\nSTEPS = itertools.count(1)\n"
        "def make():\n"
        "    env = Env()\n"
        "    env.spec = dataclasses.replace(Env.spec, max_steps=next(STEPS))\n"
        "    return env\n"
    )
    source = UserEnvironments(f"{module(text)}:make")
    with pytest.raises(UserError, match="differ in their spec"):
        run_jobs(Still(), make_jobs(source.spec, ["all"], None, 2), lambda: source.make(4), image_size=4)


class Counter:
    """Frames that say which step it is, all drawn into one array; ends by itself at step 4."""

    spec = dataclasses.replace(SPEC, max_steps=9, splits=(Split("all", skills=("a", "b")),))

    def __init__(self):
        self.frame = np.zeros((5, 9, 3), np.uint8)

    def reset(self, split, skill, seed):
        self.step_number = 0
        self.frame[:] = 0
        return self.observe()

    def observe(self):
        return Observation({"above": self.frame, "wrist": 255 - self.frame}, f"count on from {self.step_number}")

    def step(self, action):
        self.step_number += 1
        self.frame += 10
        action[:] = np.nan  # what an environment does to its argument is its own affair
        metrics = {"height": float(self.step_number)} if self.step_number == 4 else {}
        return Step(self.observe(), self.step_number == 4, True, metrics=metrics)

    def close(self):
        pass


def test_frames_history_words_and_measures_are_those_of_the_episode():
    policy = Still()
    jobs = make_jobs(Counter.spec, ["all"], ["a"], 1)
    (one,) = (result := run_jobs(policy, jobs, Counter, image_size=4, num_images=3)).skills
    # The last three frames of the first camera, at the policy's size, oldest first.
    assert [images[0, :, 0, 0, 0].tolist() for images, _ in policy.calls] == [
        [0, 0, 0], [0, 0, 10], [0, 10, 20], [10, 20, 30]
    ]  # fmt: skip
    assert policy.calls[0][0].shape == (1, 3, 4, 4, 3)
    assert [told for _, (told,) in policy.calls] == [f"count on from {n}" for n in range(4)]
    (outcome,) = one.outcomes
    assert (outcome.steps, outcome.terminated, outcome.success) == (4, True, True)
    assert (outcome.instruction, outcome.metrics) == ("count on from 0", {"height": 4.0})
    (measure,) = one.measures
    assert (measure.name, measure.mean, measure.interval, measure.episodes) == ("height", 4.0, None, 1)
    (film,) = result.films
    assert (film.names, film.units, film.label) == (NAMES, UNITS, "All")
    assert film.kinds == ("terminate", "continuous", "continuous")
    assert film.frames[:, 0, 0, 0].tolist() == [0, 10, 20, 30] and np.isfinite(film.actions).all()


def test_a_policy_of_two_cameras_sees_both_at_every_moment():
    policy, jobs = Still(), make_jobs(Counter.spec, ["all"], ["a"], 1)
    result = run_jobs(policy, jobs, Counter, image_size=4, num_images=4, cameras=["wrist", "above"])
    # The moment before, then the present; of each the wrist, then what is above.
    assert policy.calls[2][0][0, :, 0, 0, 0].tolist() == [245, 10, 235, 20]
    assert result.films[0].frames[2, 0, 0, 0] == 235
    with pytest.raises(UserError, match=r"takes 3 frames and looks through 2 cameras \(wrist, above\)"):
        run_jobs(policy, jobs, Counter, image_size=4, num_images=3, cameras=["wrist", "above"])
    with pytest.raises(UserError, match="looks through camera 'left', the environment has above, wrist"):
        run_jobs(policy, jobs, Counter, image_size=4, cameras=["left"])


def test_optional_splits_run_where_they_are_named_and_controls_where_they_are_asked_for():
    splits = (
        Split("seen", ("a", "b"), controls=("other_image",)),
        Split("unseen", ("b",)),
        Split("train", ("a",), optional=True),
    )
    spec = dataclasses.replace(SPEC, splits=splits)
    controls = ("wrong_instruction", "other_image")

    def run(names=None, skills=None, controls=controls):
        jobs = closed_loop_jobs(spec, names, skills, 1, 0, controls)
        return [(job.split, job.skill, job.control) for job in jobs]

    assert run() == [
        ("seen", "a", None), ("seen", "b", None), ("seen", "a", "other_image"), ("seen", "b", "other_image"),
        ("unseen", "b", None),
    ]  # fmt: skip
    assert run(["train"]) == [("train", "a", None)]
    assert run(skills=["b"], controls=()) == [("seen", "b", None), ("unseen", "b", None)]
    with pytest.raises(UserError, match="none of the splits unseen tests a"):
        run(["unseen"], ["a"])
    with pytest.raises(UserError, match="split 'moon' is unknown; choose of seen, unseen, train"):
        run(["moon"])


STATE = ActionSpace(("x", "y"), (-1.0, -1.0), (1.0, 1.0), ("m", "m"))


def robot(names=NAMES, units=UNITS, **fields):
    return Embodiment("p", ActionBins(ActionSpace(names, (0.0,) * 3, (1.0,) * 3, units)), **fields)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"names": ("dx", "terminate", "dy")}, "names terminate, dx, dy, but policy p decodes dx, terminate, dy"),
        ({"units": ("flag", "m", "cm")}, "units flag, m, m, but policy p decodes flag, m, cm"),
        ({"cameras": ("image",)}, "cameras above, wrist, but policy p looks through image; give it camera 'image'"),
        ({"cameras": ("wrist", "left")}, "looks through wrist, left; give it camera 'left'"),
        (
            {"cameras": ("wrist",), "proprioception": ActionBins(STATE)},
            "tells a state of names none, but .* x, y; give",
        ),
    ],
)
def test_another_robot_than_the_policy_s_is_refused(fields, named):
    with pytest.raises(UserError, match=named):
        check_robot(SPEC, robot(**fields), "environment e", "policy p")


def test_one_that_is_the_policy_s_robot_is_not():
    check_robot(SPEC, robot(cameras=("wrist",)), "environment e", "policy p")
    told = dataclasses.replace(SPEC, state_names=("x", "y"), state_units=("m", "m"))
    check_robot(told, robot(cameras=("wrist",), proprioception=ActionBins(STATE)), "environment e", "policy p")
    # One camera on each side is the same one.
    alone = dataclasses.replace(SPEC, cameras=("above",))
    check_robot(alone, robot(cameras=("image",)), "environment e", "policy p")
    assert cameras_seen(alone, robot(cameras=("image",))) == ("above",)
    assert cameras_seen(SPEC, robot(cameras=("wrist",))) == ("wrist",)


def test_kinds_are_compared_too():
    kinds = ("continuous", "terminate", "continuous")
    spec = EnvSpec(("dx", "stop", "dy"), ("m", "flag", "m"), ("above",), 3, action_kinds=kinds)
    with pytest.raises(
        UserError, match="kinds continuous, terminate, continuous, but policy p decodes continuous, cont"
    ):
        check_robot(spec, robot(("dx", "stop", "dy"), ("m", "flag", "m")), "environment e", "policy p")


STATE_TEXT = (
    "import dataclasses\nEnv.spec = dataclasses.replace(Env.spec, state_names=('x', 'y'), state_units=('m', 'm'))\n"
)


def test_a_policy_with_proprioception_is_told_the_state(module):
    text = STATE_TEXT + (
        "class Moving(Env):\n"
        "    def reset(self, split, skill, seed):\n"
        "        self.state = np.zeros(2, np.float32)\n"
        "        return dataclasses.replace(SEEN, state=self.state)\n"
        "    def step(self, action):\n"
        "        self.state += 0.5  # in place: what the policy was told before must not change\n"
        "        return Step(dataclasses.replace(SEEN, state=self.state), False, False)\n"
    )
    source, told = UserEnvironments(f"{module(ENVIRONMENT + text)}:Moving"), []

    class Told(Still):
        def act(self, images, instructions, mode="action", states=None):
            told.append(states)
            return super().act(images, instructions, mode)

    jobs = make_jobs(source.spec, ["all"], None, 1)
    run_jobs(Told(), jobs, lambda: source.make(4), image_size=4, states=True)
    assert [(rows.dtype, rows.tolist()) for rows in told] == [(np.float32, [[at, at]]) for at in (0.0, 0.5, 1.0)]
    drive(UserEnvironments(f"{module(ENVIRONMENT + text)}:Moving"))  # of a policy that has no use for it


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ("None", r"returned state = None; return float32\[2\]: x, y"),
        ("[0.0, 0.0]", r"returned state = \[0.0, 0.0\]; return float32\[2\]"),
        ("np.zeros(3)", r"returned state = float64\[3\]; return float32\[2\]"),
        ("np.zeros(2, int)", r"returned state = int64\[2\]; return"),
        ("np.array([0, np.nan])", r"returned state = \[0.0, nan\]; return finite"),
    ],
)
def test_a_state_of_another_form_is_one_line(module, state, named):
    text = STATE_TEXT + f"SEEN = dataclasses.replace(SEEN, state={state})\n"
    with pytest.raises(UserError, match=named) as caught:
        drive(UserEnvironments(f"{module(ENVIRONMENT + text)}:Env"))
    assert "environment_of_a_user" in str(caught.value)


def test_a_state_that_the_spec_does_not_name_is_one_line(module):
    text = "SEEN = Observation(IMAGES, 'x', state=np.zeros(2))\n"
    with pytest.raises(UserError, match="returned a state, and the spec has no state_names; name its numbers there"):
        drive(UserEnvironments(f"{module(ENVIRONMENT + text)}:Env"))
