"""Clients that lie, break off, crawl or never listen: each is answered or cut off, and nobody else notices."""

import asyncio
import base64
import io
import json
import socket
import struct
import time

import aiohttp
import numpy as np
import pytest
from PIL import Image

from rt2_jax.serve.auth import Keys, read_keys
from rt2_jax.serve.batcher import BatcherLimits
from rt2_jax.serve.limits import Limits
from rt2_jax.serve.wire import pack, unpack

KEY, OTHER, ADMIN = "k" * 32, "o" * 32, "a" * 32
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def limits(**fields):
    return Limits(rate=None, **({"batcher": BatcherLimits(window=0.0)} | fields))


async def works(kit, running, tag=321):
    """Whether another robot is served as if nothing had happened."""
    async with kit.Robot.connected(running.http) as robot:
        return (await robot.act(tag))["actions"][0, 0] == tag


async def raw(port, path="/v1/act"):
    """A WebSocket after its handshake, as plain streams."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HANDSHAKE.format(path=path).encode())
    assert b"101" in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def header(length, opcode=2, fin=True):
    """The head of a client's frame of `length` bytes, with a mask of zeros."""
    return struct.pack("!BBQ", fin << 7 | opcode, 0x80 | 127, length) + bytes(4)


async def until(condition, seconds=20):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def ended(reader):
    """What comes until the other side ends the connection."""
    async with asyncio.timeout(20):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


def test_a_client_killed_in_the_middle_of_a_frame_leaves_nothing(kit):
    async def run():
        async with kit.running() as running:
            for sent in (5, 10_000):
                _, writer = await raw(running.port)
                writer.write(header(20_000) + bytes(sent))
                await writer.drain()
                writer.transport.abort()
            assert await works(kit, running)
            await until(lambda: running.server.open_connections <= 1)
            assert running.service.engine.batcher.waiting == 0

    kit.really(run())


def test_a_client_killed_while_it_waits_is_forgotten(kit):
    async def run():
        release = asyncio.Event()
        loop = asyncio.get_running_loop()
        policy = kit.TagPolicy(before=lambda size: asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20))
        async with kit.running(policy, limits(deadline=30.0)) as running:
            batcher = running.service.engine.batcher
            async with kit.Robot.connected(running.http) as first:
                await first.send(1)
                await until(lambda: batcher.running == 1)
                gone = await running.http.ws_connect("/v1/act")
                await gone.receive_bytes()
                await kit.Robot(gone).send(2)
                await until(lambda: batcher.waiting == 1)
                gone._response.connection.transport.abort()
                await until(lambda: batcher.waiting == 0)
                release.set()
                assert (await first.receive())["actions"][0, 0] == 1
            assert [size for size, _, _ in policy.batches] == [1]

    kit.really(run())


def test_a_rest_client_that_went_is_not_computed_for(kit):
    async def run():
        release = asyncio.Event()
        loop = asyncio.get_running_loop()
        policy = kit.TagPolicy(before=lambda size: asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20))
        async with kit.running(policy, limits(deadline=30.0)) as running, kit.Robot.connected(running.http) as first:
            batcher = running.service.engine.batcher
            await first.send(1)
            await until(lambda: batcher.running == 1)
            image = {"__numpy__": base64.b64encode(bytes(192)).decode(), "dtype": "|u1", "shape": [8, 8, 3]}
            body = json.dumps({"image": image, "instruction": "x"}).encode()
            _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await until(lambda: batcher.waiting == 1)
            writer.transport.abort()
            await until(lambda: batcher.waiting == 0)
            release.set()
            assert (await first.receive())["actions"][0, 0] == 1
            assert len(policy.batches) == 1

    kit.really(run())


def test_a_message_of_a_gigabyte_is_refused_before_it_is_read(kit):
    async def run():
        async with kit.running(limits=limits(max_message=1 << 20)) as running:
            for parts in ([header(1 << 30)], [header(900_000, fin=False) + bytes(900_000), header(900_000, opcode=0)]):
                reader, writer = await raw(running.port)
                for part in parts:
                    writer.write(part)
                told = await ended(reader)
                assert struct.pack("!H", 1009) in told  # the close code for a message that is too big
                writer.close()
            async with running.http.post("/act", data=bytes(2 << 20)) as reply:
                assert (reply.status, (await reply.json())["error"]["code"]) == (413, "too_large")
            async with kit.Robot.connected(running.http) as robot:
                reply = await robot.act(1, images={"image": np.zeros((500, 500, 3), np.uint8)})
                assert reply["type"] == "action"
            assert await works(kit, running)

    kit.really(run())


def test_an_image_of_too_many_pixels_is_refused(kit):
    async def run():
        stream = io.BytesIO()
        Image.new("RGB", (3000, 3000)).save(stream, "PNG")  # 27 MB of pixels in a few kilobytes
        async with kit.running(limits=limits(max_pixels=2**20)) as running:
            async with kit.Robot.connected(running.http) as robot:
                reply = await robot.act(1, images={"image": {"encoded": stream.getvalue()}})
                assert (reply["code"], "3000 x 3000" in reply["message"]) == ("too_large", True)
                reply = await robot.act(1, images={"image": np.zeros((1500, 1000, 3), np.uint8)})
                assert (reply["code"], "1000 x 1500" in reply["message"]) == ("too_large", True)
                assert (await robot.act(1))["type"] == "action"

    kit.really(run())


