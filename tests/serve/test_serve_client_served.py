"""rt2_jax.serve.client against the real server: frames, refusals, keys, history, chunks, and a server that restarts."""

import asyncio
import contextlib
import dataclasses
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from rt2_jax.actions import Envelope
from rt2_jax.serve import failures
from rt2_jax.serve.auth import Keys, read_keys
from rt2_jax.serve.batcher import BatcherLimits
from rt2_jax.serve.client import ChunkBroker, PolicyClient
from rt2_jax.serve.failures import ConnectionLost, ServerDraining
from rt2_jax.serve.limits import Limits
from rt2_jax.serve.server import Server

LIMITS = Limits(rate=None, deadline=30.0, batcher=BatcherLimits(window=0.0, max_batch=8))


@pytest.fixture
def start(kit):
    """Starts servers of the kit's policy, each on a loop in a thread of its own; `stop()` is what SIGTERM does."""
    with contextlib.ExitStack() as running:

        def started(policy=None, port=0, limits=LIMITS, keys=Keys(), envelopes=()):  # noqa: B008
            serving = dataclasses.replace(kit.serving(policy), envelopes=dict(envelopes))
            ready, asked, found = threading.Event(), threading.Event(), []

            async def serve():
                server = Server(serving, None, limits, keys)
                await server.listen("127.0.0.1", port)
                found.append(server.port)
                ready.set()
                await asyncio.to_thread(asked.wait)
                await server.stop()

            thread = threading.Thread(target=asyncio.run, args=(serve(),))
            thread.start()

            def stop():
                asked.set()
                thread.join()

            running.callback(stop)
            assert ready.wait(60)
            return SimpleNamespace(url=f"ws://127.0.0.1:{found[0]}", port=found[0], stop=stop)

        yield started


def test_a_frame_goes_out_and_its_action_comes_back(start, kit):
    with PolicyClient(start().url) as client:
        answer = client.act({"image": kit.frame(77)}, "pick it", deadline_ms=20000)
        assert answer.actions.tolist() == [[77.0, 1.0, 0.0]]
        assert answer.text == "action: pick it"
        assert set(answer.timing) >= {"queue_ms", "model_ms", "total_ms"}
        assert client.greeting.image_size == 8
        assert client.greeting.model["name"] == ""


def test_robots_in_threads_get_their_own_actions(start, kit):
    policy = kit.TagPolicy()
    server, found = start(policy), {}

    def drive(number):
        with PolicyClient(server.url) as client:
            tags = [1000 * number + step + 1 for step in range(20)]
            answers = [client.act({"image": kit.frame(tag)}, f"robot {number}") for tag in tags]
            found[number] = [answer.actions[0, 0] for answer in answers] == tags, {answer.text for answer in answers}

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: (True, {f"action: robot {number}"}) for number in range(6)}


def test_a_history_grows_and_is_forgotten_by_a_reset(start, kit):
    with PolicyClient(start(kit.TagPolicy(kit.arm(history=3))).url) as client:
        seen = [client.act({"image": kit.frame(5)}, "a").actions[0, 1] for _ in range(4)]
        client.reset()
        seen.append(client.act({"image": kit.frame(5)}, "a").actions[0, 1])
    assert seen == [1, 2, 3, 3, 1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"images": {"left": np.zeros((8, 8, 3), np.uint8), "right": np.zeros((8, 8, 3), np.uint8)}}, "camera 'image'"),
        ({"images": {"image": b"no picture"}}, "do not decode"),
        ({"mode": "dream"}, "'dream' is not served"),
        ({"instruction": "word " * 500}, "tokens"),
        ({"state": np.array([np.nan], np.float32)}, "joint0 is nan"),
        ({"state": None}, "send a state: joint0"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_the_server_refuses_is_told_by_name_and_the_connection_lives(start, kit, arguments, told):
    whole = {"images": {"image": kit.frame(3)}, "instruction": "a", "state": np.array([0.5], np.float32)}
    with PolicyClient(start(kit.TagPolicy(kit.arm(state=1))).url) as client:
        with pytest.raises(failures.InvalidRequest, match=told):
            client.act(**whole | arguments)
        assert client.act(**whole).actions.tolist() == [[3.0, 1.0, 0.5]]


def test_a_wrong_key_is_refused_and_the_right_one_is_not(start, kit):
    url = start(keys=read_keys(None, {"RT2_API_KEYS": "robot:a-long-enough-secret-key"})).url
    for key in (None, "another-long-enough-secret"):
        with pytest.raises(failures.Unauthorized):
            PolicyClient(url, key)
    with PolicyClient(url, "a-long-enough-secret-key") as client:
        client.act({"image": kit.frame(1)}, "a")


def test_a_message_over_the_limit_is_an_error_and_no_hang(start, kit):
    limits = dataclasses.replace(LIMITS, max_message=1000)
    with PolicyClient(start(limits=limits).url) as client:
        with pytest.raises(failures.TooLarge):
            client.act({"image": np.zeros((64, 64, 3), np.uint8)}, "a", deadline_ms=20000)
        assert client.act({"image": kit.frame(9)}, "a").actions[0, 0] == 9


def test_an_observation_that_waits_too_long_is_stale(start, kit):
    gate = threading.Event()

    def hold(size):
        gate.wait(30)

    server = start(kit.TagPolicy(before=hold))
    with PolicyClient(server.url) as first, PolicyClient(server.url) as second:
        busy = threading.Thread(target=lambda: first.act({"image": kit.frame(1)}, "a"))
        busy.start()
        with pytest.raises((failures.StaleObservation, failures.NoAnswer)):
            second.act({"image": kit.frame(2)}, "b", deadline_ms=150)
        gate.set()
        busy.join()
        assert second.act({"image": kit.frame(4)}, "b").actions[0, 0] == 4


def test_a_chunk_is_played_and_both_guards_count_what_was_carried_out(start, kit):
    envelope = Envelope(rate={"tag": 1.5}, still=dict.fromkeys(("tag", "moments", "told")))
    server = start(kit.TagPolicy(kit.arm(chunk=4)), envelopes={"arm": envelope})
    with PolicyClient(server.url) as client:
        broker = ChunkBroker(client, play=2)
        # Chunks are 10, 11, 12, 13; two are played, so the next begins at most 1.5 after 11.
        played = [broker.act({"image": kit.frame(10)}, "a")[0] for _ in range(2)]
        played += [broker.act({"image": kit.frame(20)}, "a")[0] for _ in range(2)]
        assert played == [10, 11, 12.5, 14]
        assert (broker.answer.limited, broker.answer.server_limited) == ((), ("tag",))


def test_a_server_that_restarts_is_found_again(start, kit):
    server = start()
    with PolicyClient(server.url, timeout=60) as client:
        client.act({"image": kit.frame(1)}, "a")
        server.stop()
        again = []
        starter = threading.Timer(0.3, lambda: again.append(start(port=server.port)))
        starter.start()
        for _ in range(3):
            with contextlib.suppress(ConnectionLost, ServerDraining):
                assert client.act({"image": kit.frame(2)}, "b").actions[0, 0] == 2
                break
        else:
            pytest.fail("three observations, and none was answered")
        starter.join()
