"""A stack of equal blocks as one scan: parameters get a leading axis "layers", compile time is that of one block."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

POLICIES = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


def stacked(
    block: type[nn.Module], length: int, methods: Mapping[str, tuple[Any, ...]], *, remat: str, unroll: bool
) -> type[nn.Module]:
    """``block`` lifted over ``length`` layers.

    Args:
      methods: for each method of the block, how its arguments after the carry are given to a layer: `nn.broadcast`
        (the same to all) or 0 (sliced along the layers). A method returns (carry, output), outputs are stacked.
      remat: "none", "dots" or "full"; concerns ``__call__``, the only method that is differentiated.
      unroll: write the layers out one after another.
    """
    if remat != "none":
        block = nn.remat(block, policy=POLICIES[remat], prevent_cse=unroll, methods=["__call__"])
    common = {
        "variable_axes": {"params": 0},
        "split_rngs": {"params": True, "dropout": True},
        "length": length,
        "unroll": length if unroll else 1,
        "metadata_params": {nn.PARTITION_NAME: "layers"},
    }
    return nn.scan(block, methods={name: {**common, "in_axes": in_axes} for name, in_axes in methods.items()})
