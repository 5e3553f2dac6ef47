"""The state of a run: what a checkpoint must hold to go on exactly."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """A pytree.

    Attributes:
        step: int32 scalar, updates done.
        params: nested dict of arrays, the whole model: float32, what is frozen perhaps in bfloat16.
        opt_state: the optimizer's state, over the trainable parameters alone.
    """

    step: Any  # like the others, of arrays, their shapes or their shardings
    params: Any
    opt_state: Any
