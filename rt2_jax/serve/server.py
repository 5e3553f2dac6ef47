"""A server from its first connection to its last: listens, exchanges bundles, ends without dropping what it took."""

import asyncio
import contextlib
import pathlib
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from rt2_jax.errors import UserError
from rt2_jax.serve.app import App
from rt2_jax.serve.auth import Keys
from rt2_jax.serve.engine import Engine, Serving
from rt2_jax.serve.limits import Limits
from rt2_jax.serve.metrics import Metrics
from rt2_jax.serve.recent import Recent
from rt2_jax.serve.refusal import Refusal
from rt2_jax.serve.service import Service
from rt2_jax.serve.structured_log import tell, tell_fault

# Between two looks at whether all is answered, and between two at the queue.
_POLL, _WATCH = 0.01, 0.5
_CROWDED = 0.2  # seconds that a connection has for its first request where there are too many


class Server:
    """One bundle, one port. Made inside a running event loop.

    Args:
        serving: what to begin with, warm.
        load: makes a warm serving of a bundle's path; blocks, in a thread of its own.
        limits, keys: see there.
        embodiment, aliases, chunk_steps: see `Service`.
    """

    def __init__(
        self,
        serving: Serving,
        load: Callable[[pathlib.Path], Serving],
        limits: Limits,
        keys: Keys,
        *,
        embodiment: str | None = None,
        aliases: Mapping[str, str] | None = None,
        chunk_steps: int | None = None,
    ):
        if embodiment is not None:
            serving.embodiment(embodiment)
        self._load, self._limits = load, limits
        metrics = Metrics()
        metrics.loaded(serving)
        engine = Engine(serving, limits.batcher, lambda error: tell_fault("model_failed", error))
        self.service = Service(
            engine, limits, metrics, Recent(), embodiment=embodiment, aliases=aliases, chunk_steps=chunk_steps
        )
        self._app = App(self.service, keys, self.swap)
        self._runner = web.AppRunner(
            self._app.web,
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,  # who has gone is not computed for
            keepalive_timeout=limits.keepalive,
            lingering_time=1.0,
            shutdown_timeout=limits.send_timeout,
        )
        self._listener: asyncio.Server | None = None
        self._loader = ThreadPoolExecutor(1, "rt2-load")
        self._swapping = asyncio.Lock()
        self._watcher = asyncio.create_task(self._watch())

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._listener is not None
        return self._listener.sockets[0].getsockname()[1]

    @property
    def open_connections(self) -> int:
        """Connections that are open, of whatever kind."""
        return self._app.connections()

    @property
    def open_sessions(self) -> int:
        """WebSockets that are open."""
        return self._app.sessions

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Takes connections from here on; port 0 is any that is free.

        Raises:
            UserError: the address is taken, or none of this machine's.
        """
        await self._runner.setup()
        assert self._runner.server is not None
        http, app, limits = self._runner.server, self._app, self._limits
        app.connections = lambda: len(http.connections)
        loop = asyncio.get_running_loop()

        def connection() -> asyncio.Protocol:
            handler = http()
            crowded = len(http.connections) > 2 * limits.max_connections

            def close_if_silent() -> None:
                if handler.transport is not None and handler.transport not in app.spoken:
                    handler.force_close()

            loop.call_later(_CROWDED if crowded else limits.header_timeout, close_if_silent)
            return handler

        handshake = None if tls is None else limits.header_timeout
        try:
            self._listener = await loop.create_server(
                connection, host, port, ssl=tls, ssl_handshake_timeout=handshake, backlog=512
            )
        except OSError as error:
            raise UserError(f"{host}:{port}: {error.strerror or error}; choose another --host or --port") from error

    async def swap(self, path: str | None) -> None:
        """Serves the bundle of `path`, or what the same folder holds now, from the next batch on.

        Robots' episodes go on; requests that wait keep the bundle they came for. A bundle that is damaged, or does not
        load for whatever reason, leaves the old one serving.

        Raises:
            UserError: the bundle is not whole, or knows not the embodiment that the server acts for.
            Refusal: another one is being loaded, or it failed to load.
        """
        if self._swapping.locked():
            raise Refusal("busy", "another bundle is being loaded; try again when it is done")
        async with self._swapping:
            service = self.service
            old = service.engine.serving
            target = old.path if path is None else pathlib.Path(path)
            tell("swap_begun", path=str(target))
            try:
                new = await asyncio.get_running_loop().run_in_executor(self._loader, self._load, target)
                if service.embodiment is not None:
                    new.embodiment(service.embodiment)
            except UserError as error:
                service.metrics.swapped(None)
                tell("swap_refused", level="error", path=str(target), reason=str(error))
                raise
            except Exception as error:
                service.metrics.swapped(None)
                tell_fault("swap_failed", error, path=str(target))
                raise Refusal("internal", "the bundle did not load; the server's log says how") from error
            service.engine.serving = new
            service.metrics.swapped(new)
            tell("swap_done", path=str(target), identity=new.identity, was=old.identity)

    async def stop(self) -> None:
        """Answers what came, refuses what comes, and ends."""
        service = self.service
        service.draining = True
        service.metrics.draining.set(1)
        tell("draining", waiting=service.engine.batcher.waiting, running=service.engine.batcher.running)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.drain):
                while self._app.busy:
                    await asyncio.sleep(_POLL)
        if self._listener is not None:
            self._listener.close()
        await self._app.say_goodbye()
        await self._runner.cleanup()
        self._watcher.cancel()
        await asyncio.gather(self._watcher, return_exceptions=True)
        await service.engine.close()
        self._loader.shutdown(wait=False, cancel_futures=True)
        tell("stopped", unanswered=self._app.busy)

    async def _watch(self) -> None:
        """Remembers how long the queue is."""
        while True:
            self.service.recent.waiting(self.service.engine.batcher.waiting)
            await asyncio.sleep(_WATCH)
