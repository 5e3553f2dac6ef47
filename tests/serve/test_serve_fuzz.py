"""Fuzzers of all that reads what a client sent: whatever it is, it is understood, or refused and never "internal".

Each runs briefly here; `make test-serve-faults` runs them for ten minutes (RT2_FUZZ_SECONDS), with new seeds each time.
"""

import asyncio
import base64
import json
import os
import struct
import time

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.serve.dialects import openvla
from rt2_jax.serve.dialects.contract import Misread
from rt2_jax.serve.dialects.native import Native
from rt2_jax.serve.dialects.root import Root
from rt2_jax.serve.refusal import refusal_of
from rt2_jax.serve.session import Session
from rt2_jax.serve.wire import pack

SECONDS = float(os.environ.get("RT2_FUZZ_SECONDS", "600"))
FRAME = np.zeros((8, 8, 3), np.uint8)
JPEG = encode_jpeg(FRAME)

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.booleans() | st.none()
LEAVES = NUMBERS | st.text(max_size=20) | st.binary(max_size=20)
ARRAYS = st.fixed_dictionaries(
    {},
    optional={
        "__ndarray__": st.booleans(),
        "__image__": st.booleans(),
        "data": st.binary(max_size=200) | st.just(FRAME.tobytes()) | st.just(JPEG),
        "dtype": st.sampled_from(["<f4", "|u1", "|O", "<f8", "V8", "<M8[s]", "(3,)f4", "f4,f4", ">i2", "|S3"]) | LEAVES,
        "shape": st.lists(st.integers(-3, 2**40), max_size=5) | st.just([8, 8, 3]) | LEAVES,
        "format": st.sampled_from(["png", "jpeg", "raw", "gif"]) | LEAVES,
        "encoded": st.binary(max_size=200) | st.just(JPEG) | LEAVES,
    },
)
VALUES = st.recursive(
    LEAVES | ARRAYS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
NAMES = (
    "type", "payload", "seq", "timestamp", "id", "images", "image", "instruction", "embodiment", "mode", "state",
    "deadline_ms", "prompt", "observation/image", "observation/state", "task_description", "states", "reset", "session",
    "unnorm_key", "encoded",
)  # fmt: skip
KNOWN = (
    st.sampled_from(
        ["hello", "observation", "episode_start", "episode_end", "reset", "action", "plan", "arm", "pick it"]
    )
    | st.just({"image": FRAME})
    | st.just(FRAME)
    | st.just({"image": {"encoded": JPEG}})
)
MESSAGES = st.dictionaries(st.sampled_from(NAMES), KNOWN | VALUES, max_size=8)
FINE = (
    {"type": "observation", "id": 1, "instruction": "pick it", "images": {"image": FRAME}, "state": np.zeros(2)},
    {"observation/image": FRAME, "observation/state": np.zeros(2, np.float32), "prompt": "pick it"},
    {"type": "observation", "payload": {"images": {"x": {"__image__": True, "format": "jpeg", "data": JPEG,
     "shape": [8, 8, 3]}}, "task_description": "pick it"}, "seq": 1, "timestamp": 0.0},
)  # fmt: skip


def packed(message):
    """A message with keys that openpi writes as bytes in both forms."""
    try:
        return pack(message)
    except ValueError:
        return msgpack.packb(repr(message))


@st.composite
def mangled(draw):
    """A good message with bytes of it changed, left out or put in."""
    data = bytearray(pack(draw(st.sampled_from(FINE))))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(data)


BYTES = st.binary(max_size=300) | mangled() | MESSAGES.map(packed) | VALUES.map(packed)


def plain(value):
    """A value as JSON has it."""
    if isinstance(value, np.ndarray):
        coded = base64.b64encode(value.tobytes()).decode()
        return {"__numpy__": coded, "dtype": value.dtype.str, "shape": list(value.shape)}
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


JSON = st.binary(max_size=300) | (MESSAGES | VALUES).map(lambda value: json.dumps(value, default=plain).encode())


class Readers:
    """The dialects and a session, without a server around them."""

    def __init__(self, kit):
        self.serving = kit.serving(kit.TagPolicy(kit.arm(history=2)))
        self.session = Session("fuzz", "fuzz", None, {}, 2**20)

    def see(self, observation):
        row = self.session.see(self.serving, observation)
        assert row.images.shape == (2, 8, 8, 3) and row.images.dtype == np.uint8

    def socket(self, data):
        root = Root(1 << 20)
        root.greeting(self.serving, 1.0)
        for dialect in (Native(1.0, 1 << 20), root):
            for _ in range(2):  # the second message of a connection is read otherwise than the first
                try:
                    heard = dialect.read(data)
                    if heard.observation is not None:
                        self.see(heard.observation)
                except Misread as error:
                    self.refused(error.cause)
                except Exception as error:
                    self.refused(error)

    def rest(self, data):
        try:
            self.see(openvla.read_json(data, 1.0).observation)
        except Exception as error:
            self.refused(error)

    def form(self, fields):
        texts, files = fields
        try:
            self.see(openvla.read_form(texts, files, 1.0).observation)
        except Exception as error:
            self.refused(error)

    @staticmethod
    def refused(error):
        refusal = refusal_of(error)
        if refusal.code not in ("invalid", "too_large"):
            raise error
        assert refusal.message and len(refusal.message) < 2000


FORMS = st.tuples(
    st.dictionaries(st.sampled_from(NAMES), st.text(max_size=30), max_size=6),
    st.dictionaries(st.sampled_from(["image", "x"]), st.binary(max_size=50) | st.just(JPEG), max_size=2),
)
TARGETS = {"socket": BYTES, "rest": JSON, "form": FORMS}


def fuzz(target, strategy, examples, number=0):
    """Tries `target` on `examples` values of `strategy`; the same ones for the same number."""

    @seed(number)
    @settings(
        max_examples=examples, database=None, derandomize=False, deadline=None,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    @given(strategy)
    def attempt(value):
        target(value)

    attempt()


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_is_sent_is_understood_or_refused(kit, name):
    fuzz(getattr(Readers(kit), name), TARGETS[name], 300)


class Attacker:
    """A server on a real socket, and what is thrown at it; after every throw another robot is served."""

    def __init__(self, kit, running, loop):
        self.kit, self.running, self.loop = kit, running, loop

    def __call__(self, thrown):
        asyncio.run_coroutine_threadsafe(self._throw(*thrown), self.loop).result(60)

    async def _throw(self, kind, data):
        if kind == "tcp":
            reader, writer = await asyncio.open_connection("127.0.0.1", self.running.port)
            writer.write(data)
            writer.write_eof()
            with_answer = asyncio.timeout(20)
            try:
                async with with_answer:
                    assert b"Traceback" not in await reader.read()
            except ConnectionError:
                pass  # the server may hang up on such bytes; what counts is that it lives, which is asked below
            writer.close()
        elif kind == "rest":
            async with self.running.http.post("/act", data=data) as reply:
                assert reply.status < 500 or reply.status in (503, 504), await reply.text()
        else:
            async with self.running.http.ws_connect("/" if kind == "root" else "/v1/act") as socket:
                await socket.receive_bytes(timeout=20)
                for _ in range(2):
                    await socket.send_bytes(data)
                await socket.close()
        async with self.kit.Robot.connected(self.running.http) as robot:
            assert (await robot.act(7))["actions"][0, 0] == 7
        for line in self.running.service.metrics.exposition().decode().splitlines():
            assert not (line.startswith("rt2_refusals_total") and 'code="internal"' in line), line


@st.composite
def frames(draw):
    """Bytes of WebSocket frames after a handshake, or of HTTP, good or bad."""
    head = b"GET %s HTTP/1.1\r\nHost: x\r\n" % draw(st.sampled_from([b"/", b"/v1/act", b"/act", b"/\xff", b"*"]))
    if draw(st.booleans()):
        head += b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        head += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    head += draw(st.binary(max_size=20)) + b"\r\n"
    for _ in range(draw(st.integers(0, 3))):
        body = draw(BYTES)
        length = draw(st.sampled_from([len(body), 2**40, 2**63])) if draw(st.booleans()) else len(body)
        head += struct.pack("!BBQ", draw(st.integers(0, 255)), 0x80 | 127, length) + bytes(4) + body
    return head


THROWN = (
    st.tuples(st.just("tcp"), frames() | st.binary(max_size=100))
    | st.tuples(st.just("rest"), JSON)
    | st.tuples(st.sampled_from(["root", "native"]), BYTES)
)


def attack(kit, throws):
    """Runs `throws(attacker)` in a thread, beside a server."""

    async def run():
        async with kit.running(kit.TagPolicy(kit.arm(history=2))) as running:
            loop = asyncio.get_running_loop()
            await asyncio.to_thread(throws, Attacker(kit, running, loop))

    asyncio.run(run())


def test_a_server_outlives_what_is_thrown_at_it(kit):
    attack(kit, lambda attacker: fuzz(attacker, THROWN, 60))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TARGETS, "server"])
def test_for_minutes(kit, name):
    """Its share of RT2_FUZZ_SECONDS; a failure names the seed and shows what was sent."""
    end, number = time.monotonic() + SECONDS / (len(TARGETS) + 1), time.time_ns()

    def throws(target):
        nonlocal number
        while time.monotonic() < end:
            fuzz(target, TARGETS.get(name, THROWN), 500, number)
            number += 1

    if name == "server":
        attack(kit, throws)
    else:
        throws(getattr(Readers(kit), name))
