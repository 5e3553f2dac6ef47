"""``rt2 bench``: what this machine can do."""

import argparse
from typing import Any

from rt2_jax.cli.parsing import add_verb, count, number, path, text

_DTYPES = ("float32", "bfloat16", "int8")
_MAX_BATCH, _MAX_PROMPT = 1024, 4096


def add_bench(verbs: Any) -> None:
    """The verb and what it measures."""
    bench = verbs.add_parser("bench", help="time what this machine does")
    kinds = bench.add_subparsers(dest="kind", metavar="COMMAND", required=True)
    latency = add_verb(
        kinds, "latency", _latency, "time every part of an action, with a model of any size",
        "Weights are random and drawn on the device in the dtype asked for, so that nothing is needed but the size's\n"
        "name: the time of an action does not depend on its weights. Each part is timed many times (p50, p95, p99 in\n"
        "milliseconds) and set beside the least that its FLOPs and bytes allow on this device, by a matrix product\n"
        "and a copy that are timed in the same run. Needs jax with the device's plugin, flax, numpy, sentencepiece,\n"
        "msgspec, jaxtyping and Pillow; no TensorFlow.",
    )  # fmt: skip
    latency.add_argument("--size", type=text, required=True, metavar="NAME", help="a size of rt2 sizes")
    latency.add_argument(
        "--dtype", choices=_DTYPES, default="bfloat16",
        help="of the weights (default bfloat16); int8 multiplies in bfloat16",
    )  # fmt: skip
    latency.add_argument(
        "--batch", type=count(1, _MAX_BATCH), default=1, metavar="N",
        help="robots that are answered together, %(type)s (default 1)",
    )  # fmt: skip
    latency.add_argument(
        "--prompt-len", type=count(1, _MAX_PROMPT), default=64, metavar="N",
        help="tokens that a prompt is padded to, %(type)s (default 64)",
    )  # fmt: skip
    latency.add_argument(
        "--seconds", type=number(0.1, 600), default=15.0, metavar="S",
        help="that each part is timed for at most, %(type)s (default 15)",
    )  # fmt: skip
    latency.add_argument("--out", type=path, default=None, metavar="FILE", help="write the JSON there too")


def _latency(arguments: argparse.Namespace) -> None:
    from rt2_jax.fit.latency import bench_latency

    bench_latency(
        arguments.size,
        arguments.dtype,
        arguments.out,
        batch=arguments.batch,
        prompt_len=arguments.prompt_len,
        seconds=arguments.seconds,
    )
