"""rt2 serve: a bundle behind a port."""

import argparse
from typing import Any

from rt2_jax.cli.parsing import add_no_verify, add_verb, count, names, number, path, text
from rt2_jax.errors import UserError

DESCRIPTION = """\
Loads the bundle, holds it to its hashes, compiles every batch size, and then listens. One port speaks:

  WebSocket /v1/act   our own dialect (rt2_jax.serve.client)
  WebSocket /         openpi-client, and vla-eval (vla-eval run --server-url ws://HOST:PORT)
  REST POST /act      OpenVLA's JSON (json-numpy), or a form with image files
  GET /status.json /metrics /healthz /readyz

Robots share batches; nobody waits for company alone. An answer comes before its deadline or is refused as stale.

  rt2 serve --bundle data/checkpoints/tabletop_rt2 --mode plan
  curl -F image=@frame.png -F instruction="pick red cube" http://127.0.0.1:8000/act

SIGTERM and Ctrl-C finish what was taken and end with code 0, a second one ends at once. SIGHUP loads the bundle's
folder anew and exchanges it between two batches; POST /admin/bundle with the key of RT2_ADMIN_KEY does so for another
folder. The log is JSON, a line an event, on standard error. docs/serving.md has the dialects, limits and metrics.
"""


def add_serve(verbs: Any) -> None:
    """The verb."""
    serve = add_verb(verbs, "serve", _serve, "serve a bundle to robots and benchmarks", DESCRIPTION)
    serve.add_argument(
        "--bundle", type=path, required=True, help="a bundle, or a run's workdir (its newest whole step)"
    )
    serve.add_argument(
        "--host", type=text, default="127.0.0.1", help="address to listen on (default: this machine alone)"
    )
    serve.add_argument(
        "--port", type=count(0, 65535), default=8000, help="%(type)s (default 8000); 0: any that is free"
    )
    serve.add_argument(
        "--mode", choices=("action", "plan", "both"), default="both",
        help="what is compiled and served (default: both); plan: think before each action",
    )  # fmt: skip
    serve.add_argument(
        "--embodiment", type=text, help="who acts where a client names nobody and the bundle knows several"
    )
    serve.add_argument(
        "--camera", type=_alias, action="append", default=[], metavar="CLIENT=CARD",
        help="a client's camera CLIENT is the card's CARD (agentview=image); may be given again",
    )  # fmt: skip
    serve.add_argument(
        "--chunk-steps", type=count(1, 256), default=None,
        help="of an answer's chunk, the actions carried out before the model is asked again, for clients that take one "
        "at a time (vla-eval, REST sessions); default: all",
    )  # fmt: skip
    serve.add_argument(
        "--deadline-ms", type=number(1, 600_000), default=1000.0,
        help="from an observation's arrival to its answer, or it is refused as stale: %(type)s (default 1000)",
    )  # fmt: skip
    serve.add_argument(
        "--max-batch", type=count(1, 1024), default=16, help="robots in a batch, a power of two: %(type)s (default 16)"
    )
    serve.add_argument(
        "--window-ms", type=number(0, 1000), default=3.0,
        help="a batch waits so long for other active robots: %(type)s (default 3)",
    )  # fmt: skip
    serve.add_argument(
        "--max-queue", type=count(1, 100_000), default=256,
        help="observations that may wait, more are refused as busy: %(type)s (default 256)",
    )  # fmt: skip
    serve.add_argument(
        "--max-message-mb", type=number(0.001, 1024), default=16.0, help="of one message: %(type)s (default 16)"
    )
    serve.add_argument(
        "--rate", type=number(0, 1e6), default=200.0,
        help="requests a second of one connection, 0 for no limit: %(type)s (default 200)",
    )  # fmt: skip
    serve.add_argument(
        "--key-rate", type=number(0, 1e6), default=0.0,
        help="requests a second of one API key (without keys: of one address), 0 for no limit (default)",
    )  # fmt: skip
    serve.add_argument(
        "--key-file", type=path, help="API keys, one NAME:KEY a line; more in RT2_API_KEYS, NAME:KEY,NAME:KEY"
    )
    serve.add_argument("--tls-cert", type=path, help="certificate chain in PEM; with --tls-key")
    serve.add_argument("--tls-key", type=path, help="its private key in PEM")
    serve.add_argument(
        "--mesh", type=names, default=None, metavar="AXIS=N,...",
        help="lay the model over all devices: data, fsdp, tensor; one size may be -1 (tensor=-1)",
    )  # fmt: skip
    serve.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    add_no_verify(serve)


def _alias(value: str) -> tuple[str, str]:
    """A camera's two names."""
    client, equals, card = text(value).partition("=")
    if not (client and equals and card):
        raise argparse.ArgumentTypeError(f"{value[:60]!r}; write CLIENT=CARD, as in agentview=image")
    return client, card


def mesh_of(entries: list[str] | None) -> dict[str, int] | None:
    """`["data=2", "tensor=-1"]` as sizes by axis; None for None.

    Raises:
        UserError: an entry of another form.
    """
    if entries is None:
        return None
    sizes = {}
    for entry in entries:
        axis, _, size = entry.partition("=")
        if not size.removeprefix("-").isdecimal():
            raise UserError(f"--mesh {entry[:60]!r}; write AXIS=N, as in tensor=4 or data=-1")
        sizes[axis.strip()] = int(size)
    return sizes


def _serve(arguments: argparse.Namespace) -> None:
    from rt2_jax.serve.batcher import BatcherLimits
    from rt2_jax.serve.limits import Limits
    from rt2_jax.serve.run import ServeOptions, serve

    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise UserError("--tls-cert and --tls-key go together; give both, or neither")
    batcher = BatcherLimits(
        max_batch=arguments.max_batch, max_queue=arguments.max_queue, window=arguments.window_ms / 1000
    )
    limits = Limits(
        deadline=arguments.deadline_ms / 1000,
        batcher=batcher,
        max_message=int(arguments.max_message_mb * 2**20),
        rate=arguments.rate or None,
        key_rate=arguments.key_rate or None,
    )
    serve(
        ServeOptions(
            bundle=arguments.bundle,
            host=arguments.host,
            port=arguments.port,
            limits=limits,
            modes=("action", "plan") if arguments.mode == "both" else (arguments.mode,),
            embodiment=arguments.embodiment,
            aliases=dict(arguments.camera),
            chunk_steps=arguments.chunk_steps,
            mesh=mesh_of(arguments.mesh),
            key_file=arguments.key_file,
            tls=None if arguments.tls_cert is None else (arguments.tls_cert, arguments.tls_key),
            log_level=arguments.log_level,
            verify=not arguments.no_verify,
        )
    )
