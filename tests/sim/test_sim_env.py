import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rt2_jax.errors import UserError
from rt2_jax.sim.tasks.env import ACTION_HIGH, TabletopEnv
from rt2_jax.sim.tasks.expert import expert_action
from rt2_jax.sim.tasks.splits import SPLITS, sample_task


@pytest.fixture(scope="module")
def env():
    env = TabletopEnv(image_size=48, max_steps=12)
    yield env
    env.close()


def stay(terminate=0.0):
    return np.array((terminate, 0, 0, 0, 0, 0, 0, -1), np.float32)


def test_gymnasium_accepts_it():
    env = TabletopEnv(image_size=48)
    check_env(env)
    env.close()


def test_the_expert_is_rewarded_once_at_the_end(env):
    scene, task = sample_task("seen", "reach", 5)
    observation, info = env.reset(seed=0, options={"scene": scene, "task": task})
    assert observation["instruction"] == task.instruction and not info["success"]
    rewards, terminated = [], False
    while not terminated:
        observation, reward, terminated, truncated, info = env.step(expert_action(env.world, task))
        rewards.append(reward)
        assert not truncated and env.observation_space.contains(observation)
    assert rewards[-1] == 1.0 and sum(rewards) == 1.0 and info["success"]


def test_stopping_early_earns_nothing(env):
    env.reset(seed=1)
    before = env.world.gripper_pose()[0]
    action = ACTION_HIGH.copy()
    _, reward, terminated, truncated, info = env.step(action)
    assert terminated and not truncated and reward == 0.0 and not info["success"]
    assert np.array_equal(env.world.gripper_pose()[0], before)  # nothing moves in the step that stops


def test_an_episode_is_truncated_at_its_limit(env):
    env.reset(seed=2)
    ends = [env.step(stay())[2:4] for _ in range(12)]
    assert ends == [(False, False)] * 11 + [(False, True)]


def test_the_seed_alone_decides_the_episode(env):
    first, _ = env.reset(seed=3)
    other, _ = env.reset(seed=4)
    again, _ = env.reset(seed=3)
    assert np.array_equal(first["image"], again["image"]) and first["instruction"] == again["instruction"]
    assert not np.array_equal(first["image"], other["image"])


def test_actions_beyond_the_bounds_are_clipped(env):
    env.reset(seed=5)
    before = env.world.gripper_pose()[0]
    env.step(np.array((0, 9, 0, 0, 0, 0, 0, -9), np.float32))
    assert np.abs(env.world.gripper_pose()[0] - before).max() < 0.042


def test_every_split_speaks_within_the_observation_space(env):
    space = env.observation_space["instruction"]
    for split in SPLITS:
        for seed in range(20):
            text = sample_task(split, None, seed)[1].instruction
            assert space.contains(text), text


def test_misuse_is_named():
    with pytest.raises(UserError, match="call reset first"):
        TabletopEnv().step(stay())
    with pytest.raises(UserError, match="'scene' and 'task'"):
        TabletopEnv().reset(options={"scene": sample_task("seen", None, 0)[0]})
    with pytest.raises(UserError, match="max_steps 0"):
        TabletopEnv(max_steps=0)
