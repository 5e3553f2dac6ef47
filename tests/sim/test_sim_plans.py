"""Plans point at their things as web data does, and follow the gripper."""

import re

import numpy as np
import pytest

from rt2_jax.sim.language import describe, web
from rt2_jax.sim.language.questions import View
from rt2_jax.sim.tasks.plans import grounded_plan
from rt2_jax.sim.tasks.splits import sample_task
from rt2_jax.sim.world.catalog import SKILLS
from rt2_jax.sim.world.world import World


@pytest.fixture(scope="module")
def world():
    world = World(sample_task("train", "pick", 0)[0], 32)
    yield world
    world.close()


@pytest.mark.parametrize("skill", SKILLS)
def test_a_plan_says_what_detection_from_the_gripper_says(world, skill):
    compared = 0
    for seed in range(6):
        scene, task = sample_task("train", skill, seed)
        world.reset(scene)
        plan = grounded_plan(world, task)
        assert re.sub(r" at \d+ \d+", "", plan) == f"{task.plan}, robot gripper"
        seen = describe.detection_from_gripper(View(scene, web.visible_positions(world))).split("; ")
        for place in re.findall(r"[a-z]+ [a-z]+ at \d+ \d+", plan):
            name, at = place.split(" at ")
            said = [thing for thing in seen if thing.startswith(f"{name} ")]
            assert not said or said == [f"{name} {at}"]
            compared += len(said) if name != "robot gripper" else 0
    assert compared >= 6


def test_places_move_as_the_gripper_does(world):
    scene, task = sample_task("train", "reach", 3)
    world.reset(scene)
    places = []
    for _ in range(3):
        places.append([int(number) for number in re.findall(r"\d+", grounded_plan(world, task))])
        world.step(np.array((0, 0.04, 0, 0, 0, 0, 0, -1.0)))
    right = np.diff(places, axis=0)[:, 0]
    assert (right < -5).all()  # the gripper went right, so the thing lies further left of it


def test_a_plan_tells_how_high_the_gripper_is_and_not_how_far_the_thing_is(world):
    scene, task = sample_task("train", "reach", 3)
    world.reset(scene)
    places = []
    for _ in range(3):
        places.append([int(number) for number in re.findall(r"\d+", grounded_plan(world, task))])
        world.step(np.array((0, 0, 0, 0.02, 0, 0, 0, -1.0)))
    thing_x, thing_y, _, gripper_y = np.diff(places, axis=0).T
    assert (gripper_y <= -2).all()  # the gripper went up: in the frame, away from the spot under it
    assert (np.abs([thing_x, thing_y]) <= 1).all()  # which is as far from the thing as it was