def test_who_crawls_is_cut_off(kit):
    async def run():
        quick = limits(header_timeout=0.3, body_timeout=0.3)
        async with kit.running(limits=quick) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-")
            assert await ended(reader) == b""
            silent, keep = await asyncio.open_connection("127.0.0.1", running.port)
            assert await ended(silent) == b""
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            told = await ended(reader)
            assert b"400" in told.splitlines()[0] and b"no whole body within 0.3 s" in told
            keep.close()
            assert await works(kit, running)

    kit.really(run())


def test_a_half_open_connection_is_noticed(kit):
    async def run():
        async with kit.running(limits=limits(heartbeat=0.4)) as running:
            async with kit.Robot.connected(running.http) as robot:
                _, writer = await raw(running.port)  # answers no ping, as a robot whose network is gone
                await until(lambda: running.server.open_sessions == 2)
                listening = asyncio.create_task(robot.receive())  # and so answers pings
                await until(lambda: running.server.open_sessions == 1)
                await robot.send(5)
                assert (await listening)["actions"][0, 0] == 5
            writer.close()

    kit.really(run())


def test_a_client_that_takes_no_replies_is_cut_off(kit):
    async def run():
        policy = kit.TagPolicy(kit.arm(chunk=256))
        many = limits(send_timeout=0.3, batcher=BatcherLimits(max_lane=10_000, max_queue=10_000, window=0.0))
        async with kit.running(policy, many) as running:
            reader, writer = await raw(running.port)
            writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader._transport.pause_reading()
            message = {"type": "observation", "id": 1, "instruction": "x", "images": {"image": kit.frame(1)}}
            sent = pack(message)
            try:
                async with asyncio.timeout(20):
                    while running.server.open_sessions:
                        writer.write(header(len(sent)) + sent)
                        await writer.drain()
                        await asyncio.sleep(0)
            except ConnectionError:
                pass  # hung up on in the middle, as it may be
            assert await works(kit, running)
            await until(lambda: running.server.open_sessions == 0)
            writer.transport.abort()

    kit.really(run())


def test_a_fault_of_ours_tells_nothing_of_itself(kit, caplog):
    def fail(size):
        raise ValueError("secret path /home/robot")

    async def run():
        async with kit.running(kit.TagPolicy(before=fail)) as running:
            async with kit.Robot.connected(running.http) as robot:
                reply = await robot.act(1)
                assert reply["code"] == "internal" and "secret" not in json.dumps(reply)
            body = json.dumps({"images": {"image": 3}, "instruction": "x"})
            async with running.http.post("/act", data=body) as told:
                assert "Traceback" not in await told.text()
            async with running.http.get("/nothing/here") as told:
                assert (told.status, (await told.json())["error"]["code"]) == (404, "invalid")
            async with running.http.delete("/act") as told:
                assert told.status == 405

    kit.really(run())
    assert "secret path" in caplog.text  # the log has it


def test_without_its_key_nobody_gets_in(kit):
    keys = read_keys(None, {"RT2_API_KEYS": f"one:{KEY},{OTHER}", "RT2_ADMIN_KEY": ADMIN})

    async def run():
        async with kit.running(keys=keys) as running:
            http = running.http
            for given in (None, f"Api-Key {KEY[:-1]}", f"Bearer {KEY}x", "Basic !", "Api-Key", f"Api-Key {ADMIN}", "é"):
                headers = {"Authorization": given} if given else {}
                for path in ("/metrics", "/status.json", "/", "/nothing"):
                    async with http.get(path, headers=headers) as reply:
                        assert (reply.status, (await reply.json())["error"]["code"]) == (401, "unauthorized")
                async with http.post("/act", data=b"{}", headers=headers) as reply:
                    assert reply.status == 401
                for path in ("/v1/act", "/"):
                    with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                        await http.ws_connect(path, headers=headers)
            for path in ("/healthz", "/health", "/readyz"):
                async with http.get(path) as reply:
                    assert reply.status == 200
            basic = aiohttp.BasicAuth("anybody", KEY).encode()
            for given in (f"Api-Key {KEY}", f"Bearer {OTHER}", basic):
                async with kit.Robot.connected(http, headers={"Authorization": given}) as robot:
                    assert (await robot.act(3))["actions"][0, 0] == 3
            async with http.post("/admin/bundle", headers={"Authorization": f"Bearer {KEY}"}) as reply:
                assert reply.status == 401
            async with http.post("/admin/bundle", headers={"Authorization": f"Bearer {ADMIN}"}) as reply:
                assert reply.status == 200

    kit.really(run())


