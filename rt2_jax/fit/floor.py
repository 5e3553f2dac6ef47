"""The least time that a device can take for the parts of one action, from the bytes that they read and their FLOPs."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rt2_jax.fit.flops import Flops, decode_step_flops, prefill_flops
from rt2_jax.models.backbone import Backbone, Params
from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig

# Published peaks: FLOP/s of dense bfloat16 products, bytes/s of the device's memory. By what JAX calls the device.
KNOWN: dict[str, tuple[float, float]] = {
    "TPU v4": (275e12, 1228e9),
    "TPU v5 lite": (197e12, 819e9),
    "TPU v5": (459e12, 2765e9),
    "TPU v6 lite": (918e12, 1640e9),
    "NVIDIA A100-SXM4-80GB": (312e12, 2039e9),
    "NVIDIA H100 80GB HBM3": (989e12, 3350e9),
    "NVIDIA H200": (989e12, 4800e9),
}
_SIDES = {"cpu": 1024}  # of the square matrices that are multiplied
_COPIED = {"cpu": 2**27}  # bytes of the array that is copied: beyond every cache
_SIDE, _BYTES, _ROUNDS, _REPEATS = 8192, 2**30, 8, 5


@dataclasses.dataclass(frozen=True)
class Peaks:
    """What a device can do: FLOP/s of a product in a dtype, and bytes/s of its memory, reads and writes added."""

    flops: float
    bytes: float

    def floor(self, work: "Work") -> float:
        """Seconds that the work takes at least."""
        return max(work.flops / self.flops, work.bytes / self.bytes)


@dataclasses.dataclass(frozen=True)
class Work:
    """FLOPs, and bytes that must be read."""

    flops: int
    bytes: int


def measured_peaks(dtype: str, device: jax.Device) -> Peaks:
    """By a product of large square matrices in `dtype`, and a copy of an array beyond every cache.

    The best of a few runs, each of several rounds in one program: a short run is slower, never faster.
    """
    side, size = _SIDES.get(device.platform, _SIDE), _COPIED.get(device.platform, _BYTES)
    with jax.default_device(device):
        a = jnp.full((side, side), 1 / side, dtype)
        x = jnp.ones(size // 4, jnp.float32)

    @jax.jit
    def multiply(a: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, _ROUNDS, lambda _, b: (a @ b).astype(a.dtype), a)

    @functools.partial(jax.jit, donate_argnums=0)
    def copy(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, _ROUNDS, lambda i, x: x + i, x)

    seconds = _best(lambda: jax.block_until_ready(multiply(a)))

    def once() -> None:
        nonlocal x
        x = jax.block_until_ready(copy(x))

    return Peaks(_ROUNDS * 2 * side**3 / seconds, _ROUNDS * 2 * size / _best(once))


def prefill_work(backbone: Backbone, params: Params, batch: int, prompt_len: int, max_len: int, rows: int) -> Work:
    """Reading the images and prompts of a batch, with `rows` rows of the output table: all weights are read once."""
    flops = prefill_flops(backbone.config, prompt_len, max_len)
    held = tree_bytes(params) - _table_bytes(params, backbone.config, rows)
    return Work(batch * _with_rows(flops, backbone.config, rows), held)


def step_work(
    backbone: Backbone, params: Params, cache: Any, batch: int, prompt_len: int, max_len: int, rows: int
) -> Work:
    """One more token of each row of a batch: the decoder's weights and the cache are read."""
    flops = decode_step_flops(backbone.config, prompt_len, max_len)
    decoder = dict(params["decoder"])
    held = tree_bytes(decoder) + tree_bytes(cache)
    if isinstance(backbone.config.text, EncoderDecoderConfig):
        # The keys and values of the encoder's output are in the cache, so their kernels are not read.
        cross = [stack["cross_attention"] for stack in _stacks(decoder["blocks"])]
        held -= sum(tree_bytes([attention["key"], attention["value"]]) for attention in cross)
    table = tree_bytes(_table(params))
    held += table - _table_bytes(params, backbone.config, rows)
    return Work(batch * _with_rows(flops, backbone.config, rows), held)


def tree_bytes(tree: Any) -> int:
    """Bytes of a tree's arrays, or of their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _stacks(blocks: Mapping[str, Any]) -> list[Any]:
    """The trees that hold a block's parameters: one for the stack, or one a layer (models/stack.py)."""
    return [blocks] if "cross_attention" in blocks else list(blocks.values())


def _table(params: Params) -> Any:
    return params["logits"] if "logits" in params else params["token_embedding"]


def _table_bytes(params: Params, config: ModelConfig, rows: int) -> int:
    """Bytes of the output table that are not read, since it is multiplied with `rows` of its rows alone."""
    return int(tree_bytes(_table(params)) * (1 - rows / config.vocab_size))


def _with_rows(flops: Flops, config: ModelConfig, rows: int) -> int:
    """The sum, with the logits of `rows` tokens instead of all."""
    return flops.total - flops.logits + flops.logits * rows // config.vocab_size


def _best(run: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs, after one that compiles."""
    run()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
