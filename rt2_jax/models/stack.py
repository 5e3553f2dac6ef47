"""A stack of equal blocks: one scan over parameters with a leading axis "layers", or layers one by one.

The scan compiles one block, and its parameters are what checkpoints hold. A CPU cannot multiply with a slice of them in
place: it copies each layer's kernels first, at every token that is decoded. For decoding there, `lay_apart` gives every
layer parameters of its own, once.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

POLICIES = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
_STACK, _LAYER = "blocks", "layers_{}"


def stacked(
    block: type[nn.Module],
    length: int,
    methods: Mapping[str, tuple[Any, ...]],
    *,
    remat: str,
    unroll: bool,
    apart: bool = False,
) -> type[nn.Module]:
    """``block`` lifted over ``length`` layers.

    Args:
      methods: for each method of the block, how its arguments after the carry are given to a layer: `nn.broadcast`
        (the same to all) or 0 (each its own). A method returns (carry, output).
      remat: "none", "dots" or "full"; concerns ``__call__``, the only method that is differentiated.
      unroll: write the layers of ``__call__`` out one after another. Other methods, which decode, are always a scan.
      apart: parameters are those of `lay_apart`, nothing is differentiated, and the layers are written out.

    A layer's own arguments, and the outputs, are arrays with a leading axis "layers"; tuples of length ``length`` where
    the layers are apart.
    """
    if apart:
        return _one_by_one(block, length, methods)
    if remat != "none":
        block = nn.remat(block, policy=POLICIES[remat], prevent_cse=unroll, methods=["__call__"])
    common = {
        "variable_axes": {"params": 0},
        "split_rngs": {"params": True, "dropout": True},
        "length": length,
        "metadata_params": {nn.PARTITION_NAME: "layers"},
    }
    lifted = {
        name: {**common, "in_axes": in_axes, "unroll": length if unroll and name == "__call__" else 1}
        for name, in_axes in methods.items()
    }
    return nn.scan(block, methods=lifted)


def lay_apart(params: PyTree) -> PyTree:
    """A model's parameters with every stack's layers as trees of their own, for a module made with ``apart``."""

    def one(name: str, tree: PyTree) -> PyTree:
        if not isinstance(tree, Mapping):
            return tree
        if name != _STACK:
            return {key: one(key, branch) for key, branch in tree.items()}
        length = len(jax.tree.leaves(tree)[0])
        return {_LAYER.format(i): jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), tree) for i in range(length)}

    return one("", params)


def per_layer(function: Callable[..., Any], *stacks: Any) -> Any:
    """A function of arrays, applied to each layer's where layers are apart, or to the whole stack's."""
    if isinstance(stacks[0], tuple):
        return tuple(function(*layers) for layers in zip(*stacks, strict=True))
    return function(*stacks)


def _one_by_one(block: type[nn.Module], length: int, methods: Mapping[str, tuple[Any, ...]]) -> type[nn.Module]:
    def lifted(name: str, in_axes: tuple[Any, ...]) -> Callable[..., Any]:
        def method(self: Any, carry: Any, *arguments: Any) -> tuple[Any, Any]:
            outputs = []
            for i, layer in enumerate(self.layers):
                own = [given[i] if axis == 0 else given for given, axis in zip(arguments, in_axes, strict=True)]
                carry, output = getattr(layer, name)(carry, *own)
                outputs.append(output)
            return carry, jax.tree.map(lambda *layers: layers, *outputs)

        return method

    def setup(self: Any) -> None:
        self.layers = [block(self.config, self.dtype) for _ in range(length)]

    body = {name: lifted(name, in_axes) for name, in_axes in methods.items()}
    fields = {"config": Any, "dtype": Any}
    return type(block.__name__, (nn.Module,), {"__annotations__": fields, "setup": setup, **body})
