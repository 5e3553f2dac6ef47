"""Frames to tokens of the language model: the ViT alone on every image, then a projection (arXiv 2209.06794, 3.1)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from rt2_jax.models.config import ModelConfig
from rt2_jax.models.layers import FAN_IN, Linear
from rt2_jax.models.vit import Vit
from rt2_jax.parallel.rules import constrain


def vision_parts(config: ModelConfig, apart: bool) -> tuple[Vit | None, Linear | None]:
    """The ViT and the projection of its tokens, for a wiring's ``setup``; Nones for a model without vision.

    ``apart``: see models/stack.py.
    """
    if config.vision is None:
        return None, None
    dtype = jnp.dtype(config.compute_dtype)
    vision = Vit(config.vision, dtype=dtype, remat=config.remat, unroll=config.scan_unroll, apart=apart)
    return vision, Linear(config.text.width, dtype, ("patch", "embed"), FAN_IN)


def frames_shown(images: UInt8[Array, "batch images height width 3"]) -> Bool[Array, "batch images"]:
    """Which frames are there.

    Where an example has several, a black one stands for one that is not: the episode is younger than the history. The
    reader, the closed loop and augmentation agree on that, so that no other array has to travel with the frames.
    """
    if images.shape[1] == 1:
        return jnp.ones(images.shape[:2], bool)
    return jnp.any(images != 0, axis=(2, 3, 4))


def image_tokens(
    vision: Vit | None,
    projection: Linear | None,
    images: UInt8[Array, "batch images height width 3"],
    like: Float[Array, "batch length embed"],
) -> tuple[Float[Array, "batch tokens embed"], Bool[Array, "batch tokens"]]:
    """The tokens of all images, in the dtype and width of ``like``; their mask is False on frames that are not there.

    Every image has ``ModelConfig.tokens_per_image`` of them.
    """
    batch, count = images.shape[:2]
    if vision is None or projection is None:
        return jnp.zeros((batch, 0, like.shape[-1]), like.dtype), jnp.ones((batch, 0), bool)
    frames = images.reshape(batch * count, *images.shape[2:])
    frames = constrain(frames, "activation_batch", None, None, None)
    tokens = projection(vision(frames.astype(jnp.float32) / 127.5 - 1.0))
    tokens = tokens.reshape(batch, -1, tokens.shape[-1])
    return tokens, jnp.repeat(frames_shown(images), tokens.shape[1] // count, axis=1)
