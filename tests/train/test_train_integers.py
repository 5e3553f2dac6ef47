"""Integers that start as neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.errors import UserError
from rt2_jax.train.config import make_config
from rt2_jax.train.integers import order_integers

IDS = np.arange(40, 296)


def fresh(tied=False):
    params = {"token_embedding": {"embedding": jax.random.normal(jax.random.key(0), (400, 64))}, "other": jnp.ones(3)}
    return params if tied else params | {"logits": {"kernel": 0.1 * jax.random.normal(jax.random.key(1), (64, 400))}}


def test_near_values_are_alike_far_ones_are_not():
    params = order_integers(fresh(), IDS, jax.random.key(2))
    for rows in (params["token_embedding"]["embedding"][IDS], params["logits"]["kernel"].T[IDS]):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        likeness = np.asarray(unit @ unit.T)
        by_distance = [np.mean(np.diagonal(likeness, distance)) for distance in (1, 3, 10, 60)]
        assert by_distance[0] > 0.9 and by_distance == sorted(by_distance, reverse=True)
        nearest = np.argmax(likeness - 2 * np.eye(len(IDS)), axis=1)
        assert (np.abs(nearest - np.arange(len(IDS))) == 1).mean() > 0.95


def test_scales_and_all_other_rows_stay():
    before = fresh()
    after = order_integers(before, IDS, jax.random.key(2))
    others = np.setdiff1d(np.arange(400), IDS)
    np.testing.assert_array_equal(
        after["token_embedding"]["embedding"][others], before["token_embedding"]["embedding"][others]
    )
    np.testing.assert_array_equal(after["logits"]["kernel"][:, others], before["logits"]["kernel"][:, others])
    np.testing.assert_array_equal(after["other"], before["other"])
    assert np.std(after["token_embedding"]["embedding"]) == pytest.approx(1.0, rel=0.05)
    assert np.std(after["logits"]["kernel"]) == pytest.approx(0.1, rel=0.05)


def test_a_tied_table_has_no_head_of_its_own():
    assert set(order_integers(fresh(tied=True), IDS, jax.random.key(2))) == {"token_embedding", "other"}


def test_only_random_weights_are_ordered():
    fields = {"data_dir": "d", "mixture": "m", "steps": 1, "batch_size": 1, "ordered_integers": True}
    assert make_config(fields).ordered_integers
    with pytest.raises(UserError, match="ordered_integers is for random weights, but init_from is 'runs/vlm'"):
        make_config({**fields, "init_from": "runs/vlm"})
