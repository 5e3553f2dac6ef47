"""What a server tells of itself: metrics, the status page's JSON, the log."""

import base64
import io
import json
import logging

import numpy as np
import pytest

from rt2_jax.errors import UserError
from rt2_jax.inputs.images import decode_image
from rt2_jax.serve.limits import Limits, Rate
from rt2_jax.serve.recent import POINT_SECONDS, Recent
from rt2_jax.serve.refusal import Refusal
from rt2_jax.serve.structured_log import JsonFormatter, log_as_json, tell, tell_fault


async def text(running, path):
    async with running.http.get(path) as reply:
        assert reply.status == 200
        return await reply.text()


def test_metrics_count_answers_refusals_and_actions(kit):
    async def run():
        async with kit.running() as running, kit.Robot.connected(running.http) as robot:
            for tag in (1, kit.TAGS * 3 // 4):
                await robot.act(tag)
            await robot.act(1, mode="text")
            told = await text(running, "/metrics")
            for line in (
                'rt2_answers_total{dialect="native",embodiment="arm",mode="action"} 2.0',
                'rt2_refusals_total{code="invalid",dialect="native"} 1.0',
                'rt2_latency_seconds_count{stage="total"} 2.0',
                'rt2_latency_seconds_count{stage="model"} 2.0',
                'rt2_latency_seconds_count{stage="queue"} 2.0',
                "rt2_batch_size_count 2.0",
                'rt2_action_range_bucket{dimension="tag",embodiment="arm",le="0.1"} 1.0',
                'rt2_action_range_bucket{dimension="tag",embodiment="arm",le="0.8"} 2.0',
                'rt2_action_logprob{embodiment="arm"} -1.0',
                "rt2_sessions 1.0",
                "rt2_queue_waiting 0.0",
                "rt2_draining 0.0",
            ):
                assert line in told.splitlines(), line
            assert f'identity="{"a" * 64}"' in told

    kit.really(run())


def test_the_status_has_what_is_loaded_and_the_last_frames(kit):
    async def run():
        async with kit.running() as running, kit.Robot.connected(running.http) as robot:
            assert json.loads(await text(running, "/status.json"))["frames"] == []
            for tag in range(1, 41):
                await robot.act(tag * 0x030303, mode="plan" if tag == 40 else "action")
            await robot.act(1, mode="text")
            status = json.loads(await text(running, "/status.json"))
            assert status["loaded"]["identity"] == "a" * 64
            assert status["loaded"]["embodiments"]["arm"]["cameras"] == ["image"]
            assert (status["server"]["sessions"], status["server"]["waiting"]) == (1, 0)
            frames = status["frames"]
            assert [frame["number"] for frame in frames] == list(range(9, 41))  # the last 32
            last = frames[-1]
            assert (last["instruction"], last["mode"], last["text"]) == ("pick it", "plan", "plan: pick it")
            assert last["action"] == [40 * 0x030303, 1.0, 0.0] and last["names"] == ["tag", "moments", "told"]
            kind, data = last["image"].split(",")
            picture = decode_image(base64.b64decode(data))
            assert kind == "data:image/jpeg;base64" and np.abs(picture.astype(int) - 120).max() <= 2
            history = status["history"]
            assert sum(point["answers"] for point in history) == 40
            assert sum(point["refusals"].get("invalid", 0) for point in history) == 1
            assert all(point["total_ms"]["p50"] <= point["total_ms"]["p99"] for point in history if point["total_ms"])
            since = json.loads(await text(running, "/status.json?since=39"))["frames"]
            assert [frame["number"] for frame in since] == [40]
            for wrong in ("x", "-1", "9" * 40):
                async with running.http.get(f"/status.json?since={wrong}") as reply:
                    assert reply.status == 400

    kit.really(run())


def test_the_history_is_bounded(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("rt2_jax.serve.recent.time.time", lambda: now[0])
    recent = Recent()
    for _ in range(2000):
        recent.waiting(3)
        now[0] += POINT_SECONDS
    assert len(recent.history()) == 450
    assert recent.history()[-1]["waiting"] == 3


def test_the_log_is_json_a_line_an_event(kit):
    before = {name: list(logging.getLogger(name).handlers) for name in ("rt2_jax.serve", "aiohttp", "asyncio")}
    propagates = logging.getLogger("rt2_jax.serve").propagate
    stream = io.StringIO()
    try:
        log_as_json("info")
        handler = logging.getLogger("rt2_jax.serve").handlers[0]
        handler.setStream(stream)
        tell("swap_done", path="a\nb", identity="c")
        tell("refused", level="debug", reason="not told at this level")
        try:
            raise ValueError("what went wrong")
        except ValueError as error:
            tell_fault("model_failed", error, dialect="native")
    finally:
        for name, handlers in before.items():
            logging.getLogger(name).handlers = handlers
            logging.getLogger(name).propagate = propagates
    done, failed = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert done.pop("time").endswith("Z")
    assert done == {"level": "info", "event": "swap_done", "path": "a\nb", "identity": "c"}
    assert (failed["level"], failed["error"]) == ("error", "ValueError")
    assert "what went wrong" in failed["traceback"] and "raise ValueError" in failed["traceback"]
    assert isinstance(handler.formatter, JsonFormatter)


def test_a_rate_allows_a_burst_and_then_its_share():
    rate = Rate(2.0, 3, "this client")
    taken = []
    for tick in range(41):
        try:
            rate.take(tick / 10)
            taken.append(tick)
        except Refusal as refusal:
            assert refusal.code == "rate"
    assert taken == [0, 1, 2, 5, 10, 15, 20, 25, 30, 35, 40]


def test_limits_are_above_nothing():
    with pytest.raises(UserError, match="deadline is 0"):
        Limits(deadline=0)
