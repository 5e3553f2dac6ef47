"""The model behind the server: loaded, compiled, run in one thread of its own, and exchanged between two batches."""

import asyncio
import dataclasses
import itertools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.actions.envelope import Envelope
from rt2_jax.errors import UserError
from rt2_jax.serve.batcher import Batcher, BatcherLimits, Served
from rt2_jax.serve.observation import MODES, Row, ServedPolicy

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, eq=False)
class Serving:
    """One bundle as it is served.

    Attributes:
        policy: compiled for every batch size that the server makes.
        identity: the bundle's.
        path: the folder it came from.
        name: of the model's size or configuration.
        step: updates done when it was written.
        parameters: how many numbers the model has, or None.
        modes: that were compiled.
        envelopes: the limits of embodiments that have some; no action leaves them.
        number: counts up with every bundle that this process loads.
        loaded: seconds since the epoch.
    """

    policy: ServedPolicy
    identity: str
    path: pathlib.Path
    name: str = ""
    step: int = 0
    parameters: int | None = None
    modes: tuple[str, ...] = MODES
    envelopes: Mapping[str, Envelope] = dataclasses.field(default_factory=dict)
    number: int = dataclasses.field(default_factory=itertools.count().__next__)
    loaded: float = dataclasses.field(default_factory=time.time)

    def embodiment(self, name: str | None) -> Embodiment:
        """The embodiment of that name; None is the only one there is.

        Raises:
            UserError: an unknown name, or none where there are several.
        """
        known = self.policy.embodiments
        if name is None and len(known) == 1:
            return next(iter(known.values()))
        if name is None:
            raise UserError(f"the server acts for {len(known)} embodiments; name one of: {', '.join(known)}")
        if name not in known:
            raise UserError(f"embodiment {name[:60]!r} is not served; choose of: {', '.join(known)}")
        return known[name]


@dataclasses.dataclass(frozen=True)
class Acted:
    """One row's action: `chunk` float32[k, width] in physical units, `bins` int32[k, width], and what the model said.

    `confidence` is float32[k, width], the log-probability of each of the action's tokens, where the policy tells it.
    """

    chunk: np.ndarray
    bins: np.ndarray
    text: str
    logprob: float
    confidence: np.ndarray | None


def act_on(serving: Serving, rows: Sequence[Row]) -> list[Acted]:
    """What the policy does about rows of one embodiment and mode. Blocks: for the model's thread."""
    first = rows[0]
    output = serving.policy.act(
        np.stack([row.images for row in rows]),
        [row.instruction for row in rows],
        first.mode,
        embodiment=first.embodiment,
        states=None if first.state is None else np.stack([row.state for row in rows if row.state is not None]),
    )
    confidence = getattr(output, "confidence", None)
    return [
        Acted(
            output.chunk[row],
            output.chunk_bins[row],
            output.text[row],
            float(output.logprob[row]),
            None if confidence is None else np.asarray(confidence[row], np.float32),
        )
        for row in range(len(rows))
    ]


class Engine:
    """Runs one serving at a time, and what else must not hold the event loop up. Made inside a running event loop.

    Args:
        serving: what to begin with, warm.
        limits: of the batcher.
        on_failure: called with what the model raised.
        decoders: threads that decode and resize images.

    Attributes:
        serving: what new requests are for. Those that wait keep the one they came for.
    """

    def __init__(
        self, serving: Serving, limits: BatcherLimits, on_failure: Callable[[Exception], None], decoders: int = 2
    ):
        self.serving = serving
        self.batcher: Batcher[tuple[Serving, Row], Acted] = Batcher(self._run, limits, on_failure)
        self._model = ThreadPoolExecutor(1, "rt2-model")
        self._decoders = ThreadPoolExecutor(decoders, "rt2-decode")
        self._task = asyncio.create_task(self.batcher.serve())

    async def act(self, lane: Any, serving: Serving, row: Row, deadline: float) -> Served[Acted]:
        """The action for `row`; arguments and errors as `Batcher.submit`."""
        group = (serving.number, row.mode, row.embodiment)
        return await self.batcher.submit(lane, group, (serving, row), deadline)

    async def _run(self, group: Any, rows: list[tuple[Serving, Row]]) -> list[Acted]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._model, act_on, rows[0][0], [row for _, row in rows])

    async def aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work(*arguments)` in a thread for decoding."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work, *arguments)

    async def close(self) -> None:
        """Ends the threads, once the batch that runs is done."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._model.shutdown(wait=False, cancel_futures=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)


def load_serving(
    path: str | pathlib.Path,
    max_batch: int,
    *,
    modes: Sequence[str] = MODES,
    mesh: Mapping[str, int] | None = None,
    verify: bool = True,
) -> Serving:
    """A bundle, held to its hashes, on its devices and compiled.

    Args:
        path: a bundle, or a run's workdir.
        max_batch: the largest batch; a power of two.
        modes: of "action" and "plan".
        mesh: mesh axis -> size, to lay the model over all devices; None for the first one alone.
        verify: see `load_bundle`.

    Raises:
        UserError: a missing or damaged file, weights that know no robot, or a mesh that does not fit.
    """
    import jax

    from rt2_jax.parallel import make_mesh
    from rt2_jax.policy.load import load_bundle_over, make_policy

    devices = None if mesh is None else make_mesh(mesh)
    bundle = load_bundle_over(path, devices, verify)
    policy = make_policy(bundle, devices)
    policy.warm_up([1 << power for power in range(max_batch.bit_length())], modes)
    return Serving(
        policy=policy,
        identity=bundle.identity,
        path=bundle.path,
        name=bundle.spec.model.name,
        step=bundle.spec.step,
        parameters=sum(int(leaf.size) for leaf in jax.tree.leaves(bundle.params)),
        modes=tuple(modes),
        envelopes=bundle.spec.envelopes,
    )
