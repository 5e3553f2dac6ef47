"""Each split needs both the instruction and the image: an expert deprived of either fails what it otherwise does."""

import dataclasses

import pytest

from rt2_jax.sim.tasks import skills
from rt2_jax.sim.tasks.controls import MIN_DISPLACEMENT, other_scene, wrong_instruction
from rt2_jax.sim.tasks.env import MAX_STEPS
from rt2_jax.sim.tasks.expert import expert_action
from rt2_jax.sim.tasks.splits import SPLITS, sample_task
from rt2_jax.sim.world.catalog import SKILLS
from rt2_jax.sim.world.scene import Scene
from rt2_jax.sim.world.world import World


@pytest.fixture(scope="module")
def world():
    made = World(sample_task("train", None, 0)[0], 32)
    yield made
    made.close()


def _act(world, scene, task):
    """The expert's actions in a scene, before it stops."""
    world.reset(scene)
    actions = []
    while len(actions) < MAX_STEPS and (action := expert_action(world, task))[0] < 0.5:
        world.step(action)
        actions.append(action)
    return actions


def _succeeds(world, scene, task, actions):
    world.reset(scene)
    start = skills.read_state(world)
    for action in actions:
        world.step(action)
    return skills.success(scene, task, start, skills.read_state(world))


@pytest.mark.parametrize("name", sorted(SPLITS))
def test_each_split_tests_instruction_and_image(world, name):
    tasks = [
        sample_task(name, skill, seed) for skill in SPLITS[name].skills for seed in range(5 // len(SPLITS[name].skills))
    ]
    scores = {"right": 0, "wrong instruction": 0, "other image": 0}
    for seed, (scene, task) in enumerate(tasks):
        wrong, elsewhere = wrong_instruction(scene, task, seed), other_scene(scene, task, seed)
        scores["right"] += _succeeds(world, scene, task, _act(world, scene, task))
        scores["wrong instruction"] += _succeeds(world, scene, task, _act(world, scene, wrong))
        scores["other image"] += _succeeds(world, scene, task, _act(world, elsewhere, task))
    assert len(tasks) == 5
    assert scores["right"] >= 4 and scores["wrong instruction"] <= 1 and scores["other image"] <= 1, scores


@pytest.mark.parametrize("skill", SKILLS)
def test_the_wrong_instruction_differs_in_target_and_reference(skill):
    for seed in range(15):
        scene, task = sample_task("seen", skill, seed)
        wrong = wrong_instruction(scene, task, seed)
        assert wrong == wrong_instruction(scene, task, seed)
        assert wrong.skill == skill and wrong.target != task.target and wrong.instruction != task.instruction
        assert wrong.reference is None or wrong.reference != task.reference
        assert skills.feasible(scene, wrong)


@pytest.mark.parametrize("skill", SKILLS)
def test_the_other_scene_has_the_same_things_elsewhere(skill):
    for seed in range(10):
        scene, task = sample_task("seen", skill, seed)
        other = other_scene(scene, task, seed)
        assert other == other_scene(scene, task, seed)
        assert [thing.name for thing in other.objects] == [thing.name for thing in scene.objects]
        assert [decal.name for decal in other.decals] == [decal.name for decal in scene.decals]
        assert (other.gripper, other.environment) == (scene.gripper, scene.environment)
        before, after = scene.objects[task.target], other.objects[task.target]
        assert max(abs(before.x - after.x), abs(before.y - after.y)) >= MIN_DISPLACEMENT / 2**0.5
        assert skills.feasible(other, task)


def test_a_scene_without_an_alternative_is_refused():
    scene, task = sample_task("seen", "pick", 0)
    alone = dataclasses.replace(task, target=0)
    with pytest.raises(ValueError, match="no other feasible pick task"):
        wrong_instruction(Scene(scene.objects[:1], (), scene.environment, scene.gripper), alone, 0)
