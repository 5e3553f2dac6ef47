import re

import numpy as np
import pytest

from rt2_jax.errors import UserError
from rt2_jax.sim.tasks.env import ACTION_HIGH, ACTION_LOW
from rt2_jax.sim.tasks.rollout import Disturbance, record_episode
from rt2_jax.sim.tasks.splits import sample_task
from rt2_jax.sim.world.world import World

SCENE, TASK = sample_task("train", "pick", 7)


@pytest.fixture(scope="module")
def world():
    world = World(SCENE, 48)
    yield world
    world.close()


def test_an_episode_holds_frames_and_the_actions_taken_on_them(world):
    episode = record_episode(SCENE, TASK, 0, world=world)
    steps = len(episode.actions)
    assert episode.success and episode.skill == "pick"
    assert len(episode.plans) == steps
    assert all(re.fullmatch(rf"{TASK.plan} at \d+ \d+, robot gripper at \d+ \d+", plan) for plan in episode.plans)
    assert episode.images.shape == (steps, 48, 48, 3) and episode.images.dtype == np.uint8
    assert episode.actions.shape == (steps, 8) and episode.actions.dtype == np.float32
    assert episode.actions[:, 0].tolist() == [0.0] * (steps - 1) + [1.0]
    world.reset(SCENE)
    assert np.array_equal(episode.images[0], world.render())
    world.step(episode.actions[0])
    assert np.array_equal(episode.images[1], world.render())


def test_an_episode_is_a_function_of_its_seed(world):
    first, again, other = (record_episode(SCENE, TASK, seed, noise=0.5, world=world) for seed in (1, 1, 2))
    assert np.array_equal(first.images, again.images) and np.array_equal(first.actions, again.actions)
    assert first.actions.shape != other.actions.shape or not np.array_equal(first.actions, other.actions)


def test_disturbed_episodes_show_more_states_and_still_succeed(world):
    clean = record_episode(SCENE, TASK, 0, world=world)
    noisy = [record_episode(SCENE, TASK, seed, noise=0.2, world=world) for seed in range(6)]
    assert sum(episode.success for episode in noisy) >= 5
    assert np.mean([len(episode.actions) for episode in noisy]) > len(clean.actions)


def test_an_episode_that_is_cut_short_has_not_succeeded(world):
    episode = record_episode(SCENE, TASK, 0, max_steps=3, world=world)
    assert len(episode.actions) == 3 and not episode.success and episode.actions[-1, 0] == 0


def test_disturbances_begin_with_their_chance_and_stay_in_bounds():
    action = np.array((0, 0.04, -0.04, 0, 0, 0, 0.3, 1), np.float32)
    calm, wild = Disturbance(np.random.default_rng(0), 0.0), Disturbance(np.random.default_rng(0), 1.0)
    assert all(np.array_equal(calm.apply(action), action) for _ in range(20))
    executed = np.stack([wild.apply(action) for _ in range(300)])
    assert (executed >= ACTION_LOW).all() and (executed <= ACTION_HIGH).all()
    assert not (executed == action).all(-1).any()
    assert 0.02 < (executed[:, 7] < 0).mean() < 0.25


def test_a_noise_that_is_no_probability_is_refused():
    with pytest.raises(UserError, match="noise 1.5"):
        Disturbance(np.random.default_rng(0), 1.5)
