"""What the rest of rt2_jax knows of a model: pure functions of a parameter tree."""

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, Int32, PRNGKeyArray, PyTree, UInt8

from rt2_jax.errors import UserError
from rt2_jax.models.config import ModelConfig, PrefixLmConfig
from rt2_jax.models.embedding import PAD_ID
from rt2_jax.models.int8 import quantize_boxed
from rt2_jax.models.lora import add_lora, scale_lora
from rt2_jax.models.pali import Pali
from rt2_jax.models.palm_e import PalmE
from rt2_jax.models.stack import lay_apart

Params = PyTree[Array]  # nested dict; float32, but for parts that are frozen in less or int8
Cache = PyTree[Array]  # a wiring's own


@runtime_checkable
class Backbone(Protocol):
    """A vision-language model as pure functions, the same for every wiring."""

    config: ModelConfig

    def init(self, rng: PRNGKeyArray) -> Params:
        """Fresh float32 parameters as nested dicts; deterministic in ``rng``, whatever the mesh."""
        ...

    def logical_axes(self) -> PyTree:
        """Tree like the parameters' whose leaves are tuples of logical axis names (see parallel/rules.py)."""
        ...

    def logits(
        self,
        params: Params,
        images: UInt8[Array, "batch images height width 3"],
        prompt: Int32[Array, "batch prompt"],
        target: Int32[Array, "batch length"],
        *,
        dropout_rng: PRNGKeyArray | None = None,
    ) -> Float32[Array, "batch length vocabulary"]:
        """Teacher-forced logits.

        Takes prompts padded on the right, and shifts the target right inside: row i sees target[:, :i]. A
        ``dropout_rng`` switches dropout on.
        """
        ...

    def prefill(
        self,
        params: Params,
        images: UInt8[Array, "batch images height width 3"],
        prompt: Int32[Array, "batch prompt"],
        max_len: int,
        *,
        ids: Int32[Array | np.ndarray, " tokens"] | None = None,
    ) -> tuple[Float32[Array, "batch tokens"], Cache]:
        """Logits of the target's first token, and a cache to decode the others with.

        The cache serves targets of up to ``max_len`` tokens. ``ids``: the tokens whose logits are wanted; None: all.
        The output table is multiplied with their rows alone.
        """
        ...

    def decode_step(
        self,
        params: Params,
        cache: Cache,
        token: Int32[Array, " batch"],
        index: Int[Array, ""] | int,
        *,
        ids: Int32[Array | np.ndarray, " tokens"] | None = None,
    ) -> tuple[Float32[Array, "batch tokens"], Cache]:
        """Logits of the token after ``token``, and the cache with ``token`` in it.

        ``token`` is the target's token number ``index``, one integer for all rows, 0 .. max_len - 2. ``ids``: as in
        `prefill`.
        """
        ...


class ModelBackbone:
    """`Backbone` of a wiring's module: `Pali` or `PalmE`, as the language model asks for.

    ``apart``: for parameters of `lay_apart`, to decode with; `init` and `logical_axes` are those of the stacks.
    """

    def __init__(self, config: ModelConfig, apart: bool = False):
        self.config = config
        self._module = _module(config, apart)

    def init(self, rng: PRNGKeyArray) -> Params:
        """See `Backbone.init`."""
        return nn.meta.unbox(self._boxed(rng))

    def logical_axes(self) -> PyTree:
        """See `Backbone.logical_axes`."""
        boxed = jax.eval_shape(self._boxed, jax.ShapeDtypeStruct((2,), jnp.uint32))
        return jax.tree.map(lambda box: tuple(box.names), boxed, is_leaf=_is_box)

    def logits(
        self,
        params: Params,
        images: UInt8[Array, "batch images height width 3"],
        prompt: Int32[Array, "batch prompt"],
        target: Int32[Array, "batch length"],
        *,
        dropout_rng: PRNGKeyArray | None = None,
    ) -> Float32[Array, "batch length {self.config.vocab_size}"]:
        """See `Backbone.logits`."""
        self._check_images(images)
        rngs = None if dropout_rng is None else {"dropout": dropout_rng}
        return self._apply(params, images, prompt, target, rngs=rngs)

    def prefill(
        self,
        params: Params,
        images: UInt8[Array, "batch images height width 3"],
        prompt: Int32[Array, "batch prompt"],
        max_len: int,
        *,
        ids: Int32[Array | np.ndarray, " tokens"] | None = None,
    ) -> tuple[Float32[Array, "batch tokens"], Cache]:
        """See `Backbone.prefill`."""
        self._check_images(images)
        return self._apply(params, images, prompt, max_len, ids, method="prefill")

    def decode_step(
        self,
        params: Params,
        cache: Cache,
        token: Int32[Array, " batch"],
        index: Int[Array, ""] | int,
        *,
        ids: Int32[Array | np.ndarray, " tokens"] | None = None,
    ) -> tuple[Float32[Array, "batch tokens"], Cache]:
        """See `Backbone.decode_step`."""
        return self._apply(params, cache, token, index, ids, method="decode_step")

    def _apply(self, params: Params, *arguments: Any, **options: Any) -> Any:
        params = scale_lora(params, self.config.lora) if self.config.lora else params
        return self._module.apply({"params": params}, *arguments, **options)

    def _boxed(self, rng: PRNGKeyArray) -> PyTree:
        config = self.config
        images = jnp.zeros((1, config.num_images, config.image_size, config.image_size, 3), jnp.uint8)
        ids = jnp.full((1, 1), PAD_ID, jnp.int32)
        return _jitted_init(config)(rng, images, ids)

    def _check_images(self, images: Array) -> None:
        size, count = self.config.image_size, self.config.num_images
        if images.ndim != 5 or images.shape[1:] != (count, size, size, 3) or images.dtype != jnp.uint8:
            raise UserError(
                f"images are {images.dtype}{list(images.shape)} but model {self.config.name} takes "
                f"uint8[B, {count}, {size}, {size}, 3]; resize them, or change image_size or num_images of its config"
            )


def _module(config: ModelConfig, apart: bool) -> nn.Module:
    text = config.text
    return PalmE(config, text, apart) if isinstance(text, PrefixLmConfig) else Pali(config, text, apart)


@functools.cache
def _jitted_init(config: ModelConfig) -> Callable[[PRNGKeyArray, Array, Array], PyTree]:
    module = _module(config.replace(scan_unroll=False), apart=False)  # the scan compiles one block, not all

    def init(rng: PRNGKeyArray, images: Array, ids: Array) -> PyTree:
        params = module.init(rng, images, ids, ids)["params"]
        params = add_lora(params, config.lora, rng) if config.lora else params
        return quantize_boxed(params) if config.quantized else params

    # Op by op it would take a minute; inside another jit this one dissolves.
    return jax.jit(init)


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, nn.meta.AxisMetadata)


def make_backbone(config: ModelConfig, *, apart: bool = False) -> Backbone:
    """The backbone of a configuration; ``apart``: for parameters of `models.stack.lay_apart`."""
    return ModelBackbone(config, apart)


def for_decoding(backbone: Backbone, params: Params) -> tuple[Backbone, Params]:
    """The model laid out as its device decodes fastest: on a single CPU with its layers apart (models/stack.py).

    A backbone of another making is left as it is: nothing is known of its parameters.
    """
    if not isinstance(backbone, ModelBackbone):
        return backbone, params
    devices = {device for leaf in jax.tree.leaves(params) for device in leaf.devices()}
    if len(devices) > 1 or devices.pop().platform != "cpu":
        return backbone, params
    return make_backbone(backbone.config, apart=True), lay_apart(params)
