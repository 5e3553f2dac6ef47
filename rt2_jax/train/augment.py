"""Photometric jitter and small shifts of uint8 images, on the accelerator."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from rt2_jax.models.image_tokens import frames_shown
from rt2_jax.train.config import AugmentConfig


def augment(
    images: UInt8[Array, "batch images height width 3"], rng: PRNGKeyArray, config: AugmentConfig
) -> UInt8[Array, "batch images height width 3"]:
    """Jitters each example; an example's images all get the same draw, for they show one scene.

    Of several images, those that are black stay so: they are none (`models.image_tokens.frames_shown`).

    Args:
        images: of a batch.
        rng: the draws depend on it and the row alone, not on the mesh.
        config: amplitudes; those at 0 cost nothing.
    """
    shown = frames_shown(images)[..., None, None, None]
    keys = dict(zip(("brightness", "contrast", "shift"), jax.random.split(rng, 3), strict=True))
    rows = (images.shape[0], 1, 1, 1, 1)
    if config.shift:
        moves = jax.random.randint(keys["shift"], (images.shape[0], 2), -config.shift, config.shift + 1)
        images = jax.vmap(_shift)(images, moves)
    if not (config.brightness or config.contrast):
        return images
    x = images.astype(jnp.float32)
    if config.contrast:
        factor = jax.random.uniform(keys["contrast"], rows, minval=1 - config.contrast, maxval=1 + config.contrast)
        mean = jnp.mean(x, axis=(1, 2, 3, 4), keepdims=True, where=shown)
        x = (x - mean) * factor + mean
    if config.brightness:
        x += 255.0 * jax.random.uniform(keys["brightness"], rows, minval=-config.brightness, maxval=config.brightness)
    return jnp.where(shown, jnp.clip(jnp.round(x), 0, 255).astype(jnp.uint8), 0)


def _shift(
    images: UInt8[Array, "images height width 3"], move: Int[Array, "2"]
) -> UInt8[Array, "images height width 3"]:
    """Moved by (down, right) pixels, the edge repeated."""
    height, width = images.shape[1:3]
    down = jnp.clip(jnp.arange(height) - move[0], 0, height - 1)
    right = jnp.clip(jnp.arange(width) - move[1], 0, width - 1)
    return jnp.take(jnp.take(images, down, axis=1), right, axis=2)
