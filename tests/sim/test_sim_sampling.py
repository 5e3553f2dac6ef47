"""Layouts: nothing overlaps, names are unique, and the tables are what they should be."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.sim.world import catalog, sampling
from rt2_jax.sim.world.sampling import DecalKind, ObjectKind

seeds = st.integers(0, 2**31)


def _check_layout(scene, on_zone_allowed):
    names = [thing.name for thing in (*scene.objects, *scene.decals)]
    assert len(set(names)) == len(names)
    for thing in scene.objects:
        assert max(abs(thing.x), abs(thing.y)) <= catalog.WORKSPACE
    for first, second in itertools.combinations(scene.objects, 2):
        assert math.hypot(first.x - second.x, first.y - second.y) > first.radius + second.radius
    for first, second in itertools.combinations(scene.decals, 2):
        assert max(abs(first.x - second.x), abs(first.y - second.y)) >= (first.size + second.size) / 2
    touching = 0
    for decal, thing in itertools.product(scene.decals, scene.objects):
        outside = [max(abs(a) - decal.size / 2, 0) for a in (thing.x - decal.x, thing.y - decal.y)]
        if math.hypot(*outside) < thing.radius:
            assert on_zone_allowed and decal.kind == "zone"
            touching += 1
    assert touching <= 1


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_robot_scenes(seed):
    scene = sampling.robot_scene(np.random.default_rng(seed))
    _check_layout(scene, on_zone_allowed=False)
    assert 4 <= len(scene.objects) <= 6 and len(scene.decals) <= 3
    assert {(thing.color, thing.shape) for thing in scene.objects} <= set(sampling.ROBOT_PAIRS)
    assert 0.08 <= scene.gripper.z <= 0.14 and abs(scene.gripper.yaw) <= 0.5
    assert scene == sampling.robot_scene(np.random.default_rng(seed))


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_wide_scenes(seed):
    scene = sampling.wide_scene(np.random.default_rng(seed))
    _check_layout(scene, on_zone_allowed=True)
    assert 1 <= len(scene.objects) <= 6


def test_wide_scenes_vary():
    rng = np.random.default_rng(0)
    scenes = [sampling.wide_scene(rng) for _ in range(400)]
    with_gripper = [scene for scene in scenes if scene.gripper is not None]
    assert 0.4 < len(with_gripper) / len(scenes) < 0.7
    assert {scene.environment.background for scene in scenes} == {
        *catalog.BACKGROUNDS_PLAIN,
        *catalog.BACKGROUNDS_PATTERN,
    }
    low = [scene for scene in with_gripper if scene.gripper.z < 0.07]
    closed = [scene for scene in with_gripper if scene.gripper.closed > 0.6]
    assert len(low) > 20 and len(closed) > 20


def test_superlatives_are_common():
    rng = np.random.default_rng(0)
    lone = [sampling.draw_sizes(rng, 5).count("small") in (1, 4) for _ in range(300)]
    assert 0.4 < np.mean(lone) < 0.8


def test_a_table_that_is_too_small_is_refused():
    objects = [ObjectKind("red", shape, "large") for shape in catalog.SHAPES]
    with pytest.raises(RuntimeError, match="6 objects and 1 decals"):
        sampling.layout(np.random.default_rng(0), objects, [DecalKind("digit", "1")], half_width=0.06)


def test_the_robot_has_18_pairs():
    assert len(sampling.ROBOT_PAIRS) == 6 * 4 - 6
    assert not set(sampling.ROBOT_PAIRS) & catalog.HELD_OUT_PAIRS
