"""What the rest of rt2_jax knows of a model: pure functions of a parameter tree."""

import functools
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from rt2_jax.errors import UserError
from rt2_jax.models.config import ModelConfig
from rt2_jax.models.encoder_decoder import Cache
from rt2_jax.models.pali import PAD_ID, Encoded, Pali

Params = Any  # nested dict of float32 arrays


class Backbone(Protocol):
    """A vision-language model as pure functions.

    B batch, N images, T prompt, L target, S encoder tokens, V vocabulary.
    """

    config: ModelConfig

    def init(self, rng: jax.Array) -> Params:
        """Fresh float32 parameters as nested dicts; deterministic in ``rng``, whatever the mesh."""

    def logical_axes(self) -> Any:
        """Tree like the parameters' whose leaves are tuples of logical axis names (see parallel/rules.py)."""

    def logits(
        self,
        params: Params,
        images: jax.Array,
        prompt: jax.Array,
        target: jax.Array,
        *,
        dropout_rng: jax.Array | None = None,
    ) -> jax.Array:
        """Teacher-forced logits float32[B, L, V].

        Takes images uint8[B, N, H, W, 3], prompt int32[B, T], target int32[B, L], and shifts right inside: row i sees
        target[:, :i]. A ``dropout_rng`` switches dropout on.
        """

    def encode(self, params: Params, images: jax.Array, prompt: jax.Array) -> Encoded:
        """The encoder's output for uint8[B, N, H, W, 3] and int32[B, T]."""

    def start_cache(self, params: Params, encoded: Encoded, max_len: int) -> Any:
        """An empty cache that can take ``max_len`` tokens."""

    def decode_step(
        self, params: Params, encoded: Encoded, cache: Any, token: jax.Array, index: jax.Array
    ) -> tuple[jax.Array, Any]:
        """Logits float32[B, V] of the token after ``token`` int32[B], and the cache with ``token`` in it.

        ``token`` stands at position ``index``, one integer for all rows. The first token is the pad, at index 0; an
        index of max_len or more would overwrite the last place.
        """


class PaliBackbone:
    """`Backbone` of ViT + encoder-decoder (rt2_jax/models/pali.py)."""

    def __init__(self, config: ModelConfig):
        self.config = config
        self._module = Pali(config)

    def init(self, rng: jax.Array) -> Params:
        """See `Backbone.init`."""
        return nn.meta.unbox(self._boxed(rng))

    def logical_axes(self) -> Any:
        """See `Backbone.logical_axes`."""
        boxed = jax.eval_shape(self._boxed, jax.ShapeDtypeStruct((2,), jnp.uint32))
        return jax.tree.map(lambda box: tuple(box.names), boxed, is_leaf=_is_box)

    def logits(self, params, images, prompt, target, *, dropout_rng=None):
        """See `Backbone.logits`."""
        self._check_images(images)
        rngs = None if dropout_rng is None else {"dropout": dropout_rng}
        return self._module.apply({"params": params}, images, prompt, target, rngs=rngs)

    def encode(self, params, images, prompt) -> Encoded:
        """See `Backbone.encode`."""
        self._check_images(images)
        return self._module.apply({"params": params}, images, prompt, method="encode")

    def start_cache(self, params, encoded: Encoded, max_len: int) -> Cache:
        """See `Backbone.start_cache`."""
        return self._module.apply({"params": params}, encoded, max_len, method="start_cache")

    def decode_step(self, params, encoded: Encoded, cache: Cache, token, index) -> tuple[jax.Array, Cache]:
        """See `Backbone.decode_step`."""
        return self._module.apply({"params": params}, encoded, cache, token, index, method="decode_step")

    def _boxed(self, rng):
        config = self.config
        images = jnp.zeros((1, config.num_images, config.image_size, config.image_size, 3), jnp.uint8)
        ids = jnp.full((1, 1), PAD_ID, jnp.int32)
        return _jitted_init(config)(rng, images, ids, ids)["params"]

    def _check_images(self, images) -> None:
        size, count = self.config.image_size, self.config.num_images
        if images.ndim != 5 or images.shape[1:] != (count, size, size, 3) or images.dtype != jnp.uint8:
            raise UserError(
                f"images are {images.dtype}{list(images.shape)} but model {self.config.name} takes "
                f"uint8[B, {count}, {size}, {size}, 3]; resize them, or change image_size or num_images of its config"
            )


@functools.cache
def _jitted_init(config: ModelConfig):
    # Op by op it would take a minute; inside another jit this one dissolves. The scan compiles one block, not all.
    return jax.jit(Pali(config.replace(scan_unroll=False)).init)


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, nn.meta.AxisMetadata)


def make_backbone(config: ModelConfig) -> Backbone:
    """The backbone of a configuration."""
    return PaliBackbone(config)
