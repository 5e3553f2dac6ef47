"""What a model takes in memory when nothing runs, from shapes alone: nothing is allocated."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rt2_jax.fit.flops import ACTION_TOKENS
from rt2_jax.models.backbone import Cache, Params, make_backbone
from rt2_jax.models.config import ModelConfig
from rt2_jax.models.sizes import count
from rt2_jax.train.config import OptimizerConfig
from rt2_jax.train.optimizer import make_optimizer
from rt2_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes of a whole model, however many chips hold it.

    Attributes:
        float32, bfloat16: the parameters.
        train_state: float32 parameters and Adafactor's statistics, all parameters trained.
        cache: what is remembered of one robot while its action is decoded, in the model's compute dtype.
    """

    float32: int
    bfloat16: int
    train_state: int
    cache: int

    @property
    def serving(self) -> int:
        """bfloat16 parameters and the cache of one robot."""
        return self.bfloat16 + self.cache


def footprint(config: ModelConfig, prompt_len: int) -> Footprint:
    """A model's memory at rest; its cache for a prompt of ``prompt_len`` tokens and an action."""
    backbone = make_backbone(config)
    params = jax.eval_shape(backbone.init, jax.ShapeDtypeStruct((2,), np.uint32))
    optimizer, _ = make_optimizer(OptimizerConfig(), steps=1, axes=backbone.logical_axes())
    state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, jax.eval_shape(optimizer.init, params))
    frames = (1, config.num_images, config.image_size, config.image_size, 3)
    images, prompt = jax.ShapeDtypeStruct(frames, jnp.uint8), jax.ShapeDtypeStruct((1, prompt_len), jnp.int32)

    def prefill(params: Params, images: jax.Array, prompt: jax.Array) -> tuple[jax.Array, Cache]:
        return backbone.prefill(params, images, prompt, ACTION_TOKENS + 1)

    _, cache = jax.eval_shape(prefill, params, images, prompt)
    numbers = count(params)
    return Footprint(float32=4 * numbers, bfloat16=2 * numbers, train_state=_bytes(state), cache=_bytes(cache))


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
