"""Which parameters train, which are frozen, and how both are held."""

import re
from collections.abc import Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from rt2_jax.errors import UserError

# What trains of a model with LoRA, where the config's own freeze list does not decide.
LORA_FREEZE = ((".*/lora_[ab]", "train"), (".*", "frozen"))
# Layers cast these to the compute dtype whenever they use them; other parameters are small, some are used in float32.
CAST_BY_LAYERS = ("kernel", "embedding")


def trainable_paths(
    params: PyTree, freeze: Sequence[tuple[str, str]], rest: Sequence[tuple[str, str]] = ()
) -> frozenset[str]:
    """The paths ("encoder/layers/kernel") of the parameters that train.

    Args:
        params: nested dict of arrays or shapes.
        freeze: (regex, "train" | "frozen"); the first regex that matches the whole path decides.
        rest: pairs that decide after those, and need not all decide something. Without any pair all parameters train.

    Raises:
        UserError: a parameter that no regex matches, a regex that no parameter matches, or nothing left to train.
    """
    paths = list(flax.traverse_util.flatten_dict(params, sep="/"))
    if not freeze and not rest:
        return frozenset(paths)
    used = set()
    trainable = set()
    for path in paths:
        pairs = ((pattern, word) for pattern, word in (*freeze, *rest) if re.fullmatch(pattern, path))
        verdict = next(pairs, None)
        if verdict is None:
            raise UserError(f"config: freeze: no pattern matches parameter {path}; add one, or ('.*', 'train') last")
        used.add(verdict[0])
        if verdict[1] == "train":
            trainable.add(path)
    for pattern, _ in freeze:
        if pattern not in used:
            raise UserError(
                f"config: freeze: pattern {pattern!r} decides over no parameter; paths look like {paths[0]}, remove it"
            )
    if not trainable:
        raise UserError("config: freeze leaves nothing to train; mark some pattern 'train'")
    return frozenset(trainable)


def as_held(shapes: PyTree, trainable: frozenset[str], frozen_dtype: str) -> PyTree:
    """The parameters' shapes with the dtypes that a run holds them in: the frozen kernels and token table another's.

    Args:
        shapes: nested dict of ShapeDtypeStructs, float32.
        trainable: of `trainable_paths`.
        frozen_dtype: a compute dtype; a model that computes in this one gives the same numbers.

    Raises:
        UserError: another dtype than float32, and nothing is frozen.
    """
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(shapes, sep="/")
    if frozen_dtype != "float32" and len(trainable) == len(flat):
        raise UserError(f"config: frozen_dtype is {frozen_dtype!r}, but nothing is frozen; set freeze or lora")
    for path, leaf in flat.items():
        if path not in trainable and path.split("/")[-1] in CAST_BY_LAYERS:
            flat[path] = jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(frozen_dtype))
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def split_params(params: PyTree, trainable: frozenset[str]) -> tuple[PyTree, PyTree]:
    """(trainable, frozen) nested dicts; `merge_params` puts them together again."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    chosen = {path: leaf for path, leaf in flat.items() if path in trainable}
    rest = {path: leaf for path, leaf in flat.items() if path not in trainable}
    return flax.traverse_util.unflatten_dict(chosen, sep="/"), flax.traverse_util.unflatten_dict(rest, sep="/")


def merge_params(trainable: PyTree, frozen: PyTree) -> PyTree:
    """The nested dict of both parts' leaves."""
    flat = flax.traverse_util.flatten_dict(trainable, sep="/") | flax.traverse_util.flatten_dict(frozen, sep="/")
    return flax.traverse_util.unflatten_dict(flat, sep="/")
