"""The state of a run: what a checkpoint must hold to go on exactly."""

import dataclasses
from typing import Any

import jax
from jaxtyping import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """A pytree, of arrays, of their shapes or of their shardings.

    Attributes:
        step: int32 scalar, updates done.
        params: nested dict, the whole model: float32, what is frozen perhaps in bfloat16.
        opt_state: the optimizer's state, over the trainable parameters alone.
    """

    step: Any
    params: PyTree
    opt_state: PyTree
