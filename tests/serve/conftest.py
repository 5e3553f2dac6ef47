"""A policy whose actions tell which frames they are of, and servers with it on real sockets."""

import asyncio
import contextlib
import pathlib
from types import SimpleNamespace

import aiohttp
import numpy as np
import pytest

from rt2_jax.actions import ActionBins, ActionSpace, Embodiment
from rt2_jax.serve.auth import Keys, read_keys
from rt2_jax.serve.batcher import BatcherLimits
from rt2_jax.serve.engine import Serving
from rt2_jax.serve.limits import Limits
from rt2_jax.serve.server import Server
from rt2_jax.serve.wire import pack, unpack
from rt2_jax.tokens import Vocabulary

TAGS = 2**24


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time: its clock jumps to what is due next."""

    def __init__(self):
        super().__init__()
        self._now, select = 0.0, self._selector.select

        def jump(timeout=None):
            if timeout is None:
                raise RuntimeError("nothing is due, and nobody will ever wake this loop")
            self._now += max(0.0, timeout)
            return select(0)

        self._selector.select = jump

    def time(self):
        return self._now


def virtually(coroutine):
    """The result of a coroutine on a loop of virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


def really(coroutine, seconds=60):
    """The result of a coroutine that uses real sockets; a hang is an error."""
    return asyncio.run(asyncio.wait_for(coroutine, seconds))


def arm(name="arm", cameras=("image",), history=1, chunk=1, state=0, **fields):
    """An embodiment whose action is (tag of the newest frame, moments that are not black, first of the state)."""
    space = ActionSpace(("tag", "moments", "told"), (0, 0, -1e6), (TAGS, 64, 1e6), ("", "", ""))
    names = tuple(f"joint{number}" for number in range(state))
    told = ActionBins(ActionSpace(names, (-1.0,) * state, (1.0,) * state, ("rad",) * state)) if state else None
    return Embodiment(
        name, ActionBins(space), cameras=cameras, history=history, chunk=chunk, proprioception=told, **fields
    )


class TagPolicy:
    """Acts as its frames say; `before` is called with each batch's size, in the model's thread."""

    def __init__(self, *embodiments, image_size=8, before=lambda size: None):
        self.embodiments = {robot.name: robot for robot in embodiments or (arm(),)}
        self.vocabulary, self.image_size, self.prompt_len = VOCABULARY, image_size, 64
        self.before, self.batches = before, []

    def act(self, images, instructions, mode="action", *, embodiment=None, states=None):
        robot = self.embodiments[embodiment]
        assert images.shape[1:] == (robot.num_images, *[self.image_size] * 2, 3) and images.dtype == np.uint8
        assert len(images) == len(instructions)
        self.before(len(images))
        self.batches.append((len(images), mode, embodiment))
        cameras = len(robot.cameras)
        chunk = np.zeros((len(images), robot.chunk, 3), np.float32)
        for row, stack in enumerate(images):
            moments = stack.reshape(robot.history, cameras, *stack.shape[1:])
            chunk[row, :, 0] = tag_of(moments[-1, 0]) + np.arange(robot.chunk)
            chunk[row, :, 1] = sum(bool(moment.any()) for moment in moments)
            chunk[row, :, 2] = 0 if states is None else states[row][0]
        return SimpleNamespace(
            chunk=chunk,
            chunk_bins=np.zeros(chunk.shape, np.int32),
            text=[f"{mode}: {text}" for text in instructions],
            logprob=np.full(len(images), -1.0, np.float32),
        )


VOCABULARY = Vocabulary.load()


def frame(tag, size=8):
    """uint8[size, size, 3] of one colour, which says a number of 1..2**24 - 1 and survives resizing."""
    image = np.empty((size, size, 3), np.uint8)
    image[:] = [tag >> 16 & 255, tag >> 8 & 255, tag & 255]
    return image


def tag_of(image):
    red, green, blue = (int(value) for value in image[0, 0])
    return red << 16 | green << 8 | blue


def serving(policy=None, identity="a" * 64):
    return Serving(policy or TagPolicy(), identity, pathlib.Path("bundle"))


def keys(admin):
    """No client's keys, and the admin's."""
    return read_keys(None, {"RT2_ADMIN_KEY": admin})


LIMITS = Limits(rate=None, batcher=BatcherLimits(window=0.0))


@contextlib.asynccontextmanager
async def running(policy=None, limits=LIMITS, keys=Keys(), load=None, tls=None, served=None, **options):  # noqa: B008
    """A server on a free port, and an aiohttp session to talk to it."""
    server = Server(served or serving(policy), load or (lambda path: serving(TagPolicy())), limits, keys, **options)
    await server.listen("127.0.0.1", 0, tls)
    try:
        async with aiohttp.ClientSession(base_url=f"http://127.0.0.1:{server.port}") as http:
            yield SimpleNamespace(server=server, http=http, port=server.port, service=server.service)
    finally:
        await server.stop()


class Robot:
    """A client of the native dialect."""

    def __init__(self, socket):
        self.socket, self.number = socket, 0

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, http, **options):
        async with http.ws_connect("/v1/act", max_msg_size=0, **options) as socket:
            robot = cls(socket)
            robot.hello = unpack(await socket.receive_bytes())
            yield robot

    async def send(self, tag, **fields):
        self.number += 1
        message = {"type": "observation", "id": self.number, "instruction": "pick it", "images": {"image": frame(tag)}}
        await self.socket.send_bytes(pack(message | fields))

    async def receive(self):
        return unpack(await self.socket.receive_bytes(timeout=30))

    async def act(self, tag, **fields):
        await self.send(tag, **fields)
        return await self.receive()


@pytest.fixture(scope="session")
def kit():
    """What the tests of the server share: this module's names."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if not name.startswith("_")})
