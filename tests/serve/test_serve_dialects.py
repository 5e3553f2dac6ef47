"""Each dialect word for word over real sockets, and what each refuses."""

import asyncio
import base64
import io
import json

import aiohttp
import numpy as np
import pytest
from PIL import Image

from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.serve.wire import pack, unpack


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def coded(array):
    """An array as json-numpy writes it."""
    return {
        "__numpy__": base64.b64encode(array.tobytes()).decode(),
        "dtype": array.dtype.str,
        "shape": list(array.shape),
    }


def uncoded(fields):
    return np.frombuffer(base64.b64decode(fields["__numpy__"]), fields["dtype"]).reshape(fields["shape"])


def test_native_says_who_it_is_and_answers_each_frame_with_its_own_action(kit):
    async def run():
        policy = kit.TagPolicy(kit.arm(control_hz=3.0))
        async with kit.running(policy) as running, kit.Robot.connected(running.http) as robot:
            hello = robot.hello
            assert {key: hello[key] for key in ("type", "protocol", "bundle", "modes", "deadline_ms")} == {
                "type": "hello", "protocol": 1, "bundle": "a" * 64, "modes": ["action", "plan"], "deadline_ms": 1000.0,
            }  # fmt: skip
            assert hello["embodiments"] == {
                "arm": {
                    "cameras": ["image"], "history": 1, "chunk": 1, "control_hz": 3.0, "proprioception": None,
                    "action": {
                        "names": ["tag", "moments", "told"], "low": [0, 0, -1e6], "high": [kit.TAGS, 64, 1e6],
                        "units": ["", "", ""], "kinds": ["continuous"] * 3,
                    },
                    "envelope": None,
                }
            }  # fmt: skip
            reply = await robot.act(77)
            assert (reply["type"], reply["id"], reply["text"]) == ("action", 1, "action: pick it")
            assert reply["actions"].dtype == np.float32 and reply["actions"].tolist() == [[77, 1, 0]]
            assert reply["bins"].dtype == np.int32 and reply["bins"].shape == (1, 3)
            assert reply["logprob"] == -1.0 and reply["envelope"] == {"limited": [], "held": False}
            assert 0 <= reply["timing"]["queue_ms"] <= reply["timing"]["total_ms"]
            reply = await robot.act(78, mode="plan", embodiment="arm", deadline_ms=900.0)
            assert (reply["text"], reply["actions"][0, 0]) == ("plan: pick it", 78)

    kit.really(run())


@pytest.mark.parametrize("form", [png, encode_jpeg])
def test_native_takes_files_and_any_size(kit, form):
    async def run():
        async with kit.running() as running, kit.Robot.connected(running.http) as robot:
            image = kit.frame(0x808080, 40)
            reply = await robot.act(0, images={"image": {"encoded": form(image)}})
            assert reply["actions"][0, 0] == 0x808080
            # One camera on each side is the same one, whatever either calls it.
            reply = await robot.act(0, images={"wrist": kit.frame(5, 13)})
            assert reply["actions"][0, 0] == 5

    kit.really(run())


def test_native_keeps_a_history_until_it_is_reset(kit):
    async def run():
        policy = kit.TagPolicy(kit.arm(cameras=("top", "wrist"), history=3, state=2))
        state = np.array([0.25, 0.5], np.float32)

        async def act(robot, tag):
            images = {"wrist": kit.frame(9), "top": kit.frame(tag)}
            return (await robot.act(tag, images=images, state=state))["actions"][0].tolist()

        async with kit.running(policy) as running, kit.Robot.connected(running.http) as robot:
            assert [await act(robot, tag) for tag in (3, 4, 5, 6)] == [
                [3, 1, 0.25], [4, 2, 0.25], [5, 3, 0.25], [6, 3, 0.25]
            ]  # fmt: skip
            async with kit.Robot.connected(running.http) as other:
                assert await act(other, 7) == [7, 1, 0.25]
            await robot.socket.send_bytes(pack({"type": "reset"}))
            assert await act(robot, 8) == [8, 1, 0.25]

    kit.really(run())


