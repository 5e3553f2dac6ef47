"""Frames and instructions of the tabletop that no training scene has, for benchmarks that compare what policies say."""

import numpy as np

from rt2_jax.sim.tasks.rollout import record_episode
from rt2_jax.sim.tasks.splits import SPLITS, sample_task
from rt2_jax.sim.world.world import World

FIRST_SEED = 3_000_000
SHARE = 3  # each so-many-th moment of an episode


def held_frames(count: int, image_size: int = 96) -> tuple[np.ndarray, list[str]]:
    """(uint8[count, size, size, 3], instructions): moments of a disturbed expert's episodes, of every split in turn."""
    frames, told, world = [], [], None
    splits = [name for name, split in SPLITS.items() if split.group != "train"]
    number = 0
    while len(frames) < count:
        seed = FIRST_SEED + number
        scene, task = sample_task(splits[number % len(splits)], None, seed)
        world = world or World(scene, image_size)
        episode = record_episode(scene, task, seed, noise=0.3, world=world)
        frames += [*episode.images[number % SHARE :: SHARE]]
        told += [task.instruction] * len(episode.images[number % SHARE :: SHARE])
        number += 1
    if world:
        world.close()
    return np.stack(frames[:count]), told[:count]
