"""The train and evaluation steps as jitted programs over a mesh; the same code for one CPU and for a pod."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float32, PRNGKeyArray, PyTree

from rt2_jax.errors import UserError
from rt2_jax.models.backbone import Backbone, Params
from rt2_jax.parallel.rules import BATCH_AXES, batch_sharding, replicated, shardings
from rt2_jax.train.augment import augment
from rt2_jax.train.config import TrainConfig
from rt2_jax.train.losses import Sums, loss_sums
from rt2_jax.train.optimizer import make_optimizer
from rt2_jax.train.state import TrainState
from rt2_jax.train.trainable import LORA_FREEZE, as_held, merge_params, split_params, trainable_paths

Arrays = dict[str, Array]  # a batch's, by the names of `Batch`


@dataclasses.dataclass(frozen=True)
class Program:
    """A run's compiled functions and where its arrays live. Call them inside ``parallel.rules.partitioned(mesh)``.

    Attributes:
        mesh: the device mesh.
        state: `TrainState` of ShapeDtypeStructs with shardings: what a checkpoint is restored into.
        batch: the global batch as ShapeDtypeStructs with shardings.
        init: (rng) -> TrainState with fresh parameters.
        init_opt_state: (params) -> opt_state, for parameters that come from elsewhere.
        train_step: (state, batch) -> (state, metrics); the state given is consumed. metrics: "loss" (the optimized
            one, z-loss included), "grad_norm", "learning_rate": float32 scalars; "sums": see `losses.loss_sums`.
        eval_step: (params, batch) -> sums; no dropout, no augmentation.
        num_trainable: parameters that train.
    """

    mesh: Mesh
    state: TrainState
    batch: dict[str, jax.ShapeDtypeStruct]
    init: Callable[[PRNGKeyArray], TrainState]
    init_opt_state: Callable[[Params], PyTree]
    train_step: Callable[[TrainState, Arrays], tuple[TrainState, dict[str, Any]]]
    eval_step: Callable[[Params, Arrays], Sums]
    num_trainable: int


def make_program(config: TrainConfig, backbone: Backbone, num_tasks: int, mesh: Mesh) -> Program:
    """Builds the jitted functions of a run; nothing is allocated on a device yet.

    Raises:
        UserError: a batch that the mesh or the microbatches do not divide, a freeze list that misses a parameter, a
            parameter that the mesh does not divide.
    """
    _check_batch(config, mesh)
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    axes = backbone.logical_axes()
    trainable = trainable_paths(shapes, config.freeze, LORA_FREEZE if config.lora else ())
    shapes = as_held(shapes, trainable, config.frozen_dtype)
    train_shapes, _ = split_params(shapes, trainable)
    train_axes, _ = split_params(axes, trainable)
    optimizer, schedule = make_optimizer(config.optimizer, config.steps, train_axes)

    param_shardings = shardings(axes, mesh, shapes)
    train_shardings, _ = split_params(param_shardings, trainable)
    opt_shapes = jax.eval_shape(optimizer.init, train_shapes)
    state_shardings = TrainState(
        step=replicated(mesh),
        params=param_shardings,
        opt_state=opt_state_shardings(opt_shapes, train_shapes, train_shardings, mesh),
    )
    state_shapes = TrainState(jax.ShapeDtypeStruct((), jnp.int32), shapes, opt_shapes)
    batch = _batch_shapes(config, backbone, mesh)

    def init_opt_state(params: Params) -> PyTree:
        return optimizer.init(split_params(params, trainable)[0])

    def init(rng: PRNGKeyArray) -> TrainState:
        params = jax.tree.map(lambda leaf, held: leaf.astype(held.dtype), backbone.init(rng), shapes)
        return TrainState(jnp.zeros((), jnp.int32), params, init_opt_state(params))

    def train_step(state: TrainState, batch: Arrays) -> tuple[TrainState, dict[str, Any]]:
        params, frozen = split_params(state.params, trainable)
        rng = jax.random.fold_in(jax.random.key(config.seed), state.step)
        gradients, loss, sums = _gradients(config, backbone, num_tasks, params, frozen, batch, rng, train_shardings)
        updates, opt_state = optimizer.update(gradients, state.opt_state, params)
        params = merge_params(optax.apply_updates(params, updates), frozen)
        metrics = {
            "loss": loss,
            "grad_norm": optax.global_norm(gradients),
            "learning_rate": schedule(state.step),
            "sums": sums,
        }
        return TrainState(state.step + 1, params, opt_state), metrics

    def eval_step(params: Params, batch: Arrays) -> Sums:
        logits = backbone.logits(params, batch["images"], batch["prompt"], batch["target"])
        return loss_sums(logits, batch, num_tasks)[1]

    return Program(
        mesh=mesh,
        state=_with_shardings(state_shapes, state_shardings),
        batch=batch,
        init=jax.jit(init, out_shardings=state_shardings),
        init_opt_state=jax.jit(init_opt_state, out_shardings=state_shardings.opt_state),
        train_step=jax.jit(train_step, donate_argnums=0, out_shardings=(state_shardings, replicated(mesh))),
        eval_step=jax.jit(eval_step, out_shardings=replicated(mesh)),
        num_trainable=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(train_shapes)),
    )


def check_constrained(program: Program, backbone: Backbone) -> None:
    """Fails when the model's own program holds no sharding constraint although the mesh has several devices.

    Without constraints the compiler may well gather whole activations on each chip: slow or out of memory, in silence.

    Raises:
        RuntimeError: no constraint was traced; the mesh was not set when it should have been.
    """
    if program.mesh.size == 1:
        return
    batch = program.batch
    lowered = jax.jit(backbone.logits).lower(program.state.params, batch["images"], batch["prompt"], batch["target"])
    text = lowered.as_text()
    if "sharding_constraint" not in text and "@Sharding" not in text:
        raise RuntimeError(
            f"the model's program holds no sharding constraint on a mesh of {program.mesh.size} devices: "
            "trace it inside parallel.rules.partitioned(mesh)"
        )


def opt_state_shardings(opt_shapes: PyTree, param_shapes: PyTree, param_shardings: PyTree, mesh: Mesh) -> PyTree:
    """Shardings of an optimizer state from those of the parameters it was made for.

    A leaf whose path ends in a parameter's path belongs to that parameter: with its shape, it lies as the parameter
    does; Adafactor's factored rows and columns lie as the parameter does without the axis summed over; scalars and
    placeholders are replicated.
    """
    shapes: dict[Any, Any] = flax.traverse_util.flatten_dict(param_shapes)
    placed: dict[Any, Any] = flax.traverse_util.flatten_dict(param_shardings)
    specs = {path: sharding.spec for path, sharding in placed.items()}

    def one(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        keys = tuple(entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey))
        if keys not in shapes:
            return replicated(mesh)
        shape = shapes[keys].shape
        spec = (*specs[keys], *(None,) * (len(shape) - len(specs[keys])))
        if leaf.shape == shape:
            return NamedSharding(mesh, PartitionSpec(*spec))
        names = {entry.name for entry in path if isinstance(entry, jax.tree_util.GetAttrKey)}
        # optax.scale_by_factored_rms sums rows over the largest dimension and columns over the second largest.
        for name, rank in (("v_row", -1), ("v_col", -2)):
            axis = int(np.argsort(shape)[rank]) if len(shape) > 1 else 0
            if name in names and leaf.shape == (*shape[:axis], *shape[axis + 1 :]):
                return NamedSharding(mesh, PartitionSpec(*spec[:axis], *spec[axis + 1 :]))
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(one, opt_shapes)


def _gradients(
    config: TrainConfig,
    backbone: Backbone,
    num_tasks: int,
    params: Params,
    frozen: Params,
    batch: Arrays,
    rng: PRNGKeyArray,
    param_shardings: PyTree,
) -> tuple[Params, Float32[Array, ""], Sums]:
    """(gradients, loss, sums) of the whole batch: both parts of the loss's fraction cover every microbatch."""
    denominator = jnp.maximum(jnp.sum(batch["weights"]), 1.0)

    def numerator(params: Params, rows: Arrays, rng: PRNGKeyArray) -> tuple[Float32[Array, ""], Sums]:
        augment_rng, dropout_rng = jax.random.split(rng)
        images = augment(rows["images"], augment_rng, config.augment)
        logits = backbone.logits(
            merge_params(params, frozen), images, rows["prompt"], rows["target"], dropout_rng=dropout_rng
        )
        total, sums = loss_sums(logits, rows, num_tasks, config.z_loss)
        return total / denominator, sums

    grad = jax.value_and_grad(numerator, has_aux=True)
    if config.microbatches == 1:
        (loss, sums), gradients = grad(params, batch, rng)
        return gradients, loss, sums

    def body(carry: PyTree, piece: tuple[Arrays, Array]) -> tuple[PyTree, None]:
        rows, index = piece
        (loss, sums), gradients = grad(params, rows, jax.random.fold_in(rng, index))
        carry = jax.tree.map(jnp.add, carry, (gradients, loss, sums))
        return (jax.lax.with_sharding_constraint(carry[0], param_shardings), *carry[1:]), None

    first = jax.tree.map(lambda x: x[: x.shape[0] // config.microbatches], batch)
    shapes = jax.eval_shape(grad, params, first, rng)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[1], *shapes[0]))
    pieces = (_split_rows(batch, config.microbatches), jnp.arange(config.microbatches))
    (gradients, loss, sums), _ = jax.lax.scan(body, zeros, pieces)
    return gradients, loss, sums


