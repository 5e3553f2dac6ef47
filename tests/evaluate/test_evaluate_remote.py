"""The closed loop through a server: each row a robot of its own, one moment a call, and honest errors."""

import contextlib

import numpy as np
import pytest
from fake_server import FakeServer, action, greeting, robot

from rt2_jax.actions import Bounds, Envelope
from rt2_jax.errors import UserError
from rt2_jax.evaluate import remote
from rt2_jax.evaluate.closed_loop import make_jobs, run_jobs
from rt2_jax.evaluate.env import EnvSpec, Observation, Split, Step
from rt2_jax.evaluate.remote import RemotePolicy
from rt2_jax.evaluate.run import robot_driven

SIZE = 8
SPEC = EnvSpec(("dx", "dy"), ("m", "m"), ("image",), 3, (Split("all", ("go", "stop")),))


class Line:
    """A world whose frame says its seed and step; it keeps what it was told to do."""

    spec = SPEC

    def __init__(self, log):
        self.log = log

    def reset(self, split, skill, seed):
        self.seed, self.steps = seed, 0
        self.done = []
        self.log[skill, seed] = self.done
        return self._observation(skill)

    def step(self, taken):
        self.done.append(taken.tolist())
        self.steps += 1
        return Step(self._observation("go"), done=self.steps == 2 + self.seed % 2, success=True)

    def _observation(self, told):
        return Observation({"image": np.full((SIZE, SIZE, 3), 10 * self.seed + self.steps + 1, np.uint8)}, told)

    def close(self):
        pass


def hello(**fields):
    return greeting({"arm": robot(**fields)}, image_size=SIZE, model={"name": "speck", "step": 7})


def seen(message):
    return int(message["images"]["image"][0, 0, 0])


def answer(message):
    """The action says which frame it is for."""
    return action(message, [[seen(message) / 256, 0.0]])


@pytest.fixture
def start():
    with contextlib.ExitStack() as running:

        def started(reply=answer, **settings):
            server = FakeServer(reply, **{"hello": hello()} | settings)
            running.callback(server.stop)
            return server

        yield started


def run(policy, episodes=3, **settings):
    log = {}
    result = run_jobs(
        policy,
        make_jobs(SPEC, ["all"], ["go"], episodes),
        lambda: Line(log),
        image_size=policy.image_size,
        on_begin=policy.begin,
        **settings,
    )
    return result, log


def test_every_episode_gets_the_actions_of_its_own_frames(start):
    server = start()
    with RemotePolicy(server.url) as policy:
        policy.acting_as(None)
        result, log = run(policy, episodes=5, seats=2)
    for (_, seed), taken in log.items():
        wanted = [[(10 * seed + step + 1) / 256, 0.0] for step in range(2 + seed % 2)]
        np.testing.assert_allclose(taken, wanted, atol=1e-6)
    assert [outcome.seed for outcome in result.skills[0].outcomes] == list(range(5))
    # A connection a seat, and a reset an episode.
    assert len(server.headers) == 2
    assert sum(message["type"] == "reset" for message in server.received) == 5


def test_of_a_history_the_newest_moment_is_sent(start):
    server = start(hello=hello(history=3))
    with RemotePolicy(server.url) as policy:
        policy.acting_as("arm")
        images = np.stack([np.full((SIZE, SIZE, 3), number, np.uint8) for number in (0, 5, 9)])
        output = policy.act(images[None], ["go"], "plan")
        np.testing.assert_allclose(output.actions, [[9 / 256, 0]], atol=1e-6)
        assert (output.bins.shape, output.text) == ((1, 2), ["1 2"])
    assert [seen(message) for message in server.observations] == [9]
    assert server.observations[0]["mode"] == "plan"


def test_a_refusal_that_passes_is_waited_for_and_a_history_is_not_shown_twice(start, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    refused = []

    def busy_first(message):
        if len(refused) < 3:
            refused.append(message)
            return {"type": "error", "id": message["id"], "code": "busy", "message": "the queue is full"}
        return answer(message)

    images = np.full((1, 1, SIZE, SIZE, 3), 7, np.uint8)
    with RemotePolicy(start(busy_first).url) as policy:
        np.testing.assert_allclose(policy.act(images, ["go"]).actions, [[7 / 256, 0]], atol=1e-6)
    refused.clear()
    server = start(busy_first, hello=hello(history=2))
    with RemotePolicy(server.url) as policy, pytest.raises(UserError, match="the queue is full"):
        policy.act(images.repeat(2, 1), ["go"])


def test_what_the_server_will_not_have_is_told_in_one_line(start):
    def invalid(message):
        return {"type": "error", "id": message["id"], "code": "invalid", "message": "camera 'image' is missing"}

    with RemotePolicy(start(invalid).url) as policy, pytest.raises(UserError, match="camera 'image' is missing"):
        policy.act(np.zeros((1, 1, SIZE, SIZE, 3), np.uint8), ["go"])
    with pytest.raises(UserError, match="does not say its image_size"):
        RemotePolicy(start(hello=greeting()).url)
    with pytest.raises(UserError, match="takes no such API key"):
        RemotePolicy(start(status=401).url)


def test_a_chunk_is_of_use_for_its_first_action_and_the_guard_counts_that_one(start):
    envelope = Envelope(workspace={"x": Bounds(-0.5, 0.5, "dx", start=0.0)}, still={"dy": 0.0})
    chunks = [[0.2, 0.0], [0.2, 0.0], [0.2, 0.0]]
    server = start(lambda message: action(message, chunks), hello=hello(chunk=3, envelope=envelope))
    with RemotePolicy(server.url) as policy:
        images = np.zeros((2, 1, SIZE, SIZE, 3), np.uint8)
        moved = [policy.act(images, ["go", "go"]).actions[:, 0].tolist() for _ in range(4)]
        np.testing.assert_allclose(moved, [[0.2] * 2, [0.2] * 2, [0.1] * 2, [0.0] * 2], atol=1e-6)
        assert policy.limited()["actions"] == 24
        policy.begin(0)
        np.testing.assert_allclose(policy.act(images, ["go", "go"]).actions[:, 0], [0.2, 0.0], atol=1e-6)


class Source:
    name, spec = "line:Line", SPEC


def test_a_robot_of_other_numbers_is_refused_by_name(start):
    server = start(hello=greeting({"arm": robot(names=("dx", "dz"))}, image_size=SIZE))
    with RemotePolicy(server.url) as policy, pytest.raises(UserError, match="takes actions of names dx, dy, but embo"):
        robot_driven(policy.robots, "the server", Source)
    server = start(hello=greeting({"arm": robot() | {"cameras": ["left", "right"]}}, image_size=SIZE))
    with RemotePolicy(server.url) as policy, pytest.raises(UserError, match="give it camera 'left'"):
        robot_driven(policy.robots, "the server", Source)
    server = start(hello=greeting({"arm": robot(), "leg": robot()}, image_size=SIZE))
    with RemotePolicy(server.url) as policy:
        with pytest.raises(UserError, match="say which one it is by --embodiment"):
            robot_driven(policy.robots, "the server", Source)
        assert robot_driven(policy.robots, "the server", Source, "leg") == "leg"
