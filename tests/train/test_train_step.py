"""The step's promises, on a model small enough to check by hand."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.errors import UserError
from rt2_jax.parallel.mesh import make_mesh
from rt2_jax.parallel.rules import partitioned
from rt2_jax.train.augment import augment
from rt2_jax.train.config import AugmentConfig, make_config
from rt2_jax.train.step import make_program

B, T, L, V, SIZE = 8, 3, 4, 16, 8


class LinearBackbone:
    """Logits that are a sum of tables: of the image's brightness, the prompt's first token and the place."""

    config = SimpleNamespace(num_images=1, image_size=SIZE)

    def init(self, rng):
        keys = jax.random.split(rng, 3)
        return {
            "vision": {"kernel": jax.random.normal(keys[0], (1, V))},
            "text": {"embedding": jax.random.normal(keys[1], (V, V)), "place": jax.random.normal(keys[2], (L, V))},
        }

    def logical_axes(self):
        text = {"embedding": ("vocab", "embed"), "place": (None, "vocab")}
        return {"vision": {"kernel": (None, "vocab")}, "text": text}

    def logits(self, params, images, prompt, target, *, dropout_rng=None):
        light = jnp.mean(images.astype(jnp.float32), axis=(1, 2, 3, 4))[:, None] / 255
        text = params["text"]["embedding"][prompt[:, 0]] + light @ params["vision"]["kernel"]
        return text[:, None] + params["text"]["place"]


FIELDS = {
    "data_dir": "", "mixture": {"a": 1, "b": 1}, "steps": 10, "batch_size": B, "prompt_len": T, "target_len": L,
    "optimizer": {"name": "adamw", "learning_rate": 0.1, "schedule": "constant", "warmup_steps": 0, "beta1": 0.9},
}  # fmt: skip


def batch(seed=0):
    rng = np.random.default_rng(seed)
    # Rows of very different lengths: a mean over rows or over microbatches would differ from that over tokens.
    weights = (np.arange(L) < np.array([1, 4, 1, 4, 1, 1, 1, 4])[:, None]).astype(np.float32)
    return {
        "images": rng.integers(0, 256, (B, 1, SIZE, SIZE, 3), dtype=np.uint8),
        "prompt": rng.integers(1, V, (B, T)).astype(np.int32),
        "target": rng.integers(1, V, (B, L)).astype(np.int32),
        "weights": weights,
        "task": np.arange(B, dtype=np.int32) % 2,
    }


def run(steps=3, **changes):
    mesh = make_mesh(None, jax.devices()[:1])
    program = make_program(make_config({**FIELDS, **changes}), LinearBackbone(), 2, mesh)
    with partitioned(mesh):
        state = first = program.init(jax.random.key(0))
        first = jax.device_get(first.params)
        rows = []
        for number in range(steps):
            state, metrics = program.train_step(state, jax.device_put(batch(number), program.batch["task"].sharding))
            rows.append(jax.device_get(metrics))
    return SimpleNamespace(program=program, state=state, first=first, metrics=rows)


def test_the_loss_is_the_sum_over_tokens_over_the_token_count():
    result, rows = run(steps=1, z_loss=0.01), batch()
    params = result.first
    light = rows["images"].astype(np.float64).mean((1, 2, 3, 4))[:, None] / 255
    text = params["text"]["embedding"][rows["prompt"][:, 0]] + light @ params["vision"]["kernel"]
    logits = text[:, None] + params["text"]["place"]
    log_z = np.log(np.exp(logits).sum(-1))
    loss = log_z - np.take_along_axis(logits, rows["target"][..., None], -1)[..., 0] + 0.01 * log_z**2
    assert result.metrics[0]["loss"] == pytest.approx((loss * rows["weights"]).sum() / rows["weights"].sum(), rel=1e-5)
    assert result.metrics[0]["sums"]["tokens"].tolist() == [4, 13]


@pytest.mark.parametrize("microbatches", [2, 4])
def test_microbatches_change_nothing(microbatches):
    whole, cut = run(), run(microbatches=microbatches)
    for a, b in zip(jax.tree.leaves(whole.metrics), jax.tree.leaves(cut.metrics), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(whole.state.params), jax.tree.leaves(cut.state.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_frozen_parameters_stay_and_take_no_optimizer_state():
    result = run(freeze=(("text/.*", "frozen"), (".*", "train")))
    after = jax.device_get(result.state.params)
    assert all(np.array_equal(after["text"][name], result.first["text"][name]) for name in ("embedding", "place"))
    assert not np.array_equal(after["vision"]["kernel"], result.first["vision"]["kernel"])
    assert {leaf.shape for leaf in jax.tree.leaves(result.state.opt_state)} == {(), (1, V)}
    assert result.program.num_trainable == V


def test_the_step_counts_and_consumes_the_state_it_is_given():
    mesh = make_mesh(None, jax.devices()[:1])
    program = make_program(make_config(FIELDS), LinearBackbone(), 2, mesh)
    with partitioned(mesh):
        state = program.init(jax.random.key(0))
        after, _ = program.train_step(state, jax.device_put(batch(), program.batch["task"].sharding))
    assert int(after.step) == 1
    assert jax.tree.leaves(state.params)[0].is_deleted()


def test_training_lowers_the_loss_and_evaluation_does_not_train():
    result = run(steps=10)
    assert result.metrics[-1]["loss"] < result.metrics[0]["loss"] - 0.5
    with partitioned(result.program.mesh):
        data = jax.device_put(batch(), result.program.batch["task"].sharding)
        one, two = (jax.device_get(result.program.eval_step(result.state.params, data)) for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_augmentation_is_part_of_training_alone_and_of_the_seed():
    plain, jittered, again, other = (
        run(steps=1, **changes)
        for changes in (
            {},
            {"augment": {"brightness": 0.5}},
            {"augment": {"brightness": 0.5}},
            {"augment": {"brightness": 0.5}, "seed": 1},
        )
    )
    losses = [float(result.metrics[0]["loss"]) for result in (plain, jittered, again, other)]
    assert losses[1] == losses[2] and len(set(losses)) == 3


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="does not divide"):
        run(batch_size=8, microbatches=3)


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 2, 6, 6, 3), dtype=np.uint8)


def test_no_amplitude_no_change():
    np.testing.assert_array_equal(augment(jnp.asarray(IMAGES), jax.random.key(0), AugmentConfig()), IMAGES)


def test_brightness_and_contrast_keep_type_and_range():
    config = AugmentConfig(brightness=0.9, contrast=0.9)
    out = augment(jnp.asarray(IMAGES), jax.random.key(0), config)
    assert out.dtype == jnp.uint8 and out.shape == IMAGES.shape
    grey = augment(jnp.full((64, 1, 2, 2, 3), 100, jnp.uint8), jax.random.key(1), AugmentConfig(brightness=0.1))
    assert grey.min() >= 74 and grey.max() <= 126 and len(np.unique(grey)) > 10
    flat = augment(jnp.full((8, 1, 2, 2, 3), 100, jnp.uint8), jax.random.key(1), AugmentConfig(contrast=0.5))
    assert np.all(flat == 100)


def test_frames_that_are_not_there_stay_black_and_change_no_others():
    images = IMAGES.copy()
    images[1, 0] = 0
    config = AugmentConfig(brightness=0.5, contrast=0.9, shift=2)
    out = np.asarray(augment(jnp.asarray(images), jax.random.key(0), config))
    assert not out[1, 0].any() and out[1, 1].any()
    as_before = np.asarray(augment(jnp.asarray(IMAGES), jax.random.key(0), config))
    assert np.array_equal(out[[0, 2, 3]], as_before[[0, 2, 3]])
    grey = jnp.asarray(np.stack([np.zeros((1, 2, 2, 3)), np.full((1, 2, 2, 3), 100)], axis=1), jnp.uint8)
    # Contrast is about the mean of the frames that are there.
    assert np.all(np.asarray(augment(grey, jax.random.key(1), AugmentConfig(contrast=0.5)))[:, 1] == 100)


def test_a_shift_moves_all_images_of_an_example_alike():
    out = np.asarray(augment(jnp.asarray(IMAGES), jax.random.key(2), AugmentConfig(shift=2)))
    moved = 0
    for row in range(len(IMAGES)):
        padded = np.pad(IMAGES[row], ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
        found = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if np.array_equal(padded[:, down : down + 6, right : right + 6], out[row])
        ]
        assert len(found) == 1
        moved += found[0] != (2, 2)
    assert moved
