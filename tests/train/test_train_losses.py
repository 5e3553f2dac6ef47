"""The loss is a sum over tokens over the global token count, and each task's numbers are its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.train.losses import loss_sums, summarize, token_losses

B, L, V, TASKS = 6, 5, 7, 3


def example(seed):
    rng = np.random.default_rng(seed)
    weights = (np.arange(L) < rng.integers(0, L + 1, (B, 1))).astype(np.float32)
    batch = {
        "target": rng.integers(0, V, (B, L)).astype(np.int32),
        "weights": weights,
        "task": rng.integers(0, TASKS, B).astype(np.int32),
    }
    logits = rng.normal(size=(B, L, V)).astype(np.float32) * 3
    # Some rows answer right, so that exact matches come up.
    for row in range(0, B, 2):
        logits[row] = np.eye(V)[batch["target"][row]] * 9
    return logits, batch


def reference(logits, target):
    log_z = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    return log_z - np.take_along_axis(logits, target[..., None], -1)[..., 0], log_z


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_sums_are_those_of_a_plain_loop(seed):
    logits, batch = example(seed)
    total, sums = loss_sums(logits, batch, TASKS, z_loss=0.01)
    cross_entropy, log_z = reference(logits, batch["target"])
    weights = batch["weights"]
    assert float(total) == pytest.approx(((cross_entropy + 0.01 * log_z**2) * weights).sum(), rel=1e-5, abs=1e-5)
    for task in range(TASKS):
        rows = [row for row in range(B) if batch["task"][row] == task]
        right = [(logits[row].argmax(-1) == batch["target"][row]) for row in rows]
        tokens = [int(weights[row].sum()) for row in rows]
        wanted = {
            "loss": sum((cross_entropy[row] * weights[row]).sum() for row in rows),
            "tokens": sum(tokens),
            "correct": sum(int(r[:n].sum()) for r, n in zip(right, tokens, strict=True)),
            "exact": sum(bool(n and r[:n].all()) for r, n in zip(right, tokens, strict=True)),
            "examples": sum(n > 0 for n in tokens),
        }
        for name, value in wanted.items():
            assert float(sums[name][task]) == pytest.approx(value, rel=1e-5, abs=1e-5), name


def test_a_row_of_padding_changes_nothing():
    logits, batch = example(1)
    batch["weights"][3] = 0
    total, sums = loss_sums(logits, batch, TASKS)
    kept = np.arange(B) != 3
    other, other_sums = loss_sums(logits[kept], {name: array[kept] for name, array in batch.items()}, TASKS)
    assert float(total) == pytest.approx(float(other), rel=1e-6)
    assert all(np.allclose(sums[name], other_sums[name]) for name in sums)


def test_large_logits_stay_finite():
    logits = np.full((1, 1, 4), 1e4, np.float32)
    cross_entropy, penalty, _ = token_losses(logits, np.zeros((1, 1), np.int32), 1e-4)
    assert float(cross_entropy[0, 0]) == pytest.approx(np.log(4), rel=1e-2)
    assert np.isfinite(float(penalty[0, 0]))


def test_numbers_are_ratios_of_sums_and_absent_tasks_are_left_out():
    sums = {
        "loss": np.array([6.0, 1.0, 0.0]),
        "tokens": np.array([3.0, 1.0, 0.0]),
        "correct": np.array([1.0, 1.0, 0.0]),
        "exact": np.array([0.0, 1.0, 0.0]),
        "examples": np.array([2.0, 1.0, 0.0]),
    }
    numbers = summarize(sums, ("a", "b", "c"))
    assert numbers["loss"] == pytest.approx(7 / 4) and numbers["token_accuracy"] == 0.5
    assert numbers["exact_match"] == pytest.approx(1 / 3)
    assert numbers["a/loss"] == 2.0 and numbers["b/exact_match"] == 1.0 and "c/loss" not in numbers
