"""Adafactor, AdamW and Muon under a warmup and a decay, for the parameters that train."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Float32, PyTree

from rt2_jax.parallel.rules import is_axes
from rt2_jax.train.config import OptimizerConfig
from rt2_jax.train.muon import scale_by_muon_or

# T5X Adafactor's eps1 (added to squared gradients) and eps2 (least RMS of a parameter).
SQUARE_EPS = 1e-30
LEAST_PARAMETER_SCALE = 1e-3
ADAMW_BETA1 = 0.9
MUON_BETA1 = 0.95


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate of an update, by its number from 0.

    With t = number + 1, w = warmup_steps and p = learning_rate: ``p * t / w`` while t < w; then
    rsqrt ``p * sqrt(w / t)`` (PaLI, section 3.3), constant ``p``, or
    cosine ``p * (1 + cos(pi * (t - w) / (steps - w))) / 2``.
    """
    warmup = float(config.warmup_steps)

    def schedule(number: ArrayLike) -> Float32[Array, ""]:
        t = jnp.asarray(number, jnp.float32) + 1.0
        decay = {
            "rsqrt": lambda: jnp.sqrt(max(warmup, 1.0) / jnp.maximum(t, max(warmup, 1.0))),
            "constant": lambda: jnp.ones_like(t),
            "cosine": lambda: 0.5 + 0.5 * jnp.cos(jnp.pi * jnp.clip((t - warmup) / max(steps - warmup, 1.0), 0.0, 1.0)),
        }[config.schedule]()
        return config.learning_rate * jnp.minimum(1.0, t / max(warmup, 1.0)) * decay

    return schedule


def make_optimizer(
    config: OptimizerConfig, steps: int, axes: PyTree
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The update rule, for the tree of trainable parameters, and its learning rate.

    Args:
        config: see `OptimizerConfig`.
        steps: the run's length, which the cosine schedule needs.
        axes: tree like the trainable parameters of tuples of logical axis names. Along "layers" a parameter holds one
            layer after another; what a rule does with a whole parameter (Adafactor's RMS, Muon's matrices), it does
            with each layer.
    """
    schedule = make_schedule(config, steps)
    stacked = jax.tree.map(_stacked_axis, axes, is_leaf=is_axes)
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    if config.name == "adafactor":
        parts.append(
            optax.scale_by_factored_rms(
                decay_rate=config.decay_rate,
                min_dim_size_to_factor=config.min_dim_size_to_factor,
                epsilon=SQUARE_EPS,
            )
        )
        if config.clip_threshold:
            parts.append(_clip_block_rms(config.clip_threshold, stacked))
        if config.multiply_by_parameter_scale:
            parts.append(_scale_by_parameter_rms(axes))
        if config.beta1:
            parts.append(optax.ema(config.beta1, debias=False))
    elif config.name == "adamw":
        beta1 = ADAMW_BETA1 if config.beta1 is None else config.beta1
        parts.append(optax.scale_by_adam(b1=beta1, b2=config.beta2, eps=config.eps))
    else:
        adam = optax.scale_by_adam(b1=ADAMW_BETA1, b2=config.beta2, eps=config.eps)
        parts.append(scale_by_muon_or(adam, axes, MUON_BETA1 if config.beta1 is None else config.beta1))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=lambda params: _decayed(params, stacked)))
    parts.append(optax.scale_by_learning_rate(schedule))
    return optax.chain(*parts), schedule


def _decayed(params: PyTree, stacked: PyTree) -> PyTree:
    """Weight decay is for matrices: norms' scales and biases (some have two axes, heads x head_dim) keep their size."""

    def one(path: tuple[Any, ...], param: Array, axis: int) -> bool:
        return param.ndim - (axis >= 0) >= 2 and path[-1].key != "bias"

    return jax.tree_util.tree_map_with_path(one, params, stacked)


def _rms(x: Float[Array, "..."], stacked: int) -> Float[Array, "..."]:
    """Root mean square over all axes but the stacked one, kept as size 1."""
    axes = tuple(axis for axis in range(x.ndim) if axis != stacked)
    return jnp.sqrt(jnp.mean(jnp.square(x), axis=axes, keepdims=True))


def _stacked_axis(names: tuple[str | None, ...]) -> int:
    """Where a parameter holds one layer after another, -1 when it holds one alone."""
    return names.index("layers") if "layers" in names else -1


def _clip_block_rms(threshold: float, stacked: PyTree) -> optax.GradientTransformation:
    """Divides an update by max(1, its RMS / threshold) (Adafactor, arXiv 1804.04235, section 6)."""

    def clip(update: Float[Array, "*axes"], axis: int) -> Float[Array, "*axes"]:
        return update / jnp.maximum(1.0, _rms(update, axis) / threshold)

    return optax.stateless(lambda updates, _: jax.tree.map(clip, updates, stacked))


def _scale_by_parameter_rms(axes: PyTree) -> optax.GradientTransformation:
    """Multiplies an update by max(eps2, the parameter's RMS) (Adafactor, section 8).

    Not a LoRA's: its B starts at zero, and steps in proportion to its size would hardly leave it.
    """

    def scale(
        names: tuple[str | None, ...], update: Float[Array, "*axes"], param: Float[Array, "*axes"]
    ) -> Float[Array, "*axes"]:
        if "lora_rank" in names:
            return update
        return update * jnp.maximum(LEAST_PARAMETER_SCALE, _rms(param, _stacked_axis(names)))

    return optax.stateless(lambda updates, params: jax.tree.map(scale, axes, updates, params, is_leaf=is_axes))