STATE = np.zeros(2, np.float32)
WRONG = {
    "no camera": ({"images": {"top": np.zeros((8, 8, 3), np.uint8)}}, "camera 'wrist' is missing"),
    "an unknown camera": (
        {"images": {name: np.zeros((8, 8, 3), np.uint8) for name in ("top", "wrist", "x")}},
        "'x' is",
    ),
    "no images": ({"images": {}}, "images is a dict"),
    "channels first": ({"images": {name: np.zeros((3, 8, 8), np.uint8) for name in ("top", "wrist")}}, "channels last"),
    "floats": ({"images": {name: np.zeros((8, 8, 3)) for name in ("top", "wrist")}}, "camera 'top': dtype float64"),
    "a batch": ({"images": {name: np.zeros((1, 8, 8, 3), np.uint8) for name in ("top", "wrist")}}, "needs [H, W, 3]"),
    "no pixel": ({"images": {name: np.zeros((0, 8, 3), np.uint8) for name in ("top", "wrist")}}, "no pixel"),
    "a text as frame": ({"images": {"top": "x", "wrist": "x"}}, "camera 'top' is 'x'"),
    "a broken file": ({"images": {name: {"encoded": b"no image"} for name in ("top", "wrist")}}, "do not decode"),
    "no state": ({"state": None}, "send a state: joint0, joint1"),
    "another state": ({"state": np.zeros(3, np.float32)}, "needs float[2]: joint0, joint1"),
    "a NaN": ({"state": np.array([0, np.nan])}, "joint1 is nan"),
    "an infinity": ({"state": np.array([1e39, 0])}, "joint0 is 1e+39"),
    "a state of booleans": ({"state": np.zeros(2, bool)}, "state: bool[2]"),
    "a state of text": ({"state": ["a", "b"]}, "state is a list"),
    "no instruction": ({"instruction": None}, "instruction is missing"),
    "an empty instruction": ({"instruction": " \n "}, "instruction is empty"),
    "a number as instruction": ({"instruction": 3}, "instruction is a int"),
    "a long instruction": ({"instruction": "cube " * 500}, "the limit is 64"),
    "an unknown embodiment": ({"embodiment": "spot"}, "embodiment 'spot' is not served; choose of: arm"),
    "an unknown mode": ({"mode": "text"}, "mode 'text' is not served"),
    "a deadline of 0": ({"deadline_ms": 0}, "deadline_ms"),
    "a deadline of NaN": ({"deadline_ms": float("nan")}, "deadline_ms is nan"),
    "no number": ({"id": "one"}, "id is 'one'"),
}


def test_native_refuses_by_name_what_it_cannot_act_on_and_goes_on(kit):
    async def run():
        policy = kit.TagPolicy(kit.arm(cameras=("top", "wrist"), history=2, state=2))
        fine = {"images": {"top": kit.frame(4), "wrist": kit.frame(9)}, "state": STATE}
        async with kit.running(policy) as running, kit.Robot.connected(running.http) as robot:
            for what, (fields, message) in WRONG.items():
                reply = await robot.act(4, **(fine | fields))
                assert (reply["type"], reply["code"]) == ("error", "invalid"), what
                assert message in reply["message"], f"{what}: {reply['message']}"
                assert reply["id"] == (None if what == "no number" else robot.number)
            reply = await robot.act(4, **fine)  # nothing of all that is in the history
            assert reply["actions"][0].tolist() == [4, 1, 0]
            assert policy.batches == [(1, "action", "arm")]

    kit.really(run())


def test_native_refuses_what_is_no_message(kit):
    async def run():
        async with kit.running() as running, kit.Robot.connected(running.http) as robot:
            for message in (b"", b"\xc1", b"\x81", pack(3), pack({"type": "hello"}), pack({b"type": "reset"})):
                await robot.socket.send_bytes(message)
                reply = await robot.receive()
                assert (reply["type"], reply["id"], reply["code"]) == ("error", None, "invalid"), message
            await robot.socket.send_str("hello")
            assert "binary frames" in (await robot.receive())["message"]
            state = await robot.act(5, state=STATE)
            assert (state["code"], "no proprioception" in state["message"]) == ("invalid", True)
            assert (await robot.act(5))["actions"][0, 0] == 5

    kit.really(run())


