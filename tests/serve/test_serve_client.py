"""rt2_jax.serve.client against a small server of the native dialect that does what each test wants."""

import contextlib
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest
from fake_server import FakeServer, action, greeting, robot

from rt2_jax.actions import Bounds, Envelope
from rt2_jax.errors import UserError
from rt2_jax.serve import failures
from rt2_jax.serve.client import ChunkBroker, PolicyClient
from rt2_jax.serve.connection import address
from rt2_jax.serve.failures import ConnectionLost, NoAnswer, ProtocolError, ServingError
from rt2_jax.serve.wire import pack

FRAME = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
SEEN = {"image": FRAME}


@pytest.fixture
def start():
    """Starts servers, and stops those that still run."""
    with contextlib.ExitStack() as running:

        def started(*arguments, **settings):
            server = FakeServer(*arguments, **settings)
            running.callback(server.stop)
            return server

        yield started


@pytest.fixture
def client(start):
    server = start()
    with PolicyClient(server.url) as client:
        client.server = server
        yield client


def test_the_greeting_says_what_the_server_is(client):
    arm = client.greeting.robots["arm"]
    assert (client.greeting.bundle, client.greeting.modes) == ("ab" * 32, ("action", "plan"))
    assert (arm.cameras, arm.space.names, arm.chunk, arm.state_names) == (("image",), ("dx", "dy"), 1, ())
    assert client.server.headers == [("/v1/act", None)]


def test_an_observation_goes_out_and_its_action_comes_back(client):
    answer = client.act(SEEN, "pick red cube", mode="plan", deadline_ms=5000)
    np.testing.assert_array_equal(answer.actions, np.float32([[0.25, -0.5]]))
    assert (answer.text, answer.logprob, answer.confidence, answer.reconnected) == ("1 2", -1.5, None, False)
    assert answer.timing == {"queue_ms": 0.5, "total_ms": 2.0}
    (sent,) = client.server.observations
    np.testing.assert_array_equal(sent["images"]["image"], FRAME)
    assert (sent["instruction"], sent["embodiment"], sent["mode"]) == ("pick red cube", "arm", "plan")
    assert 0 < sent["deadline_ms"] <= 5000
    assert "state" not in sent


def test_what_is_not_given_is_left_to_the_server(client):
    client.act(SEEN, "a")
    assert set(client.server.observations[0]) == {"type", "id", "instruction", "images", "embodiment"}


def test_an_image_may_be_a_files_bytes_and_a_state_goes_along(start):
    arm = robot(proprioception={"names": ["x", "y", "z"], "units": ["m"] * 3})
    server = start(hello=greeting({"arm": arm}))
    with PolicyClient(server.url, api_key="secret") as client:
        client.act({"image": b"a file"}, "a", state=[1, 2, 3.5])
    assert server.observations[0]["images"] == {"image": {"encoded": b"a file"}}
    np.testing.assert_array_equal(server.observations[0]["state"], np.float32([1, 2, 3.5]))
    assert server.headers == [("/v1/act", "Api-Key secret")]


def test_confidence_comes_where_the_server_tells_it(start):
    server = start(lambda message: action(message, confidence=np.float32([[-0.1, -0.2]])))
    with PolicyClient(server.url) as client:
        np.testing.assert_array_equal(client.act(SEEN, "a").confidence, np.float32([[-0.1, -0.2]]))


@pytest.mark.parametrize("code", ["invalid", "stale", "busy", "unauthorized", "too_large", "rate", "internal"])
def test_each_code_is_an_error_of_its_own_and_the_connection_lives(start, code):
    def reply(message):
        failed = {"type": "error", "id": message["id"], "code": code, "message": "because"}
        return failed if message["instruction"] == "fail" else action(message)

    server = start(reply)
    with PolicyClient(server.url) as client:
        with pytest.raises(ServingError, match="because") as refused:
            client.act(SEEN, "fail")
        assert refused.value.code == code
        assert type(refused.value) is not ServingError
        client.act(SEEN, "go on")
    assert len(server.headers) == 1


def test_there_is_a_class_for_each_code_and_one_for_codes_to_come():
    codes = "invalid stale busy unauthorized too_large rate draining internal".split()
    assert len({type(failures.refusal(code, "")) for code in codes}) == len(codes)
    assert type(failures.refusal("teapot", "")) is ServingError


def test_a_server_that_drains_is_left_for_the_one_that_comes_after(start):
    server = start(lambda message: {"type": "error", "id": message["id"], "code": "draining", "message": "stopping"})
    with PolicyClient(server.url) as client:
        with pytest.raises(failures.ServerDraining):
            client.act(SEEN, "a")
        server.stop()
        again = start(port=server.port)
        client.act(SEEN, "b")
        assert [message["instruction"] for message in again.observations] == ["b"]


