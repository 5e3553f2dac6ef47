"""int8 weights: every output channel of a kernel as whole numbers from -127 to 127, and the one scale that they share.

``kernel`` int8 and ``kernel_scale`` float32 stand where a float ``kernel`` stood; a row of the token table is a channel
too. The layers multiply by the scale after the product (`layers.rescaled`), so that no float copy of a kernel is kept:
each layer's slice becomes numbers of the compute dtype where it is multiplied. Norms, biases and tables of positions
stay as they are: they are small.
"""

from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int8, PyTree

from rt2_jax.errors import UserError
from rt2_jax.models.config import ModelConfig
from rt2_jax.parallel.rules import is_axes, kernel_sides

INT8 = "int8"
KERNEL, EMBEDDING = "kernel", "embedding"
SCALE = "{}_scale"
LARGEST = 127  # -128 stays unused, so that a channel and its negative are rounded alike


def quantize(params: PyTree, config: ModelConfig, logical_axes: PyTree) -> tuple[PyTree, ModelConfig]:
    """A model with int8 kernels and token table in the place of one with float ones: (parameters, config).

    Args:
        params: nested dict of arrays, LoRA's among them; these stay float.
        config: the model's.
        logical_axes: `Backbone.logical_axes` of it.

    Raises:
        UserError: its weights are int8 already.
    """
    if config.quantized:
        raise UserError(f"the weights of model {config.name} are {config.quantized} already; leave the quantising out")
    names = flax.traverse_util.flatten_dict(logical_axes, is_leaf=lambda _, node: is_axes(node))

    @jax.jit  # one program: compiling one for each shape takes longer than all of the work
    def stored(flat: dict[tuple[str, ...], Array]) -> dict[tuple[str, ...], Array]:
        return {
            (*path[:-1], name): array
            for path, leaf in flat.items()
            for name, (array, _) in _stored(path[-1], leaf, names[path]).items()
        }

    numbers = stored(flax.traverse_util.flatten_dict(params))
    return flax.traverse_util.unflatten_dict(numbers), config.replace(quantized=INT8)


def check_float(config: ModelConfig, where: object, why: str) -> None:
    """Accepts float weights alone; `where` they lie and `why` others are of no use are for the message.

    Raises:
        UserError: quantised weights.
    """
    if config.quantized:
        raise UserError(f"{where} has {config.quantized} weights, {why}; name the weights that it was exported from")


def quantize_boxed(boxed: PyTree) -> PyTree:
    """The same of parameters that are boxed with their logical axes, as a module's ``init`` gives them."""
    flat: dict[tuple[str, ...], Any] = {}
    for path, box in flax.traverse_util.flatten_dict(boxed).items():
        for name, (array, axes) in _stored(path[-1], box.value, box.names).items():
            flat[(*path[:-1], name)] = nn.LogicallyPartitioned(array, axes)
    return flax.traverse_util.unflatten_dict(flat)


def _stored(name: str, leaf: Any, axes: tuple[str, ...]) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """What is stored of a parameter, (array, logical axes) by name: itself, or its whole numbers and their scale."""
    if name == KERNEL:
        inputs = kernel_sides(axes)[0]
    elif name == EMBEDDING:
        inputs = (axes.index("embed"),)
    else:
        return {name: (leaf, axes)}
    numbers, scale = _rounded(leaf, inputs)
    kept = tuple(axis for number, axis in enumerate(axes) if number not in inputs)
    return {name: (numbers, axes), SCALE.format(name): (scale, kept)}


def _rounded(
    kernel: Float[Array, "*axes"], inputs: tuple[int, ...]
) -> tuple[Int8[Array, "*axes"], Float32[Array, "..."]]:
    """The whole numbers nearest to a kernel over its scale, and the scale: the channel's largest size / 127."""
    wide = kernel.astype(jnp.float32)
    largest = jnp.max(jnp.abs(wide), axis=inputs, keepdims=True)
    scale = jnp.where(largest == 0, 1.0, largest / LARGEST)
    numbers = jnp.clip(jnp.round(wide / scale), -LARGEST, LARGEST).astype(jnp.int8)
    return numbers, jnp.squeeze(scale, inputs)
