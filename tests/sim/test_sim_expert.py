import dataclasses

import numpy as np
import pytest

from rt2_jax.sim.language import skill_words
from rt2_jax.sim.tasks import skills
from rt2_jax.sim.tasks.env import ACTION_HIGH, ACTION_LOW, MAX_STEPS
from rt2_jax.sim.tasks.expert import expert_action
from rt2_jax.sim.tasks.splits import sample_task
from rt2_jax.sim.world.catalog import DIRECTIONS, SKILLS
from rt2_jax.sim.world.mjcf import TIP_BELOW
from rt2_jax.sim.world.scene import Decal, Environment, GripperPose, Scene, SceneObject
from rt2_jax.sim.world.world import World

SCENE = Scene(
    (SceneObject("red", "cube", "large", 0.0, 0.0), SceneObject("blue", "ball", "small", 0.1, 0.08)),
    (Decal("icon", "heart", -0.1, 0.08), Decal("portrait", "Ada", -0.1, -0.1)),
    Environment(),
    GripperPose(-0.05, -0.05, 0.1),
)


@pytest.fixture(scope="module")
def world():
    world = World(SCENE)
    yield world
    world.close()


def run(world, scene, task, jitter=0.0, seed=0):
    """(success at the end, whether the expert stopped it, actions)."""
    world.reset(scene)
    start, rng, actions = skills.read_state(world), np.random.default_rng(seed), []
    for _ in range(MAX_STEPS):
        actions.append(expert_action(world, task))
        if actions[-1][0] >= 0.5:
            break
        world.step(actions[-1] + np.array((0, *rng.normal(0, jitter, 3), 0, 0, 0, 0)))
    return skills.success(scene, task, start, skills.read_state(world)), actions[-1][0] == 1, np.stack(actions)


@pytest.mark.parametrize("skill", SKILLS)
def test_the_expert_does_every_skill(world, skill):
    for seed in range(10):
        scene, task = sample_task("seen", skill, 3_000_000 + seed)
        success, stopped, actions = run(world, scene, task)
        assert success and stopped, f"seed {seed}: {task}"
        assert (actions >= ACTION_LOW - 1e-6).all() and (actions <= ACTION_HIGH + 1e-6).all()
        assert (actions[:-1, 0] == 0).all() and (actions[-1, 1:7] == 0).all()


@pytest.mark.parametrize("skill", SKILLS)
def test_the_expert_forgives_imprecise_moves(world, skill):
    results = [run(world, *sample_task("seen", skill, 4_000_000 + seed), jitter=0.006, seed=seed) for seed in range(5)]
    assert np.mean([success for success, _, _ in results]) >= 0.8


@pytest.mark.parametrize("skill", SKILLS)
def test_nothing_has_succeeded_before_it_began(world, skill):
    for seed in range(20):
        scene, task = sample_task("seen", skill, seed)
        world.reset(scene)
        start = skills.read_state(world)
        assert not skills.success(scene, task, start, start)
        assert skills.feasible(scene, task)


def state_of(positions, xyz=(0.0, 0.0, 0.1), closed=-1.0):
    return skills.State(np.array(positions, float), np.array(xyz, float), np.zeros(3), closed)


CUBE_Z, BALL_Z = (skills.rest_height(SCENE, index) for index in range(2))
REST = ((0.0, 0.0, CUBE_Z), (0.1, 0.08, BALL_Z))


def judge(task, positions, **gripper):
    return skills.success(SCENE, task, state_of(REST), state_of(positions, **gripper))


def test_reach_succeeds_within_three_centimetres():
    task = skill_words.make_task(SCENE, "reach", 0)
    highest = 2 * CUBE_Z + 0.03 + TIP_BELOW
    assert judge(task, REST, xyz=(0.02, 0.02, highest - 0.001))
    assert not judge(task, REST, xyz=(0.03, 0.01, 0.06))
    assert not judge(task, REST, xyz=(0.0, 0.0, highest + 0.001))


def test_pick_needs_a_lifted_and_held_object():
    task = skill_words.make_task(SCENE, "pick", 0)
    lifted = ((0.0, 0.0, CUBE_Z + 0.041), REST[1])
    assert judge(task, lifted, xyz=(0.0, 0.0, 0.055), closed=0.0)
    assert not judge(task, lifted, xyz=(0.0, 0.0, 0.1), closed=0.0)
    assert not judge(task, ((0.0, 0.0, CUBE_Z + 0.039), REST[1]), xyz=(0.0, 0.0, 0.055), closed=0.0)