@pytest.mark.parametrize(
    ("status", "error"), [(401, failures.Unauthorized), (429, failures.RateLimited), (404, ProtocolError)]
)
def test_a_refused_handshake_is_an_error_of_its_own_at_once(start, status, error):
    with pytest.raises(error):
        PolicyClient(start(status=status).url, timeout=60)


def test_a_key_that_the_first_message_refuses(start):
    server = start(hello={"type": "error", "id": None, "code": "unauthorized", "message": "no such key"})
    with pytest.raises(failures.Unauthorized, match="no such key"):
        PolicyClient(server.url)


def test_nothing_that_answers_is_tried_until_the_time_is_over(start):
    with pytest.raises(ConnectionLost, match="cannot be reached"):
        PolicyClient(start(status=503).url, timeout=0.4)
    with pytest.raises(ConnectionLost, match="cannot be reached"):
        PolicyClient("ws://localhost:1", timeout=0.2)


def test_a_server_that_is_not_there_yet_is_waited_for(start):
    server = start(status=503)
    threading.Timer(0.2, lambda: setattr(server, "status", None)).start()
    with PolicyClient(server.url, timeout=60) as client:
        client.act(SEEN, "a")
    assert len(server.headers) > 1


@pytest.mark.parametrize(
    "hello",
    [
        {"type": "hi"},
        greeting(protocol=2),
        greeting(deadline_ms="soon"),
        greeting({"arm": {}}),
        greeting({"arm": robot() | {"action": {"names": ["a"], "low": [], "high": [], "units": [], "kinds": []}}}),
        greeting({"arm": robot() | {"envelope": {"step": {"dz": [0, 1]}}}}),
        greeting([]),
        b"\xc1",
        "a text",
        pack([1, 2]),
    ],
    ids=str,
)
def test_what_is_no_greeting_is_refused(start, hello):
    with pytest.raises(ProtocolError):
        PolicyClient(start(hello=hello).url)


@pytest.mark.parametrize(
    "reply",
    [
        lambda message: action(message, [[0.0, 0.0, 0.0]]),
        lambda message: action(message, [[0.0, 0.0]] * 2),
        lambda message: action(message, actions=[[0.0, 0.0]]),
        lambda message: action(message, bins=np.zeros((1, 2), np.float32)),
        lambda message: action(message, [[np.nan, 0.0]]),
        lambda message: action(message, confidence=np.zeros(2, np.float32)),
        lambda message: action(message, logprob="low"),
        lambda message: action(message, envelope=[1]),
        lambda message: action(message, timing={"model_ms": "long"}),
        lambda message: action(message, id=message["id"] + 1),
        lambda message: action(message, type="plan"),
        lambda message: b"\xc1",
        lambda message: "a text",
        lambda message: pack(3),
    ],
)
def test_what_is_no_action_is_refused(start, reply):
    with PolicyClient(start(reply).url) as client, pytest.raises(ProtocolError):
        client.act(SEEN, "a")


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(start):
    late = []

    def reply(message):
        late.append(action(message, [[message["id"] / 10, 0.0]]))
        return None if len(late) == 1 else list(late)

    with PolicyClient(start(reply).url) as client:
        with pytest.raises(NoAnswer):
            client.act(SEEN, "a", deadline_ms=50)
        np.testing.assert_allclose(client.act(SEEN, "b").actions, [[0.2, 0.0]])


def test_a_connection_that_breaks_is_made_again_within_the_deadline(start):
    server = start()

    def drop_first(message):
        if len(server.observations) == 1:
            server.drop()
            return None
        return action(message)

    server.reply = drop_first
    with PolicyClient(server.url) as client:
        answer = client.act(SEEN, "a", deadline_ms=30000)
    assert answer.reconnected
    first, second = server.observations
    assert second["deadline_ms"] < first["deadline_ms"] <= 30000
    assert len(server.headers) == 2


def test_an_observation_that_the_server_breaks_at_is_not_sent_a_third_time(start):
    server = start()
    server.reply = lambda message: server.drop()
    with PolicyClient(server.url) as client, pytest.raises(ConnectionLost):
        client.act(SEEN, "a", deadline_ms=30000)
    assert len(server.observations) == 2


def test_a_restart_that_takes_longer_than_the_deadline_is_told_and_nothing_is_sent_again(start):
    hello = greeting(deadline_ms=200.0)
    server = start(hello=hello)
    client = PolicyClient(server.url)
    client.act(SEEN, "a")
    server.stop()
    started = []
    timer = threading.Timer(0.5, lambda: started.append(start(hello=hello, port=server.port)))
    timer.start()
    with pytest.raises(ConnectionLost, match="take a new one"):
        client.act(SEEN, "b")
    timer.join()
    assert started[0].received == []
    client.act(SEEN, "c")
    assert [message["instruction"] for message in started[0].observations] == ["c"]
    client.close()


