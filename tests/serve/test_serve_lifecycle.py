"""Bundles are exchanged, servers are stopped, killed and started again, all under load."""

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import aiohttp
import pytest

from rt2_jax.errors import UserError
from rt2_jax.serve.batcher import BatcherLimits
from rt2_jax.serve.limits import Limits
from rt2_jax.serve.wire import unpack

SERVED = pathlib.Path(__file__).with_name("served.py")
LIMITS = Limits(rate=None, deadline=5.0, batcher=BatcherLimits(max_batch=4, window=0.0))


class Process:
    """served.py, and what it logs."""

    def __init__(self, port=0, seconds=0.02, **environment):
        self.process = subprocess.Popen(
            [sys.executable, SERVED, str(port), str(seconds)], stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environment},
        )  # fmt: skip
        self.events = []
        self.reading = threading.Thread(target=self._read, daemon=True)
        self.reading.start()

    def _read(self):
        for line in self.process.stderr:
            self.events.append(json.loads(line))

    async def event(self, name):
        async with asyncio.timeout(60):
            while True:
                for event in list(self.events):
                    if event["event"] == name:
                        return event
                assert self.process.poll() is None, self.events
                await asyncio.sleep(0.01)

    async def ended(self):
        async with asyncio.timeout(60):
            while self.process.poll() is None:
                await asyncio.sleep(0.01)
        self.reading.join()
        return self.process.returncode


@contextlib.contextmanager
def process(*arguments, **environment):
    started = Process(*arguments, **environment)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()


@contextlib.asynccontextmanager
async def robots(kit, act, count):
    """`count` tasks of `act(number)`; leaving waits for them and raises what they raised."""
    tasks = [asyncio.create_task(act(number)) for number in range(count)]
    yield
    await asyncio.gather(*tasks)


def test_a_bundle_is_exchanged_under_load_without_a_dropped_request(kit):
    """Robots see no error and keep their episodes; the last actions are of the new bundle."""

    async def run():
        def load(path):
            assert path == pathlib.Path("other")
            time.sleep(0.2)
            return kit.serving(kit.TagPolicy(kit.arm(history=4), before=lambda size: time.sleep(0.003)), "b" * 64)

        policy = kit.TagPolicy(kit.arm(history=4), before=lambda size: time.sleep(0.003))
        async with kit.running(policy, LIMITS, load=load) as running:
            swapped = asyncio.Event()

            async def act(number):
                async with kit.Robot.connected(running.http) as robot:
                    step = after = 0
                    while after < 5:
                        tag = 1000 * number + (step := step + 1)
                        reply = await robot.act(tag)
                        assert reply["type"] == "action", reply
                        assert reply["actions"][0].tolist() == [tag, min(step, 4), 0]
                        after += swapped.is_set()

            async with robots(kit, act, 8):
                await asyncio.sleep(0.1)
                await running.server.swap("other")
                swapped.set()
            assert running.service.engine.serving.identity == "b" * 64
            assert running.service.engine.serving.policy.batches
            async with running.http.get("/status.json") as reply:
                assert (await reply.json())["loaded"]["identity"] == "b" * 64
            async with running.http.get("/metrics") as reply:
                assert 'rt2_swaps_total{result="done"} 1.0' in await reply.text()

    kit.really(run())


def test_another_kind_of_bundle_begins_new_episodes(kit):
    async def run():
        other = kit.TagPolicy(kit.arm(history=3), image_size=16)
        async with kit.running(kit.TagPolicy(kit.arm(history=3)), load=lambda path: kit.serving(other)) as running:
            async with kit.Robot.connected(running.http) as robot:
                assert [(await robot.act(tag))["actions"][0, 1] for tag in (1, 2)] == [1, 2]
                await running.server.swap(None)
                assert [(await robot.act(tag))["actions"][0, 1] for tag in (3, 4)] == [1, 2]

    kit.really(run())


@pytest.mark.parametrize("error", [UserError("bundle: params have other bytes; copy it again"), ValueError("a defect")])
def test_a_bad_bundle_leaves_the_old_one_serving(kit, error):
    admin = "a" * 32

    async def run():
        def load(path):
            raise error

        keys = kit.keys(admin)
        async with kit.running(load=load, keys=keys) as running, kit.Robot.connected(running.http) as robot:
            headers = {"Authorization": f"Bearer {admin}"}
            async with running.http.post("/admin/bundle", json={"path": "bad"}, headers=headers) as reply:
                told = (await reply.json())["error"]
                is_ours = isinstance(error, ValueError)
                assert (reply.status, told["code"]) == ((500, "internal") if is_ours else (400, "invalid"))
                assert ("other bytes" in told["message"]) != is_ours and "defect" not in told["message"]
            for body in (b"{", b"[]", b'{"path": 3}'):
                async with running.http.post("/admin/bundle", data=body, headers=headers) as reply:
                    assert reply.status == 400
            assert (await robot.act(5))["actions"][0, 0] == 5
            assert running.service.engine.serving.identity == "a" * 64
            async with running.http.get("/metrics") as reply:
                assert 'rt2_swaps_total{result="refused"}' in await reply.text()

    kit.really(run())


def test_one_bundle_is_loaded_at_a_time(kit):
    async def run():
        release = threading.Event()

        def load(path):
            release.wait(20)
            return kit.serving(identity="b" * 64)

        async with kit.running(load=load) as running:
            first = asyncio.create_task(running.server.swap("a"))
            await asyncio.sleep(0)
            with pytest.raises(Exception, match="another bundle is being loaded"):
                await running.server.swap("b")
            release.set()
            await first

    kit.really(run())


