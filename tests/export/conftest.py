import functools
import pathlib

import numpy as np
import pytest

from rt2_jax.bundle.store import load_bundle
from rt2_jax.inputs.images import decode_image
from rt2_jax.policy.load import make_policy

ROOT = pathlib.Path(__file__).parents[2]
SHIPPED = ROOT / "data" / "checkpoints" / "tabletop_rt2"
INSTRUCTIONS = ("pick red cube", "reach the  yellow\u00a0ball ", "push blue cube to the left", "I'm hungry")


@pytest.fixture(scope="session")
def shipped():
    """The shipped policy's bundle."""
    return load_bundle(SHIPPED)


@pytest.fixture(scope="session")
def frames():
    """uint8[4, 96, 96, 3]: rendered frames of the tabletop."""
    strip = decode_image((ROOT / "tests" / "fixtures" / "shipped_frames.png").read_bytes())
    return np.stack(np.split(strip, 4, axis=1))


@pytest.fixture(scope="session")
def many_frames(frames):
    """Makes uint8[count, 96, 96, 3]: rendered frames moved, darkened, mixed and made noisy, and noise alone."""

    def make(count):
        rng = np.random.default_rng(0)
        made = []
        for number in range(count):
            one, other = frames[rng.integers(4, size=2)].astype(np.float32)
            share = rng.uniform()
            mixed = share * one + (1 - share) * np.roll(other, rng.integers(-20, 20, 2), (0, 1))
            mixed = mixed * rng.uniform(0.5, 1.3) + rng.normal(0, rng.choice([0, 5, 30]), mixed.shape)
            noise = rng.integers(0, 256, mixed.shape)
            made.append(noise if number % 20 == 19 else frames[number] if number < 4 else mixed)
        return np.clip(np.stack(made), 0, 255).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def instructions():
    """Makes `count` instructions."""
    return lambda count: [INSTRUCTIONS[number % 4] for number in range(count)]


@pytest.fixture(scope="session")
def acted(shipped, many_frames, instructions):
    """What the shipped policy does in a mode on eight frames; compiled once for all tests."""
    policy = make_policy(shipped)
    return functools.cache(lambda mode: policy.act(many_frames(8), instructions(8), mode))