def test_a_history_that_is_lost_is_told_once(start):
    server = start(hello=greeting({"arm": robot(history=2)}))
    with PolicyClient(server.url) as client:
        client.act(SEEN, "a")
        server.drop()
        with pytest.raises(ConnectionLost):
            client.act(SEEN, "b", deadline_ms=30000)
        client.act(SEEN, "c")
        assert [message["instruction"] for message in server.observations] == ["a", "c"]


def test_a_history_that_a_draining_server_takes_along_is_told(start):
    def reply(message):
        failed = {"type": "error", "id": message["id"], "code": "draining", "message": "stopping"}
        return failed if message["instruction"] == "b" else action(message)

    server = start(reply, hello=greeting({"arm": robot(history=2)}))
    with PolicyClient(server.url) as client:
        client.act(SEEN, "a")
        with pytest.raises(failures.ServerDraining):
            client.act(SEEN, "b")
        with pytest.raises(ConnectionLost, match="forgotten the moments before"):
            client.act(SEEN, "c")
        client.act(SEEN, "d")
        with pytest.raises(failures.ServerDraining):
            client.act(SEEN, "b")
        client.reset()  # a new episode has none to lose
        client.act(SEEN, "e")


def test_a_server_that_comes_back_with_another_robot_is_refused(start):
    server = start()
    with PolicyClient(server.url) as client:
        client.act(SEEN, "a")
        server.hello = greeting({"arm": robot(names=("dx", "dz"))})
        server.drop()
        with pytest.raises(ProtocolError, match="make a new client"):
            client.act(SEEN, "b")


def test_reset_is_sent_and_a_lost_connection_is_made_again(start):
    server = start()
    with PolicyClient(server.url) as client:
        client.reset()
        client.act(SEEN, "a")
        server.drop()
        client.reset()
        client.act(SEEN, "b")
    assert [message["type"] for message in server.received if message["type"] == "reset"] == ["reset"] * (
        len(server.received) - 2
    )
    assert server.received[0] == {"type": "reset"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"images": FRAME},
        {"images": {"image": FRAME.astype(np.float32)}},
        {"images": {"image": FRAME[0]}},
        {"images": {"image": "frame.png"}},
        {"state": [1.0]},
        {"embodiment": "dog"},
        {"deadline_ms": 0},
        {"deadline_ms": float("nan")},
    ],
    ids=str,
)
def test_a_mistake_is_told_before_anything_is_sent(client, arguments):
    with pytest.raises(UserError):
        client.act(**{"images": SEEN, "instruction": "a"} | arguments)
    assert client.server.received == []


def test_the_robot_is_named_where_the_server_knows_several(start):
    server = start(hello=greeting({"arm": robot(), "leg": robot()}))
    with PolicyClient(server.url) as client:
        with pytest.raises(UserError, match="name one of: arm, leg"):
            client.act(SEEN, "a")
        client.act(SEEN, "a", embodiment="arm")
    with PolicyClient(server.url, embodiment="leg") as client:
        client.act(SEEN, "a")
    assert [message["embodiment"] for message in server.observations] == ["arm", "leg"]
    with pytest.raises(UserError, match="unknown to the server"):
        PolicyClient(server.url, embodiment="dog")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "ws://", "", "ws://a:port", "ws://[a"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UserError, match="is no address"):
        address(url)


def test_an_address_gets_the_servers_path():
    assert address("http://a:8000") == "ws://a:8000/v1/act"
    assert address("https://a/") == "wss://a/v1/act"
    assert address("ws://a/robots/act") == "ws://a/robots/act"


ENVELOPE = Envelope(
    rate={"dy": 0.1},
    workspace={"x": Bounds(-0.5, 0.5, "dx", start=0.0)},
    still={"dy": None},
)


def test_the_guard_limits_what_comes_whatever_the_server_did(start):
    server = start(
        lambda message: action(message, [[0.3, 0.0]], envelope={"limited": ["dy"], "held": True}),
        hello=greeting({"arm": robot(envelope=ENVELOPE)}),
    )
    with PolicyClient(server.url) as client:
        moved = [client.act(SEEN, "a") for _ in range(3)]
        np.testing.assert_allclose([answer.actions[0, 0] for answer in moved], [0.3, 0.2, 0.0], atol=1e-6)
        assert [answer.limited for answer in moved] == [(), ("dx",), ("dx",)]
        assert (moved[0].server_limited, moved[0].server_held, moved[0].held) == (("dy",), True, False)
        assert client.guards["arm"].counts == {"actions": 3, "limited:dx": 2}
        client.reset()
        np.testing.assert_allclose(client.act(SEEN, "a").actions[0, 0], 0.3)


