"""What a session remembers: the chunk that is carried out, and what keeps the robot inside its envelope."""

import asyncio

import numpy as np
import pytest

from rt2_jax.actions.envelope import Bounds, Envelope
from rt2_jax.serve.client import PolicyClient
from rt2_jax.serve.engine import Acted, Serving
from rt2_jax.serve.failures import InvalidRequest
from rt2_jax.serve.observation import Observation
from rt2_jax.serve.session import Session

ENVELOPE = Envelope(
    step={"tag": (0.0, 10.0)},
    workspace={"joint0": Bounds(-0.5, 0.5)},
    still={"tag": 0.0, "moments": 0.0, "told": 0.0},
)


def serving(kit, envelope=ENVELOPE, **fields):
    plain = kit.serving(kit.TagPolicy(kit.arm(state=1, **fields)))
    return Serving(plain.policy, plain.identity, plain.path, envelopes={"arm": envelope} if envelope else {})


def acted(tags):
    chunk = np.array([[tag, 1, 0] for tag in tags], np.float32)
    return Acted(chunk, np.zeros(chunk.shape, np.int32), "", -1.0, None)


def see(kit, session, served, tag=1, state=0.0, **fields):
    image, told = {"image": kit.frame(tag)}, np.array([state])
    return session.see(served, Observation(image, "pick it", state=told, **fields))


def test_a_chunk_is_held_inside_its_envelope(kit):
    served, session = serving(kit, chunk=3), Session("native", "x", None, {}, 2**20)
    answer = session.answer(served, see(kit, session, served), acted([5, 20, 7]))
    assert answer.actions[:, 0].tolist() == [5, 10, 7] and (answer.limited, answer.held) == (("tag",), False)
    answer = session.answer(served, see(kit, session, served, state=0.9), acted([5, 6, 7]))
    assert answer.actions[:, 0].tolist() == [0, 0, 0] and (answer.limited, answer.held) == (("joint0",), True)


def test_actions_handed_out_one_by_one_are_guarded_with_the_state_of_their_moment(kit):
    served, session = serving(kit, chunk=3), Session("vla-eval", "x", None, {}, 2**20)
    first = session.first_of_chunk(served, see(kit, session, served), acted([5, 20, 7]), None)
    assert first.actions.tolist() == [[5, 1, 0]] and not first.limited
    second = session.next_of_chunk(served, see(kit, session, served))
    assert second.actions[0, 0] == 10 and second.limited == ("tag",)
    third = session.next_of_chunk(served, see(kit, session, served, state=0.9))
    assert third.actions[0, 0] == 0 and third.held
    assert session.next_of_chunk(served, see(kit, session, served)) is None
    first = session.first_of_chunk(served, see(kit, session, served), acted([5, 6, 7]), 2)
    assert session.next_of_chunk(served, see(kit, session, served)).actions[0, 0] == 6
    assert session.next_of_chunk(served, see(kit, session, served)) is None


@pytest.mark.parametrize("rate", [True, False])
def test_the_guard_remembers_an_episode_and_no_longer(kit, rate):
    limits = {"rate": {"tag": 2.0}} if rate else {}
    envelope = Envelope(still={"tag": None, "moments": 0.0, "told": 0.0}, **limits)
    served, session = serving(kit, envelope), Session("native", "x", None, {}, 2**20)

    def act(tag, **fields):
        return session.answer(served, see(kit, session, served, **fields), acted([tag])).actions[0, 0]

    assert [act(1), act(9), act(9, carried_out=0)] == ([1, 3, 3] if rate else [1, 9, 9])
    session.reset()
    assert act(9) == 9


def test_a_bundle_without_that_envelope_takes_the_guard_away(kit):
    served, session = serving(kit), Session("native", "x", None, {}, 2**20)
    assert session.answer(served, see(kit, session, served), acted([20])).actions[0, 0] == 10
    other = serving(kit, None)
    assert session.answer(other, see(kit, session, other), acted([20])).actions[0, 0] == 20
    wider = serving(kit, Envelope(step={"tag": (0.0, 15.0)}, still=ENVELOPE.still))
    assert session.answer(wider, see(kit, session, wider), acted([20])).actions[0, 0] == 15


def test_our_client_drives_a_robot_through_the_server(kit):
    """Greeting, frames, state, plan, history, refusals and the envelope on both sides, over a real socket."""

    def drive(port):
        with PolicyClient(f"ws://127.0.0.1:{port}") as client:
            robot = client.greeting.robot("arm")
            assert robot.cameras == ("image",) and robot.envelope == ENVELOPE
            answer = client.act({"image": kit.frame(4)}, "pick it", state=np.array([0.25]))
            assert answer.actions[0].tolist() == [4, 1, 0.25] and answer.text == "action: pick it"
            answer = client.act({"image": kit.frame(400)}, "pick it", state=np.array([0.25]), mode="plan")
            assert answer.actions[0].tolist() == [10, 2, 0.25] and answer.server_limited == ("tag",)
            client.reset()
            assert client.act({"image": kit.frame(4)}, "pick it", state=np.array([0.0])).actions[0, 1] == 1
            with pytest.raises(InvalidRequest, match="limit is 64"):
                client.act({"image": kit.frame(4)}, "cube " * 500, state=np.array([0.0]))

    async def run():
        async with kit.running(served=serving(kit, history=2)) as running:
            await asyncio.to_thread(drive, running.port)

    kit.really(run())
