"""Rendered web examples: deterministic, and what is said to be visible is."""

import dataclasses

import numpy as np
import pytest

from rt2_jax.sim.language import web
from rt2_jax.sim.language.lexicon import GRIPPER
from rt2_jax.sim.world.sampling import wide_scene
from rt2_jax.sim.world.scene import GripperPose, Scene, SceneObject
from rt2_jax.sim.world.world import World


@pytest.fixture(scope="module")
def renderer():
    made = web.WebRenderer(64)
    yield made
    made.close()


@pytest.fixture(scope="module")
def world():
    made = World(wide_scene(np.random.default_rng(0)), 96)
    yield made
    made.close()


def test_examples_are_deterministic_whatever_came_before(renderer):
    first = renderer.example(3)
    renderer.example(11)
    again, alone = renderer.example(3), web.web_example(3, 64)
    assert first.image.shape == (64, 64, 3) and first.image.dtype == np.uint8
    for other in (again, alone):
        assert (other.annotations, other.scene) == (first.annotations, first.scene)
        np.testing.assert_array_equal(other.image, first.image)
    assert renderer.example(4).annotations != first.annotations


def test_examples_have_the_usual_annotations(renderer):
    for seed in range(8):
        kinds = [annotation.kind for annotation in renderer.example(seed).annotations]
        assert kinds.count("detect") == kinds.count("alt_text") == 1
        assert kinds.count("caption") == 2 and kinds.count("locate") >= 2 and kinds.count("vqa") >= 4


def test_objects_are_where_the_text_says(renderer, world):
    """In the picture without the object, the pixels around its place differ."""
    for seed in range(6):
        scene = dataclasses.replace(renderer.example(seed).scene, gripper=None)
        world.reset(scene)
        whole, positions = world.render().astype(int), web.visible_positions(world)
        for index, thing in enumerate(scene.objects):
            rest = scene.objects[:index] + scene.objects[index + 1 :]
            world.reset(dataclasses.replace(scene, objects=rest))
            changed = np.abs(world.render() - whole).max(axis=-1) > 25
            rows, columns = np.nonzero(changed)
            middle = (100 * columns.mean() / 96, 100 * rows.mean() / 96)
            assert np.hypot(*(np.array(middle) - positions[thing.name])) < 4, (seed, thing)


def test_the_gripper_hides_what_it_covers(world):
    """The geometric estimate against pixels: the share of an object's pixels that the gripper leaves."""
    seen = {"covered": 0, "free": 0}
    for seed in range(400):
        scene = wide_scene(np.random.default_rng(seed))
        if scene.gripper is None or scene.gripper.z > 0.09:
            continue
        world.reset(scene)
        visible, centres = web.visible_positions(world), world.object_positions()
        discs = [web.disc(c, 0.8 * thing.radius) for c, thing in zip(centres, scene.objects, strict=True)]
        covered = [web.covered_by_gripper(world, disc) for disc in discs]
        for index, thing in enumerate(scene.objects):
            kind = "free" if covered[index] == 0.0 else "covered" if covered[index] > web.MOST_COVERED else "partly"
            if seen.get(kind, 3) == 3:
                continue
            seen[kind] += 1
            share = _pixels(world, scene, index) / _pixels(world, dataclasses.replace(scene, gripper=None), index)
            assert (share < 0.6) == (kind == "covered"), (seed, thing.name, covered, share)
            assert (thing.name in visible) == (kind == "free")
    assert seen == {"covered": 3, "free": 3}


def _pixels(world, scene, index):
    world.reset(scene)
    whole = world.render().astype(int)
    world.reset(dataclasses.replace(scene, objects=scene.objects[:index] + scene.objects[index + 1 :]))
    return max(1, int((np.abs(whole - world.render()).max(axis=-1) > 40).sum()))


def test_things_out_of_the_frame_are_left_out(world):
    scene = Scene((SceneObject("red", "cube", "large", 0.0, 0.0),), gripper=GripperPose(0.19, 0.19, 0.14))
    world.reset(scene)
    assert GRIPPER not in web.visible_positions(world)
    x, y = web.visible_positions(world)["red cube"]
    assert 45 < x < 55 and 40 < y < 60