def test_move_near_needs_a_released_object_beside_the_reference():
    task = skill_words.make_task(SCENE, "move_near", 0, 1)
    limit = 0.03 + SCENE.objects[0].radius + SCENE.objects[1].radius
    near = ((0.1, 0.08 - limit + 0.001, CUBE_Z), REST[1])
    assert judge(task, near)
    assert not judge(task, near, xyz=(*near[0][:2], 0.015), closed=0.0)
    assert not judge(task, ((0.1, 0.08 - limit - 0.001, CUBE_Z), REST[1]))
    assert not judge(task, ((*near[0][:2], 0.05), REST[1]))


@pytest.mark.parametrize("name", DIRECTIONS)
def test_push_needs_four_centimetres_in_the_direction(name):
    task = skill_words.make_task(SCENE, "push", 0, name)
    forward = np.array((*DIRECTIONS[name], 0.0))
    side = forward[[1, 0, 2]]
    begin = np.array(REST[0])
    assert judge(task, (begin + 0.041 * forward, REST[1]))
    assert judge(task, (begin + 0.05 * forward + 0.045 * side, REST[1]))
    assert not judge(task, (begin + 0.039 * forward, REST[1]))
    assert not judge(task, (begin + 0.05 * forward - 0.055 * side, REST[1]))
    assert not judge(task, (begin - 0.05 * forward, REST[1]))


def test_place_needs_a_released_object_on_the_decal():
    task = skill_words.make_task(SCENE, "place", 0, 0)
    assert judge(task, ((-0.1, 0.055, CUBE_Z), REST[1]))
    assert not judge(task, ((-0.1, 0.045, CUBE_Z), REST[1]))
    assert not judge(task, ((-0.1, 0.055, CUBE_Z), REST[1]), xyz=(-0.1, 0.055, 0.015), closed=-0.2)


def test_words():
    def words(*args):
        task = skill_words.make_task(SCENE, *args)
        return task.instruction, task.plan

    assert words("reach", 0) == ("reach the red cube", "reach red cube")
    assert words("pick", 0) == ("pick up the red cube", "pick red cube")
    assert words("move_near", 0, 1) == ("move the red cube near the blue ball", "move red cube near blue ball")
    assert words("push", 0, "left") == ("push the red cube to the left", "push red cube left")
    assert words("place", 0, 0) == ("put the red cube on the heart sign", "place red cube on heart sign")
    assert words("place", 0, 1) == ("put the red cube on Ada", "place red cube on Ada")
    said = {skill_words.make_task(SCENE, "pick", 0, None, phrasing).instruction for phrasing in range(8)}
    assert said == set(skill_words.instructions(SCENE, "pick", 0, None))


def test_feasible_refuses_what_the_expert_cannot_do():
    def scene_with(*objects):
        return dataclasses.replace(SCENE, objects=objects)

    red = SCENE.objects[0]
    neighbour = SceneObject("blue", "ball", "large", 0.065, 0.0)
    pick = skill_words.make_task(SCENE, "pick", 0)
    assert skills.feasible(scene_with(red, dataclasses.replace(neighbour, x=0.1)), pick)
    assert not skills.feasible(scene_with(red, neighbour), pick)  # in a finger's way
    assert not skills.feasible(dataclasses.replace(SCENE, gripper=None), pick)
    push = skill_words.make_task(SCENE, "push", 0, "right")
    assert skills.feasible(SCENE, push)
    assert not skills.feasible(scene_with(red, neighbour), push)
    assert not skills.feasible(scene_with(dataclasses.replace(red, x=0.09), SCENE.objects[1]), push)
    on_heart = dataclasses.replace(neighbour, x=-0.1, y=0.08)
    assert not skills.feasible(scene_with(red, on_heart), skill_words.make_task(SCENE, "place", 0, 0))
    near = scene_with(red, dataclasses.replace(neighbour, x=0.0, y=0.07))
    assert not skills.feasible(near, skill_words.make_task(near, "move_near", 0, 1))
