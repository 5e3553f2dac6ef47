"""What Prometheus is told: latency by stage, queue, batches, refusals, and what robots were told."""

import time
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from rt2_jax.serve.batcher import Batcher
from rt2_jax.serve.engine import Serving
from rt2_jax.serve.session import Answer

CONTENT_TYPE = CONTENT_TYPE_LATEST
STAGES = ("decode", "queue", "model", "total")
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SIZES = tuple(2**power for power in range(9))
# Of a dimension's range: what a policy that is stuck at a bound or in the middle shows.
_TENTHS = tuple(tenth / 10 for tenth in range(1, 10))


class Metrics:
    """One server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._latency = Histogram(
            "rt2_latency_seconds", "From an observation's arrival to its answer, and its stages",
            ["stage"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._answers = Counter("rt2_answers", "Actions sent", ["dialect", "mode", "embodiment"], registry=registry)
        self._refusals = Counter("rt2_refusals", "Requests refused", ["dialect", "code"], registry=registry)
        self._batch = Histogram("rt2_batch_size", "Requests in a batch", buckets=_SIZES, registry=registry)
        self._waiting = Gauge("rt2_queue_waiting", "Requests that wait for a batch", registry=registry)
        self._running = Gauge("rt2_queue_running", "Requests in the batch that runs", registry=registry)
        self._connections = Gauge("rt2_connections", "Connections open", registry=registry)
        self._sessions = Gauge("rt2_sessions", "WebSocket sessions open", registry=registry)
        self.draining = Gauge("rt2_draining", "1 while the server is being stopped", registry=registry)
        self._value = Histogram(
            "rt2_action_range", "Where in a dimension's range an action lies, 0 for low and 1 for high",
            ["embodiment", "dimension"], buckets=_TENTHS, registry=registry,
        )  # fmt: skip
        self._logprob = Gauge(
            "rt2_action_logprob", "Log-probability of the last answer", ["embodiment"], registry=registry
        )
        self._limited = Counter(
            "rt2_envelope_limited", "Answers that the envelope changed", ["embodiment", "name"], registry=registry
        )
        self._held = Counter("rt2_envelope_held", "Answers that the envelope held", ["embodiment"], registry=registry)
        self._swaps = Counter("rt2_swaps", "Bundles swapped in, or found bad", ["result"], registry=registry)
        self._bundle = Info("rt2_bundle", "What is served", registry=registry)
        Gauge("rt2_start_time_seconds", "When the server started", registry=registry).set(time.time())

    def stage(self, stage: str, seconds: float) -> None:
        """One request's time in one of `STAGES`."""
        self._latency.labels(stage).observe(seconds)

    def answered(self, dialect: str, mode: str, answer: Answer) -> None:
        """Counts an answer."""
        robot, space = answer.embodiment, answer.embodiment.space
        self.stage("total", answer.total_seconds)
        if answer.batch:
            self.stage("queue", answer.queue_seconds)
            self.stage("model", answer.model_seconds)
            self._batch.observe(answer.batch)
            self._logprob.labels(robot.name).set(answer.logprob)
        self._answers.labels(dialect, mode, robot.name).inc()
        for name in answer.limited:
            self._limited.labels(robot.name, name).inc()
        if answer.held:
            self._held.labels(robot.name).inc()
        low, high = np.asarray(space.low), np.asarray(space.high)
        for name, share in zip(space.names, ((answer.actions[0] - low) / (high - low)).tolist(), strict=True):
            self._value.labels(robot.name, name).observe(share)

    def refused(self, dialect: str, code: str) -> None:
        """Counts a refusal."""
        self._refusals.labels(dialect, code).inc()

    def gauges(self, batcher: Batcher[Any, Any], connections: int, sessions: int) -> None:
        """What is so just now."""
        self._waiting.set(batcher.waiting)
        self._running.set(batcher.running)
        self._connections.set(connections)
        self._sessions.set(sessions)

    def swapped(self, serving: Serving | None) -> None:
        """Tells what is served from now on; None where a bundle was bad and the old one stays."""
        if serving is None:
            self._swaps.labels("refused").inc()
            return
        self._swaps.labels("done").inc()
        self.loaded(serving)

    def loaded(self, serving: Serving) -> None:
        """Tells what is served."""
        self._bundle.info(
            {
                "identity": serving.identity,
                "path": str(serving.path),
                "model": serving.name,
                "step": str(serving.step),
                "embodiments": ",".join(serving.policy.embodiments),
            }
        )

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)