def test_openpi_gets_metadata_then_a_map_for_a_map(kit):
    async def run():
        policy = kit.TagPolicy(kit.arm(cameras=("image", "wrist_image"), chunk=3, state=1))
        async with kit.running(policy) as running, running.http.ws_connect("/") as socket:
            metadata = unpack(await socket.receive_bytes())
            assert metadata["bundle"] == "a" * 64 and metadata["embodiments"]["arm"]["chunk"] == 3
            observation = {
                "observation/image": kit.frame(6),
                "observation/wrist_image": kit.frame(7),
                "observation/exterior_image_2_left": kit.frame(8),  # what an embodiment does not see is left out
                "observation/state": np.array([0.5]),
                "prompt": "pick it",
            }
            await socket.send_bytes(pack(observation))
            reply = unpack(await socket.receive_bytes())
            assert reply["actions"].tolist() == [[6, 1, 0.5], [7, 1, 0.5], [8, 1, 0.5]]
            assert set(reply["server_timing"]) == {"queue_ms", "infer_ms", "total_ms"}
            await socket.send_bytes(pack({"images": {"image": kit.frame(2), "wrist_image": kit.frame(3)},
                                          "state": np.array([0.5]), "prompt": "pick it", "mode": "plan"}))  # fmt: skip
            assert unpack(await socket.receive_bytes())["text"] == "plan: pick it"
            for wrong, told in (
                ({"observation/image": kit.frame(6).transpose(2, 0, 1)}, "channels last"),
                ({"prompt": None}, "prompt is missing"),
                ({"observation/wrist_image": 3}, "camera 'wrist_image' is missing"),
            ):
                await socket.send_bytes(pack(observation | wrong))
                text = await socket.receive_str()  # at which openpi-client raises
                assert text.startswith("invalid: ") and told in text

    kit.really(run())


def test_vla_eval_drives_episodes(kit):
    async def run():
        policy = kit.TagPolicy(kit.arm(cameras=("image",), history=2, chunk=2, state=1))
        async with kit.running(policy, aliases={"agentview": "image"}) as running:
            async with running.http.ws_connect("/") as socket:
                seq = 0

                async def send(kind, payload):
                    nonlocal seq
                    seq += 1
                    message = {"type": kind, "payload": payload, "seq": seq, "timestamp": 1.5}
                    await socket.send_bytes(pack(message, "vla_eval"))

                async def receive():
                    message = unpack(await socket.receive_bytes())
                    assert set(message) >= {"type", "payload", "seq", "timestamp"}
                    return message

                def observed(tag):
                    image = {"__image__": True, "format": "png", "data": png(kit.frame(tag)), "shape": [8, 8, 3]}
                    other = {"__image__": True, "format": "jpeg", "data": encode_jpeg(kit.frame(9)), "shape": [8, 8, 3]}
                    return {"images": {"agentview": image, "wrist": other}, "task_description": "pick it",
                            "states": np.array([0.5])}  # fmt: skip

                await send("hello", {"harness_version": "0.8.0", "protocol_version": 1, "benchmark": "b"})
                hello = await receive()
                assert hello["type"] == "hello" and hello["payload"]["protocol_version"] == 1
                assert hello["payload"]["observation_params"] == {"send_state": True}
                for _ in range(2):
                    await send("episode_start", {"task": {"name": "t"}, "recording": {}})
                    actions = []
                    for tag in (11, 21, 31):
                        await send("observation", observed(tag))
                        message = await receive()
                        assert (message["type"], message["seq"]) == ("action", seq)
                        assert message["payload"]["actions"].shape == (3,)
                        actions.append(message["payload"]["actions"].tolist())
                    # The second action is the rest of the first chunk; the third is a new one, and saw two moments.
                    assert actions == [[11, 1, 0.5], [12, 1, 0.5], [31, 2, 0.5]]
                    await send("episode_end", {"metrics": {"success": True}, "steps": 3})
                await send("observation", observed(11) | {"images": {}})
                message = await receive()
                assert (message["type"], message["seq"]) == ("error", seq)
                assert message["payload"]["error"].startswith("invalid: images")
                await send("hello", {})
                assert (await receive())["seq"] == seq
                await send("dance", {})
                assert "type 'dance'" in (await receive())["payload"]["error"]

    kit.really(run())


def test_both_dialects_of_the_root_at_once(kit):
    async def run():
        async with kit.running() as running:
            async with running.http.ws_connect("/") as one, running.http.ws_connect("/") as other:
                await one.receive_bytes()
                await other.receive_bytes()
                observation = {"images": {"x": kit.frame(4)}, "task_description": "pick it"}
                message = {"type": "observation", "payload": observation, "seq": 1, "timestamp": 0.0}
                await one.send_bytes(pack(message, "vla_eval"))
                await other.send_bytes(pack({"observation/image": kit.frame(5), "prompt": "pick it"}))
                assert unpack(await one.receive_bytes())["payload"]["actions"][0] == 4
                assert unpack(await other.receive_bytes())["actions"][0, 0] == 5
                async with running.http.get("/") as page:
                    assert page.status == 200

    kit.really(run())


