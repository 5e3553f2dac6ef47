"""Position embeddings at another resolution."""

import math

import jax
import numpy as np

from rt2_jax.errors import UserError


def resample_positions(embedding: np.ndarray, tokens: int) -> np.ndarray:
    """Position embedding [n, width] of a square grid of patches as [tokens, width] of another, bilinearly.

    Both grids cover the same frame; shrinking averages over what a new patch covers (antialias), as big_vision and
    SigLIP 2 do. The same size gives the same array.

    Raises:
        UserError: a number of patches that is no square.
    """
    count, width = embedding.shape
    if count == tokens:
        return embedding
    old, new = math.isqrt(count), math.isqrt(tokens)
    for size, side in ((count, old), (tokens, new)):
        if side * side != size:
            raise UserError(f"{size} position embeddings make no square grid; only square frames can be resampled")
    grid = embedding.astype(np.float32).reshape(old, old, width)
    resized = jax.image.resize(grid, (new, new, width), "bilinear", antialias=True)
    return np.asarray(resized).reshape(tokens, width).astype(embedding.dtype)