def test_stopping_answers_what_came_and_refuses_what_comes(kit):
    async def run():
        policy = kit.TagPolicy(before=lambda size: time.sleep(0.1))
        async with kit.running(policy, LIMITS) as running:
            async with contextlib.AsyncExitStack() as stack:
                found = [await stack.enter_async_context(kit.Robot.connected(running.http)) for _ in range(10)]
                late = await stack.enter_async_context(kit.Robot.connected(running.http))
                for number, robot in enumerate(found):
                    await robot.send(number + 1)
                while running.service.engine.batcher.waiting < 6:
                    await asyncio.sleep(0.001)
                stopping = asyncio.create_task(running.server.stop())
                await asyncio.sleep(0)
                assert (await late.act(99))["code"] == "draining"
                async with running.http.get("/readyz") as reply:
                    assert reply.status == 503
                async with running.http.post("/act", data=b"{}") as reply:
                    assert (reply.status, (await reply.json())["error"]["code"]) == (503, "draining")
                for number, robot in enumerate(found):
                    assert (await robot.receive())["actions"][0, 0] == number + 1
                goodbye = await found[0].socket.receive(timeout=20)
                assert (goodbye.type, goodbye.data) == (aiohttp.WSMsgType.CLOSE, 1001)
                await asyncio.gather(*(robot.socket.close() for robot in [*found, late]))
                await stopping
            with pytest.raises(aiohttp.ClientConnectorError):
                await running.http.get("/healthz")

    kit.really(run())


def test_sigterm_under_load_drops_nothing(kit):
    """Every observation that was sent before the server said that it is being stopped has its action."""

    async def run():
        with process() as served:
            port = (await served.event("listening"))["port"]
            async with aiohttp.ClientSession(base_url=f"http://127.0.0.1:{port}") as http:
                ends = []

                async def act(number):
                    async with kit.Robot.connected(http) as robot:
                        for step in range(1, 10_000):
                            await robot.send(tag := 1000 * number + step)
                            message = await robot.socket.receive(timeout=30)
                            if message.type != aiohttp.WSMsgType.BINARY:
                                ends.append(("closed", robot.socket.close_code))
                                return
                            reply = unpack(message.data)
                            if reply["type"] == "error":
                                ends.append((reply["code"], None))
                                return
                            assert reply["actions"][0, 0] == tag

                async with robots(kit, act, 8):
                    await asyncio.sleep(0.3)
                    served.process.send_signal(signal.SIGTERM)
            assert await served.ended() == 0
            assert len(ends) == 8 and set(ends) <= {("draining", None), ("closed", 1001)}
            assert next(event for event in served.events if event["event"] == "stopped")["unanswered"] is False
            assert not any("traceback" in event for event in served.events)

    kit.really(run())


def test_a_second_sigterm_ends_it_at_once(kit):
    async def run():
        with process(0, 3.0) as served:
            port = (await served.event("listening"))["port"]
            async with aiohttp.ClientSession(base_url=f"http://127.0.0.1:{port}") as http:
                async with kit.Robot.connected(http) as robot:
                    await robot.send(1)
                    await asyncio.sleep(0.2)
                    served.process.send_signal(signal.SIGTERM)
                    await served.event("draining")
                    served.process.send_signal(signal.SIGTERM)
                    assert await served.ended() == 143

    kit.really(run())


def test_a_server_that_was_killed_is_found_again(kit):
    """Robots that connect again get their own actions from the server that follows on the port."""

    async def run():
        with process() as first:
            port = (await first.event("listening"))["port"]
            replaced = asyncio.Event()
            async with aiohttp.ClientSession(base_url=f"http://127.0.0.1:{port}") as http:

                async def act(number):
                    step = after = 0
                    while after < 3:
                        try:
                            async with kit.Robot.connected(http) as robot:
                                while after < 3:
                                    tag = 1000 * number + (step := step + 1)
                                    assert (await robot.act(tag))["actions"][0, 0] == tag
                                    after += replaced.is_set()
                        except (aiohttp.ClientError, ConnectionError, TypeError):
                            await asyncio.sleep(0.02)

                async with robots(kit, act, 6):
                    await asyncio.sleep(0.2)
                    first.process.kill()
                    assert await first.ended() == -signal.SIGKILL
                    with process(port) as second:
                        await second.event("listening")
                        replaced.set()
                        await asyncio.sleep(0)
                        while sum(event["event"] == "session_closed" for event in second.events) < 6:
                            await asyncio.sleep(0.01)

    kit.really(run())


@pytest.mark.parametrize("bundle", ["good", "bad"])
def test_sighup_loads_the_folder_anew(kit, bundle):
    async def run():
        with process(0, 0.001, RT2_TEST_BUNDLE=bundle) as served:
            port = (await served.event("listening"))["port"]
            async with aiohttp.ClientSession(base_url=f"http://127.0.0.1:{port}") as http:
                async with kit.Robot.connected(http) as robot:
                    served.process.send_signal(signal.SIGHUP)
                    await served.event("swap_done" if bundle == "good" else "swap_refused")
                    assert (await robot.act(4))["actions"][0, 0] == 4
                async with http.get("/status.json") as reply:
                    identity = (await reply.json())["loaded"]["identity"]
                    assert identity == ("b" if bundle == "good" else "a") * 64
                served.process.send_signal(signal.SIGINT)
                assert await served.ended() == 0

    kit.really(run())