def test_openvla_is_answered_as_it_asks(kit):
    async def run():
        async with kit.running() as running:
            request = {"image": coded(kit.frame(55, 32)), "instruction": "pick it"}
            for body in (request, request | {"unnorm_key": None}, request | {"unnorm_key": "arm"}):
                async with running.http.post("/act", json=body) as reply:
                    assert reply.status == 200
                    assert uncoded(await reply.json()).tolist() == [55, 1, 0]
            async with running.http.post("/act", json={"encoded": json.dumps(request)}) as reply:
                assert uncoded(json.loads(await reply.json())).tolist() == [55, 1, 0]
            frames = {"image": {"encoded": base64.b64encode(png(kit.frame(56))).decode()}}
            async with running.http.post("/act", json={"images": frames, "instruction": "pick it"}) as reply:
                assert uncoded(await reply.json())[0] == 56

    kit.really(run())


def test_a_form_with_a_picture_is_answered_in_plain_json(kit):
    async def run():
        async with kit.running(kit.TagPolicy(kit.arm(state=1))) as running:
            form = aiohttp.FormData({"instruction": "pick it", "mode": "plan", "state": "[0.5]"})
            form.add_field("image", encode_jpeg(kit.frame(0x404040)), filename="a.jpg", content_type="image/jpeg")
            async with running.http.post("/act", data=form) as reply:
                told = await reply.json()
                assert (reply.status, told["actions"], told["text"]) == (
                    200, [[0x404040, 1, 0.5]], "plan: pick it"
                )  # fmt: skip

    kit.really(run())


def test_rest_keeps_the_frames_of_a_session_that_is_named(kit):
    async def run():
        async with kit.running(kit.TagPolicy(kit.arm(history=3))) as running:

            async def act(tag, **fields):
                body = {"image": coded(kit.frame(tag)), "instruction": "pick it"} | fields
                async with running.http.post("/act", json=body) as reply:
                    return uncoded(await reply.json()).tolist()[:2]

            assert [await act(1), await act(2)] == [[1, 1], [2, 1]]
            assert [await act(tag, session="a") for tag in (1, 2, 3)] == [[1, 1], [2, 2], [3, 3]]
            assert [await act(4, session="b"), await act(5, session="a", reset=True)] == [[4, 1], [5, 1]]

    kit.really(run())


REST_WRONG = {
    "no JSON": (b"{", "body is no JSON"),
    "a list": (b"[]", "body is a list"),
    "no image": (b'{"instruction": "x"}', "image is missing"),
    "no instruction": (json.dumps({"image": coded(np.zeros((8, 8, 3), np.uint8))}).encode(), "instruction is missing"),
    "no base64": (json.dumps({"image": {"__numpy__": "%%", "dtype": "|u1", "shape": [1]}}).encode(), "no base64"),
    "a lying shape": (
        json.dumps({"image": coded(np.zeros((8, 8, 3), np.uint8)) | {"shape": [9, 9, 3]}, "instruction": "x"}).encode(),
        "192 bytes",
    ),
    "objects": (
        json.dumps({"image": coded(np.zeros((8, 8, 3), np.uint8)) | {"dtype": "|O"}, "instruction": "x"}).encode(),
        "dtype '|O'",
    ),
    "deep": (b"[" * 100_000, "body is no JSON"),
}


@pytest.mark.parametrize("what", REST_WRONG)
def test_openvla_is_refused_by_name(kit, what):
    body, message = REST_WRONG[what]

    async def run():
        async with kit.running() as running, running.http.post("/act", data=body) as reply:
            told = (await reply.json())["error"]
            assert (reply.status, told["code"]) == (400, "invalid")
            assert message in told["message"]

    kit.really(run())


def test_robots_of_two_embodiments_share_a_server_and_no_batch(kit):
    async def run():
        policy = kit.TagPolicy(kit.arm("one"), kit.arm("two", history=2), kit.arm("three", cameras=("a", "b"), chunk=2))
        policy.embodiments["two"] = kit.arm("two", state=1)
        async with kit.running(policy, embodiment="one") as running:
            async with kit.Robot.connected(running.http) as robot:
                replies = await asyncio.gather(*(_act(kit, running, number) for number in range(12)))
                assert all(replies)
                assert (await robot.act(4))["actions"][0, 0] == 4
                reply = await robot.act(4, embodiment="four")
                assert "choose of: one, two, three" in reply["message"]
        assert {name for _, _, name in policy.batches} == {"one", "two", "three"}

    kit.really(run())


async def _act(kit, running, number):
    fields = [
        {"embodiment": "one"},
        {"embodiment": "two", "state": np.array([0.5])},
        {"embodiment": "three", "images": {"a": kit.frame(number + 1), "b": kit.frame(3)}, "mode": "plan"},
    ][number % 3]
    async with kit.Robot.connected(running.http) as robot:
        reply = await robot.act(number + 1, **fields)
        return reply["actions"][0, 0] == number + 1