def test_a_page_of_another_site_is_refused(kit):
    async def run():
        async with kit.running() as running:
            for origin, status in (
                ("http://evil.example", 401),
                ("null", 401),
                (f"http://127.0.0.1:{running.port}", 200),
            ):
                async with running.http.get("/status.json", headers={"Origin": origin}) as reply:
                    assert reply.status == status
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                await running.http.ws_connect("/v1/act", headers={"Origin": "http://evil.example"})
            ours = {"Origin": f"http://127.0.0.1:{running.port}"}
            async with kit.Robot.connected(running.http, headers=ours) as robot:
                assert (await robot.act(3))["type"] == "action"

    kit.really(run())


def test_a_server_without_an_admin_key_exchanges_nothing(kit):
    async def run():
        async with kit.running() as running:
            for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {ADMIN}"}):
                async with running.http.post("/admin/bundle", headers=headers) as reply:
                    assert reply.status == 401

    kit.really(run())


def test_who_asks_too_often_is_told_so(kit):
    async def run():
        slow = Limits(rate=0.001, burst=3, key_rate=0.001, key_burst=5, batcher=BatcherLimits(window=0.0))
        async with kit.running(limits=slow) as running:
            async with kit.Robot.connected(running.http) as robot:
                replies = [await robot.act(number + 1) for number in range(4)]
                assert [reply["type"] for reply in replies] == ["action"] * 3 + ["error"]
                assert replies[3]["code"] == "rate"
                assert "0.001 requests a second of one connection" in replies[3]["message"]
            async with kit.Robot.connected(running.http) as robot:
                replies = [await robot.act(number + 1) for number in range(3)]
                assert "of this client" in replies[-1]["message"]

    kit.really(run())


def test_connections_are_counted(kit):
    async def run():
        async with kit.running(limits=limits(max_connections=3)) as running:
            async with kit.Robot.connected(running.http), kit.Robot.connected(running.http) as robot:
                async with running.http.get("/healthz") as reply:
                    assert reply.status == 200
                async with kit.Robot.connected(running.http):
                    with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                        await running.http.ws_connect("/v1/act")
                assert (await robot.act(3))["type"] == "action"

    kit.really(run())


def test_nobody_gets_anothers_action(kit):
    """Robots of every dialect at once, some of whom go in the middle, others with deadlines that cannot be met."""

    async def run():
        policy = kit.TagPolicy(before=lambda size: time.sleep(0.002))
        many = limits(batcher=BatcherLimits(max_batch=8, window=0.002), deadline=5.0)
        async with kit.running(policy, many) as running:
            rng = np.random.default_rng(0)
            answers = collected = 0

            async def native(number):
                nonlocal answers
                async with kit.Robot.connected(running.http) as robot:
                    for step in range(20):
                        tag = 1000 * number + step + 1
                        reply = await robot.act(tag, deadline_ms=float(rng.choice([1.0, 4000.0])))
                        assert reply["id"] == robot.number
                        assert reply.get("code") == "stale" or reply["actions"][0, 0] == tag
                        answers += reply["type"] == "action"

            async def openpi(number):
                async with running.http.ws_connect("/") as found:
                    await found.receive_bytes()
                    for step in range(20):
                        tag = 1000 * number + step + 1
                        await found.send_bytes(pack({"observation/image": kit.frame(tag), "prompt": "x"}))
                        assert unpack(await found.receive_bytes())["actions"][0, 0] == tag

            async def pipelined(number):
                nonlocal collected
                async with kit.Robot.connected(running.http) as robot:
                    tags = [1000 * number + step + 1 for step in range(30)]
                    for tag in tags:
                        await robot.send(tag)
                    for _ in tags:
                        reply = await robot.receive()
                        assert reply.get("code") == "busy" or reply["actions"][0, 0] == tags[reply["id"] - 1]
                        collected += reply["type"] == "action"

            async def leaving(number):
                for step in range(10):
                    found = await running.http.ws_connect("/v1/act")
                    await found.receive_bytes()
                    await kit.Robot(found).send(1000 * number + step + 1)
                    found._response.connection.transport.abort()

            kinds = [native, openpi, pipelined, leaving]
            await asyncio.gather(*(kinds[number % 4](number + 1) for number in range(16)))
            assert answers and collected
            assert any(size > 1 for size, _, _ in policy.batches)

    kit.really(run())


def test_keys_are_read_with_care(tmp_path):
    from rt2_jax.errors import UserError

    file = tmp_path / "keys"
    file.write_text(f"# robots\n\none: {KEY}\n{OTHER}\n")
    keys = read_keys(file, {"RT2_API_KEYS": f"three:{'t' * 16}"})
    assert [keys.client(f"Bearer {key}") for key in (KEY, OTHER, "t" * 16, "x" * 16)] == ["one", "key2", "three", None]
    assert not keys.is_admin(f"Bearer {KEY}") and Keys().client(None) is None
    for text, message in (
        ("one:short", "5 characters"),
        (f"one:{KEY}\none:{OTHER}", "'one' stands twice"),
        (f"one:{KEY}\ntwo:{KEY}", "'two' stands twice"),
        ("# nobody\n", "holds no key"),
        (f"one:{KEY} {KEY}", "without spaces"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            read_keys(file, {})
    with pytest.raises(UserError, match="does not exist"):
        read_keys(tmp_path / "none", {})
