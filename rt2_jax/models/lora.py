"""LoRA (arXiv 2106.09685): beside a kernel W that stands still, small A and B that train; W + (alpha / rank) A B.

A layer applies what its parameters hold (`layers.adapted`). Here is which kernels have an A and a B, how these start,
where alpha / rank comes in, and how they go into W for good.
"""

import math
import re
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from rt2_jax.errors import UserError
from rt2_jax.models.config import LoraConfig, ModelConfig
from rt2_jax.models.int8 import check_float
from rt2_jax.parallel.rules import kernel_sides

KERNEL, LORA_A, LORA_B = "kernel", "lora_a", "lora_b"
SHOWN = 4  # kernels that an error names


def add_lora(boxed: PyTree, lora: LoraConfig, rng: PRNGKeyArray) -> PyTree:
    """Fresh parameters with ``lora_a`` and ``lora_b`` beside every kernel that the pattern matches, float32.

    A is drawn from N(0, 1 / inputs) and B is zero, so that the model is as without them (section 4.1). For a kernel
    [layers, inputs, outputs], either side one axis or more, A is [layers, inputs, rank], B [layers, rank, outputs].

    Args:
      boxed: nested dict of arrays boxed with their logical axes, as a module's ``init`` gives it.
      lora: which kernels, and the rank.
      rng: draws A; the other parameters do not depend on it.

    Raises:
      UserError: no kernel matches, or the rank is not below both sides of one that does.
    """
    flat: dict[str, Any] = dict(flax.traverse_util.flatten_dict(boxed, sep="/"))
    for number, path in enumerate(_matching(list(flat), lora.pattern)):
        kernel = flat[f"{path}/{KERNEL}"]
        inputs, outputs = kernel_sides(kernel.names)
        stack = [axis for axis, name in enumerate(kernel.names) if name == "layers"]
        fan_in, fan_out = (math.prod(kernel.value.shape[axis] for axis in side) for side in (inputs, outputs))
        if lora.rank >= min(fan_in, fan_out):
            raise UserError(
                f"lora rank {lora.rank} is not below both sides of kernel {path}, {fan_in} x {fan_out}; "
                "lower the rank, or leave that kernel out of the pattern"
            )
        sizes, names = (*kernel.value.shape, lora.rank), (*kernel.names, "lora_rank")
        key, std = jax.random.fold_in(rng, number), fan_in**-0.5
        for name, init, axes in (
            (LORA_A, nn.initializers.normal(std), (*stack, *inputs, -1)),
            (LORA_B, nn.initializers.zeros, (*stack, -1, *outputs)),
        ):
            leaf = init(key, [sizes[axis] for axis in axes], jnp.float32)
            flat[f"{path}/{name}"] = nn.LogicallyPartitioned(leaf, tuple(names[axis] for axis in axes))
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def _matching(paths: list[str], pattern: str) -> list[str]:
    """The kernels among parameters' paths, without "/kernel", that a regex matches whole, in alphabetical order.

    Raises:
      UserError: it matches none.
    """
    kernels = sorted(path.removesuffix(f"/{KERNEL}") for path in paths if path.endswith(f"/{KERNEL}"))
    matched = [path for path in kernels if re.fullmatch(pattern, path)]
    if not matched:
        some = ", ".join(kernels[:: max(1, len(kernels) // SHOWN)][:SHOWN])
        raise UserError(f"lora pattern {pattern!r} matches none of the {len(kernels)} kernels, such as {some}; mend it")
    return matched


def scale_lora(params: PyTree, lora: LoraConfig) -> PyTree:
    """Parameters whose B are multiplied by alpha / rank: what the layers, who know of neither, are given."""
    scale = lora.alpha / lora.rank

    def one(path: tuple[Any, ...], leaf: Array) -> Array:
        return leaf * scale if path[-1].key == LORA_B else leaf

    return jax.tree_util.tree_map_with_path(one, params)


def merge_lora(params: PyTree, config: ModelConfig) -> tuple[PyTree, ModelConfig]:
    """A model without adapters that computes what ``config`` does: (parameters, config).

    Each adapted kernel becomes W + (alpha / rank) A B, added up in float32.

    Raises:
      UserError: the model has no adapters.
    """
    if config.lora is None:
        raise UserError(f"model {config.name} has no LoRA adapters to merge; leave the merging out")
    check_float(config, f"model {config.name}", "and adapters are merged into float ones")
    flat: dict[str, Any] = dict(flax.traverse_util.flatten_dict(scale_lora(params, config.lora), sep="/"))
    for path in [path.removesuffix(f"/{LORA_A}") for path in flat if path.endswith(f"/{LORA_A}")]:
        a, b = flat.pop(f"{path}/{LORA_A}"), flat.pop(f"{path}/{LORA_B}")
        flat[f"{path}/{KERNEL}"] = _merged(flat[f"{path}/{KERNEL}"], a, b)
    return flax.traverse_util.unflatten_dict(flat, sep="/"), config.replace(lora=None)


@jax.jit
def _merged(kernel: Float[Array, "*axes"], a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "*axes"]:
    def product(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.tensordot(a, b, 1, precision="highest")

    stacked = a.ndim + b.ndim - 2 > kernel.ndim  # A and B both have the stack's axis, the kernel has it once
    return kernel.astype(jnp.float32) + (jax.vmap(product) if stacked else product)(a, b)
