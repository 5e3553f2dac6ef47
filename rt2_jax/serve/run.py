"""``rt2 serve``: loads and compiles, listens, and obeys signals."""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import signal
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence

from rt2_jax.bundle.spec import read_spec
from rt2_jax.errors import UserError, first_line
from rt2_jax.serve.auth import Keys, read_keys
from rt2_jax.serve.engine import Serving, load_serving
from rt2_jax.serve.limits import Limits
from rt2_jax.serve.observation import MODES
from rt2_jax.serve.refusal import Refusal
from rt2_jax.serve.server import Server
from rt2_jax.serve.structured_log import log_as_json, tell


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """What ``rt2 serve`` is told.

    Attributes:
        bundle: a bundle, or a run's workdir.
        host, port: where it listens; port 0 is any that is free.
        limits: see `Limits`.
        modes: of "action" and "plan": what is compiled and served.
        embodiment: whose action is wanted where a client names nobody.
        aliases: client's name of a camera -> the card's name.
        chunk_steps: see `Service`.
        mesh: mesh axis -> size; None for one device.
        key_file: API keys; see `read_keys`.
        tls: (certificate, private key) in PEM.
        log_level: of `structured_log.LEVELS`.
        verify: hold the bundle's bytes to their hashes.
    """

    bundle: pathlib.Path
    host: str = "127.0.0.1"
    port: int = 8000
    limits: Limits = dataclasses.field(default_factory=Limits)
    modes: Sequence[str] = MODES
    embodiment: str | None = None
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    chunk_steps: int | None = None
    mesh: Mapping[str, int] | None = None
    key_file: pathlib.Path | None = None
    tls: tuple[pathlib.Path, pathlib.Path] | None = None
    log_level: str = "info"
    verify: bool = True


def serve(options: ServeOptions) -> None:
    """Serves until SIGTERM or Ctrl-C, at which what was taken is finished; a second one ends the process at once.

    Raises:
        UserError: a bundle, key file, certificate or address that will not do.
    """
    log_as_json(options.log_level)
    keys, tls = read_keys(options.key_file), _tls_context(options.tls)

    def load(path: pathlib.Path) -> Serving:
        return load_serving(
            path, options.limits.batcher.max_batch, modes=options.modes, mesh=options.mesh, verify=options.verify
        )

    read_spec(options.bundle)  # what is no bundle is told in one line, before the log begins
    tell("loading", path=str(options.bundle))
    if not options.verify:
        tell("not_verified", level="warning", reason="a damaged byte of the bundle would go unnoticed (--no-verify)")
    serving = load(options.bundle)
    if not keys.clients and options.host not in ("127.0.0.1", "::1", "localhost"):
        tell("no_api_keys", level="warning", host=options.host, reason="whoever reaches the port moves the robot")
    with _signals_restored():
        asyncio.run(serve_until_stopped(options, serving, load, keys, tls))


async def serve_until_stopped(
    options: ServeOptions,
    serving: Serving,
    load: Callable[[pathlib.Path], Serving],
    keys: Keys,
    tls: ssl.SSLContext | None,
) -> None:
    """Serves what is loaded; SIGTERM and SIGINT end it, SIGHUP has it load the bundle's folder anew."""
    server = Server(
        serving,
        load,
        options.limits,
        keys,
        embodiment=options.embodiment,
        aliases=options.aliases,
        chunk_steps=options.chunk_steps,
    )
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        tell("signal", name=number.name)
        stop.set()

    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(_reload(server))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    loop.add_signal_handler(signal.SIGHUP, reload)
    await server.listen(options.host, options.port, tls)
    scheme = "http" if tls is None else "https"
    tell("listening", url=f"{scheme}://{options.host}:{server.port}", port=server.port, identity=serving.identity)
    await stop.wait()
    await server.stop()


async def _reload(server: Server) -> None:
    with contextlib.suppress(UserError, Refusal):  # told by the log
        await server.swap(None)


@contextlib.contextmanager
def _signals_restored() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tls_context(files: tuple[pathlib.Path, pathlib.Path] | None) -> ssl.SSLContext | None:
    if files is None:
        return None
    certificate, key = files
    for what, file in (("certificate", certificate), ("key", key)):
        if not file.is_file():
            raise UserError(f"TLS {what} {file} does not exist; name a file in PEM")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise UserError(
            f"TLS: {certificate} and {key} do not go together ({first_line(error)}); give both in PEM"
        ) from error
    return context
