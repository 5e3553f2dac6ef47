"""Muon: matrices are moved by their orthogonalised momentum, everything else by AdamW (arXiv 2502.16982)."""

import math
from typing import Any, TypeGuard

import jax
import numpy as np
import optax
from jaxtyping import PyTree
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from rt2_jax.parallel.rules import is_axes, kernel_sides

# Scales an orthogonal update to the RMS that AdamW's has, so that one learning rate serves both (section 2.2).
ADAMW_UPDATE_RMS = 0.2
# A table of tokens, the head over them and the first look at pixels are no maps between hidden states; half a LoRA is
# none either, and Adam is what LoRAs are trained with.
_NOT_HIDDEN = frozenset({"vocab", "position", "stem", "relative_buckets", "lora_rank"})


def scale_by_muon_or(other: optax.GradientTransformation, axes: PyTree, beta: float) -> optax.GradientTransformation:
    """Muon with Nesterov momentum `beta` on the matrices of `axes`, `other` on the rest.

    Args:
        other: the rule for the other parameters.
        axes: tree like the parameters of tuples of logical axis names, ("layers", "embed", "heads", "head_dim"); every
            layer of a stack is a matrix of its own, and all heads together are one.
        beta: the momentum's decay.
    """
    dimensions = jax.tree.map(matrix_dimensions, axes, is_leaf=is_axes)
    is_matrix = jax.tree.map(_is_dimensions, dimensions, is_leaf=_is_leaf)
    others = jax.tree.map(lambda matrix: not matrix, is_matrix)
    muon = optax.chain(
        scale_by_muon(beta=beta, weight_dimension_numbers=dimensions),
        optax.stateless(lambda updates, _: jax.tree.map(_to_adamw_rms, updates, dimensions, is_leaf=_is_leaf)),
    )
    return optax.chain(optax.masked(muon, is_matrix), optax.masked(other, others))


def matrix_dimensions(names: tuple[str | None, ...]) -> MuonDimensionNumbers | optax.MaskedNode:
    """Which axes of a parameter are a matrix's rows (summed over) and columns; a MaskedNode where it is no matrix."""
    own = [axis for axis, name in enumerate(names) if name != "layers"]
    if len(own) < 2 or _NOT_HIDDEN & set(names) or [names[axis] for axis in own] == ["heads", "head_dim"]:
        return optax.MaskedNode()
    return MuonDimensionNumbers(*kernel_sides(names))


def _to_adamw_rms(update: Any, dimensions: MuonDimensionNumbers | optax.MaskedNode) -> Any:
    """An orthogonal [m, n] has an RMS of max(m, n) ** -0.5."""
    if not _is_dimensions(dimensions):
        return update
    sizes = (int(np.prod(np.take(update.shape, axes))) for axes in dimensions)
    return update * (ADAMW_UPDATE_RMS * math.sqrt(max(sizes)))


def _is_dimensions(leaf: Any) -> TypeGuard[MuonDimensionNumbers]:
    return isinstance(leaf, MuonDimensionNumbers)


def _is_leaf(leaf: Any) -> bool:
    return isinstance(leaf, MuonDimensionNumbers | optax.MaskedNode)
