"""Adafactor, AdamW and Muon under a warmup and a decay, for the parameters that train."""

import re
from collections.abc import Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from rt2_jax.errors import UserError
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

    def schedule(number: jax.Array) -> jax.Array:
        t = jnp.asarray(number, jnp.float32) + 1.0
        decay = {
            "rsqrt": lambda: jnp.sqrt(max(warmup, 1.0) / jnp.maximum(t, max(warmup, 1.0))),
            "constant": lambda: jnp.ones_like(t),
            "cosine": lambda: 0.5 + 0.5 * jnp.cos(jnp.pi * jnp.clip((t - warmup) / max(steps - warmup, 1.0), 0.0, 1.0)),
        }[config.schedule]()
        return config.learning_rate * jnp.minimum(1.0, t / max(warmup, 1.0)) * decay

    return schedule


def make_optimizer(
    config: OptimizerConfig, steps: int, axes: Any
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
            parts.append(_scale_by_parameter_rms(stacked))
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


def _decayed(params: Any, stacked: Any) -> Any:
    """Weight decay is for matrices: norms' scales and biases (some have two axes, heads x head_dim) keep their size."""

    def one(path: tuple[Any, ...], param: jax.Array, axis: int) -> bool:
        return param.ndim - (axis >= 0) >= 2 and path[-1].key != "bias"

    return jax.tree_util.tree_map_with_path(one, params, stacked)


def _rms(x: jax.Array, stacked: int) -> jax.Array:
    """Root mean square over all axes but the stacked one, kept as size 1."""
    axes = tuple(axis for axis in range(x.ndim) if axis != stacked)
    return jnp.sqrt(jnp.mean(jnp.square(x), axis=axes, keepdims=True))


def _stacked_axis(names: tuple[str | None, ...]) -> int:
    """Where a parameter holds one layer after another, -1 when it holds one alone."""
    return names.index("layers") if "layers" in names else -1


def _clip_block_rms(threshold: float, stacked: Any) -> optax.GradientTransformation:
    """Divides an update by max(1, its RMS / threshold) (Adafactor, arXiv 1804.04235, section 6)."""

    def clip(update: jax.Array, axis: int) -> jax.Array:
        return update / jnp.maximum(1.0, _rms(update, axis) / threshold)

    return optax.stateless(lambda updates, _: jax.tree.map(clip, updates, stacked))


def _scale_by_parameter_rms(stacked: Any) -> optax.GradientTransformation:
    """Multiplies an update by max(eps2, the parameter's RMS) (Adafactor, section 8)."""

    def scale(update: jax.Array, param: jax.Array, axis: int) -> jax.Array:
        return update * jnp.maximum(LEAST_PARAMETER_SCALE, _rms(param, axis))

    return optax.stateless(lambda updates, params: jax.tree.map(scale, updates, params, stacked))


def trainable_paths(params: Any, freeze: Sequence[tuple[str, str]]) -> frozenset[str]:
    """The paths ("encoder/layers/kernel") of the parameters that train.

    Args:
        params: nested dict of arrays or shapes.
        freeze: (regex, "train" | "frozen"); the first regex that matches the whole path decides; () trains all.

    Raises:
        UserError: a parameter that no regex matches, a regex that no parameter matches, or nothing left to train.
    """
    paths = list(flax.traverse_util.flatten_dict(params, sep="/"))
    if not freeze:
        return frozenset(paths)
    used = set()
    trainable = set()
    for path in paths:
        verdict = next(((pattern, word) for pattern, word in freeze if re.fullmatch(pattern, path)), None)
        if verdict is None:
            raise UserError(f"config: freeze: no pattern matches parameter {path}; add one, or ('.*', 'train') last")
        used.add(verdict[0])
        if verdict[1] == "train":
            trainable.add(path)
    for pattern, _ in freeze:
        if pattern not in used:
            raise UserError(
                f"config: freeze: pattern {pattern!r} decides over no parameter; paths look like {paths[0]}, remove it"
            )
    if not trainable:
        raise UserError("config: freeze leaves nothing to train; mark some pattern 'train'")
    return frozenset(trainable)


def split_params(params: Any, trainable: frozenset[str]) -> tuple[Any, Any]:
    """(trainable, frozen) nested dicts; `merge_params` puts them together again."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    chosen = {path: leaf for path, leaf in flat.items() if path in trainable}
    rest = {path: leaf for path, leaf in flat.items() if path not in trainable}
    return tuple(flax.traverse_util.unflatten_dict(part, sep="/") for part in (chosen, rest))


def merge_params(trainable: Any, frozen: Any) -> Any:
    """The nested dict of both parts' leaves."""
    flat = flax.traverse_util.flatten_dict(trainable, sep="/") | flax.traverse_util.flatten_dict(frozen, sep="/")
    return flax.traverse_util.unflatten_dict(flat, sep="/")
