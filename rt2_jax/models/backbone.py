"""What the rest of rt2_jax knows of a model: pure functions of a parameter tree."""

import functools
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from rt2_jax.errors import UserError
from rt2_jax.models.config import ModelConfig, PrefixLmConfig
from rt2_jax.models.embedding import PAD_ID
from rt2_jax.models.lora import add_lora, scale_lora
from rt2_jax.models.pali import Pali
from rt2_jax.models.palm_e import PalmE

Params = Any  # nested dict of float32 arrays


class Backbone(Protocol):
    """A vision-language model as pure functions, the same for every wiring.

    B batch, N images, T prompt, L target, V vocabulary.
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

        Takes images uint8[B, N, H, W, 3], prompt int32[B, T] padded on the right, target int32[B, L], and shifts right
        inside: row i sees target[:, :i]. A ``dropout_rng`` switches dropout on.
        """

    def prefill(self, params: Params, images: jax.Array, prompt: jax.Array, max_len: int) -> tuple[jax.Array, Any]:
        """Logits float32[B, V] of the target's first token, and a cache to decode the others with.

        Takes images uint8[B, N, H, W, 3] and prompt int32[B, T]; the cache serves targets of up to ``max_len`` tokens.
        """

    def decode_step(self, params: Params, cache: Any, token: jax.Array, index: jax.Array) -> tuple[jax.Array, Any]:
        """Logits float32[B, V] of the token after ``token`` int32[B], and the cache with ``token`` in it.

        ``token`` is the target's token number ``index``, one integer for all rows, 0 .. max_len - 2.
        """


class ModelBackbone:
    """`Backbone` of a wiring's module: `Pali` or `PalmE`, as the language model asks for."""

    def __init__(self, config: ModelConfig):
        self.config = config
        self._module = _module(config)

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
        return self._apply(params, images, prompt, target, rngs=rngs)

    def prefill(self, params, images, prompt, max_len: int) -> tuple[jax.Array, Any]:
        """See `Backbone.prefill`."""
        self._check_images(images)
        return self._apply(params, images, prompt, max_len, method="prefill")

    def decode_step(self, params, cache, token, index) -> tuple[jax.Array, Any]:
        """See `Backbone.decode_step`."""
        return self._apply(params, cache, token, index, method="decode_step")

    def _apply(self, params, *arguments, **options):
        params = scale_lora(params, self.config.lora) if self.config.lora else params
        return self._module.apply({"params": params}, *arguments, **options)

    def _boxed(self, rng):
        config = self.config
        images = jnp.zeros((1, config.num_images, config.image_size, config.image_size, 3), jnp.uint8)
        ids = jnp.full((1, 1), PAD_ID, jnp.int32)
        return _jitted_init(config)(rng, images, ids)

    def _check_images(self, images) -> None:
        size, count = self.config.image_size, self.config.num_images
        if images.ndim != 5 or images.shape[1:] != (count, size, size, 3) or images.dtype != jnp.uint8:
            raise UserError(
                f"images are {images.dtype}{list(images.shape)} but model {self.config.name} takes "
                f"uint8[B, {count}, {size}, {size}, 3]; resize them, or change image_size or num_images of its config"
            )


def _module(config: ModelConfig) -> nn.Module:
    return PalmE(config) if isinstance(config.text, PrefixLmConfig) else Pali(config)


@functools.cache
def _jitted_init(config: ModelConfig):
    module = _module(config.replace(scan_unroll=False))  # the scan compiles one block, not all

    def init(rng, images, ids):
        params = module.init(rng, images, ids, ids)["params"]
        return add_lora(params, config.lora, rng) if config.lora else params

    # Op by op it would take a minute; inside another jit this one dissolves.
    return jax.jit(init)


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, nn.meta.AxisMetadata)


def make_backbone(config: ModelConfig) -> Backbone:
    """The backbone of a configuration."""
    return ModelBackbone(config)