def _split_rows(batch: Arrays, parts: int) -> Arrays:
    """[B, ...] -> [parts, B / parts, ...], every part spread over all devices: row i goes to part i % parts."""
    return {
        name: jnp.swapaxes(array.reshape(array.shape[0] // parts, parts, *array.shape[1:]), 0, 1)
        for name, array in batch.items()
    }


def _check_batch(config: TrainConfig, mesh: Mesh) -> None:
    ways = int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))
    if config.batch_size % (ways * config.microbatches):
        raise UserError(
            f"config: batch_size {config.batch_size} does not divide over {ways} data-parallel devices times "
            f"{config.microbatches} microbatches; make it a multiple of {ways * config.microbatches}"
        )


def _batch_shapes(config: TrainConfig, backbone: Backbone, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    model, rows, sharding = backbone.config, config.batch_size, batch_sharding(mesh)
    shapes = {
        "images": ((rows, model.num_images, model.image_size, model.image_size, 3), jnp.uint8),
        "prompt": ((rows, config.prompt_len), jnp.int32),
        "target": ((rows, config.target_len), jnp.int32),
        "weights": ((rows, config.target_len), jnp.float32),
        "task": ((rows,), jnp.int32),
    }
    return {name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for name, (shape, dtype) in shapes.items()}


def _with_shardings(shapes: PyTree, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, tree)