def test_a_number_that_is_none_is_held_where_there_is_a_guard(start):
    server = start(lambda message: action(message, [[np.nan, 0.5]]), hello=greeting({"arm": robot(envelope=ENVELOPE)}))
    with PolicyClient(server.url) as client:
        answer = client.act(SEEN, "a")
    assert answer.held
    assert np.isfinite(answer.actions).all()


def test_a_guard_remembers_across_a_broken_connection(start):
    server = start(lambda message: action(message, [[0.3, 0.0]]), hello=greeting({"arm": robot(envelope=ENVELOPE)}))
    with PolicyClient(server.url) as client:
        client.act(SEEN, "a")
        server.drop()
        np.testing.assert_allclose(client.act(SEEN, "a", deadline_ms=30000).actions[0, 0], 0.2, atol=1e-6)


def rows(message):
    """A chunk of three that tells which answer it is of, and which of its actions."""
    return action(message, [[message["id"] / 10, step / 10] for step in range(3)])


def test_a_broker_plays_a_chunk_and_asks_anew(start):
    server = start(rows, hello=greeting({"arm": robot(chunk=3)}))
    with PolicyClient(server.url) as client:
        whole = ChunkBroker(client)
        played = [whole.act(SEEN, "a").tolist() for _ in range(4)]
        np.testing.assert_allclose(played, [[0.1, 0], [0.1, 0.1], [0.1, 0.2], [0.2, 0]], atol=1e-6)
        part = ChunkBroker(client, play=2)
        played = [part.act(SEEN, "a").tolist() for _ in range(3)]
        np.testing.assert_allclose(played, [[0.3, 0], [0.3, 0.1], [0.4, 0]], atol=1e-6)
        np.testing.assert_allclose(part.act(SEEN, "another").tolist(), [0.5, 0], atol=1e-6)
        part.reset()
        assert part.answer is None
        np.testing.assert_allclose(part.act(SEEN, "another").tolist(), [0.6, 0], atol=1e-6)
        with pytest.raises(UserError, match="play is 4, a chunk has 3"):
            ChunkBroker(client, play=4).act(SEEN, "a")
    with pytest.raises(UserError, match="play is 0"):
        ChunkBroker(client, play=0)


def test_the_rate_counts_from_what_was_played_of_a_chunk(start):
    server = start(
        lambda message: action(message, [[0, 0.1], [0, 0.2], [0, 0.3]] if message["id"] == 1 else [[0, 0.9]] * 3),
        hello=greeting({"arm": robot(chunk=3, envelope=ENVELOPE)}),
    )
    with PolicyClient(server.url) as client:
        broker = ChunkBroker(client, play=1)
        np.testing.assert_allclose(broker.act(SEEN, "a")[1], 0.1)
        np.testing.assert_allclose(broker.act(SEEN, "a")[1], 0.2, atol=1e-6)


def test_threads_wait_for_each_other_and_each_gets_its_own_answer(start):
    server = start(lambda message: action(message, [[float(message["instruction"]), 0.0]]))
    found = {}
    with PolicyClient(server.url) as client:

        def ask(number):
            found[number] = [client.act(SEEN, str(number / 8)).actions[0, 0] for _ in range(10)]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {number: [number / 8] * 10 for number in range(4)}


def test_close_wakes_who_waits_and_is_for_good(start):
    asked = threading.Event()

    def reply(message):
        asked.set()

    client = PolicyClient(start(reply).url, timeout=60)
    failed = []

    def act():
        try:
            client.act(SEEN, "a")
        except ConnectionLost as error:
            failed.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    asked.wait()
    client.close()
    thread.join()
    assert len(failed) == 1
    with pytest.raises(ConnectionLost, match="closed"):
        client.act(SEEN, "b")
    client.close()


ALONE = """
import importlib.abc, sys
KNOWN = set(sys.stdlib_module_names) | {"rt2_jax", "numpy", "msgpack", "websockets"}

class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in KNOWN and not name.startswith("_cython"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Nothing())
import rt2_jax.serve.client
from rt2_jax.serve.client import PolicyClient
from rt2_jax.actions.envelope import Envelope, Guard
with PolicyClient(sys.argv[1]) as client:
    import numpy as np
    print(client.act({"image": np.zeros((4, 4, 3), np.uint8)}, "a", deadline_ms=30000).actions.tolist())
print(*[name for name in ("jax", "msgspec", "PIL", "aiohttp", "rt2_jax.policy") if name in sys.modules])
"""


def test_it_runs_with_numpy_msgpack_and_websockets_alone(start):
    server = start(hello=greeting({"arm": robot(envelope=ENVELOPE)}))
    root = str(pathlib.Path(__file__).parents[2])
    env = os.environ | {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    ran = subprocess.run(
        [sys.executable, "-c", ALONE, server.url], capture_output=True, text=True, env=env, timeout=120
    )
    assert ran.stdout == "[[0.25, -0.5]]\n\n", ran.stderr
