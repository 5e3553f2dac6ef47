"""The update rules, their schedules, and which parameters they touch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from rt2_jax.errors import UserError
from rt2_jax.train.config import OptimizerConfig
from rt2_jax.train.optimizer import make_optimizer, make_schedule
from rt2_jax.train.trainable import merge_params, split_params, trainable_paths

ADAFACTOR = OptimizerConfig(learning_rate=0.1, schedule="constant", warmup_steps=0, min_dim_size_to_factor=4)


def test_schedules_follow_their_formulas():
    rsqrt = make_schedule(OptimizerConfig(learning_rate=2.0, warmup_steps=100), 1000)
    assert float(rsqrt(0)) == pytest.approx(2.0 / 100)
    assert float(rsqrt(99)) == pytest.approx(2.0)
    assert float(rsqrt(399)) == pytest.approx(2.0 * (100 / 400) ** 0.5)
    constant = make_schedule(OptimizerConfig(learning_rate=2.0, schedule="constant", warmup_steps=0), 1000)
    assert float(constant(0)) == float(constant(999)) == 2.0
    cosine = make_schedule(OptimizerConfig(learning_rate=2.0, schedule="cosine", warmup_steps=10), 110)
    assert [float(cosine(n)) for n in (4, 9, 59, 109)] == pytest.approx([1.0, 2.0, 1.0, 0.0], abs=1e-6)


def tree(seed, shapes):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def descend(optimizer, params, gradients):
    state = optimizer.init(params)
    update = jax.jit(lambda grads, state, params: optimizer.update(grads, state, params))
    for grads in gradients:
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


SHAPES = {"kernel": (8, 6), "scale": (6,), "heads": (5, 3, 8)}
AXES = {"kernel": ("embed", "mlp"), "scale": ("norm",), "heads": ("heads", "head_dim", "embed")}


def test_adafactor_is_optax_adafactor():
    params, gradients = tree(0, SHAPES), [tree(n, SHAPES) for n in range(1, 4)]
    ours, _ = descend(make_optimizer(ADAFACTOR, 10, AXES)[0], params, gradients)
    theirs, _ = descend(optax.adafactor(0.1, min_dim_size_to_factor=4), params, gradients)
    for name in SHAPES:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5)


def test_adafactor_updates_stacked_layers_as_if_they_were_not():
    shapes = {"a": (8, 6), "b": (8, 6)}
    params, gradients = tree(0, shapes), [tree(n, shapes) for n in range(1, 4)]
    params["b"] = params["b"] * 10
    one = ("embed", "mlp")
    apart, _ = descend(make_optimizer(ADAFACTOR, 10, {"a": one, "b": one})[0], params, gradients)

    def stack(tree):
        return {"ab": jnp.stack([tree["a"], tree["b"]])}

    optimizer = make_optimizer(ADAFACTOR, 10, {"ab": ("layers", *one)})[0]
    together, _ = descend(optimizer, stack(params), [stack(grads) for grads in gradients])
    np.testing.assert_allclose(together["ab"], stack(apart)["ab"], rtol=1e-5)
    unnamed = make_optimizer(ADAFACTOR, 10, {"ab": (None, *one)})[0]
    ignorant, _ = descend(unnamed, stack(params), [stack(grads) for grads in gradients])
    assert not np.allclose(ignorant["ab"], stack(apart)["ab"], rtol=1e-3)


def test_adamw_is_optax_adamw_with_decay_on_matrices_alone():
    config = OptimizerConfig(
        name="adamw", learning_rate=0.1, schedule="constant", warmup_steps=0, beta1=0.9, beta2=0.98, weight_decay=0.1
    )
    params, gradients = tree(0, SHAPES), [tree(n, SHAPES) for n in range(1, 4)]
    ours, _ = descend(make_optimizer(config, 10, AXES)[0], params, gradients)
    mask = {"kernel": True, "scale": False, "heads": True}
    theirs, _ = descend(optax.adamw(0.1, 0.9, 0.98, weight_decay=0.1, mask=mask), params, gradients)
    for name in SHAPES:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5)


def test_a_stacked_vector_is_a_vector_to_weight_decay():
    config = OptimizerConfig(name="adamw", learning_rate=1.0, schedule="constant", warmup_steps=0, weight_decay=0.5)
    params = {"vectors": jnp.ones((3, 4)), "matrix": jnp.ones((3, 4))}
    optimizer = make_optimizer(config, 10, {"vectors": ("layers", "norm"), "matrix": ("embed", "mlp")})[0]
    after, _ = descend(optimizer, params, [jax.tree.map(jnp.zeros_like, params)])
    assert np.all(after["vectors"] == 1.0) and np.all(after["matrix"] == 0.5)


def test_muon_is_optax_muon_on_matrices_and_adam_on_the_rest():
    shapes = {"kernel": (8, 6), "heads_in": (8, 2, 3), "heads_out": (2, 3, 8), "table": (9, 8), "scale": (8,)}
    axes = {
        "kernel": ("embed", "mlp"),
        "heads_in": ("embed", "heads", "head_dim"),
        "heads_out": ("heads", "head_dim", "embed"),
        "table": ("vocab", "embed"),
        "scale": ("norm",),
    }
    params, gradients = tree(0, shapes), [tree(n, shapes) for n in range(1, 4)]
    config = OptimizerConfig(name="muon", learning_rate=0.1, schedule="constant", warmup_steps=0, beta2=0.98)
    ours, _ = descend(make_optimizer(config, 10, axes)[0], params, gradients)
    flat = {"kernel": (8, 6), "heads_in": (8, 6), "heads_out": (6, 8)}

    def matrices(tree):
        return {name: tree[name].reshape(shape) for name, shape in flat.items()}

    expected, _ = descend(
        optax.contrib.muon(0.1, consistent_rms=0.2), matrices(params), [matrices(grads) for grads in gradients]
    )
    adam, _ = descend(optax.adam(0.1, b2=0.98), params, gradients)
    for name, array in (matrices(ours) | {"table": ours["table"], "scale": ours["scale"]}).items():
        np.testing.assert_allclose(array, (adam | expected)[name], rtol=1e-4, atol=1e-6)


def test_muon_moves_each_layer_of_a_stack_as_its_own_matrix():
    one = ("embed", "mlp")
    params, gradients = tree(0, {"a": (8, 6), "b": (8, 6)}), [tree(n, {"a": (8, 6), "b": (8, 6)}) for n in (1, 2)]
    config = OptimizerConfig(name="muon", learning_rate=0.1, schedule="constant", warmup_steps=0, weight_decay=0.1)
    apart, _ = descend(make_optimizer(config, 10, {"a": one, "b": one})[0], params, gradients)

    def stack(tree):
        return {"ab": jnp.stack([tree["a"], tree["b"]])}

    optimizer = make_optimizer(config, 10, {"ab": ("layers", *one)})[0]
    together, _ = descend(optimizer, stack(params), [stack(grads) for grads in gradients])
    np.testing.assert_allclose(together["ab"], stack(apart)["ab"], rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_global_norm():
    config = dataclasses.replace(ADAFACTOR, name="adamw", clip_norm=1.0, beta2=0.5)
    params = tree(0, SHAPES)
    big, bigger = (jax.tree.map(lambda x, s=scale: x * s, tree(1, SHAPES)) for scale in (1e3, 1e6))
    one, two = (descend(make_optimizer(config, 10, AXES)[0], params, [grads])[1] for grads in (big, bigger))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


PARAMS = {"vision": {"kernel": 1, "bias": 2}, "text": {"kernel": 3}}


def test_the_first_match_decides_and_every_parameter_needs_one():
    assert trainable_paths(PARAMS, ()) == {"vision/kernel", "vision/bias", "text/kernel"}
    assert trainable_paths(PARAMS, (("vision/.*", "frozen"), (".*", "train"))) == {"text/kernel"}
    for freeze, message in (
        ((("vision/.*", "frozen"),), "no pattern matches parameter text/kernel"),
        ((("vision", "frozen"), (".*", "train")), "'vision' decides over no parameter"),
        (((".*", "train"), ("text/.*", "frozen")), "'text/.*' decides over no parameter"),
        (((".*", "frozen"),), "nothing to train"),
    ):
        with pytest.raises(UserError, match=message.replace(".*", r"\.\*")):
            trainable_paths(PARAMS, freeze)


def test_split_parameters_merge_again():
    parts = split_params(PARAMS, frozenset({"text/kernel"}))
    assert parts == ({"text": {"kernel": 3}}, {"vision": {"kernel": 1, "bias": 2}})
    assert merge_params(*parts) == PARAMS
    assert merge_params(*split_params(PARAMS, trainable_paths(PARAMS, ()))) == PARAMS
