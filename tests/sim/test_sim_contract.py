"""Robot data keeps the contract, web data fills it, and a breach is found."""

import dataclasses

import numpy as np
import pytest

from rt2_jax.sim.language.describe import annotate
from rt2_jax.sim.tasks import contract
from rt2_jax.sim.tasks.contract import ContractViolation, check_episode, missing_from_web, violations
from rt2_jax.sim.tasks.corpus import rough_positions
from rt2_jax.sim.tasks.splits import SPLITS, robot_task, sample_task
from rt2_jax.sim.world import catalog
from rt2_jax.sim.world.sampling import wide_scene
from rt2_jax.sim.world.scene import Decal


def _web(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        scene = wide_scene(rng)
        found = annotate(scene, rough_positions(scene), rng)
        yield scene, [text for annotation in found for text in (annotation.question, annotation.target)]


@pytest.mark.parametrize("skill", catalog.SKILLS)
def test_robot_tasks_keep_it(skill):
    for seed in range(120):
        assert violations(*robot_task(seed, skill)) == []


def test_web_scenes_show_everything_withheld():
    assert missing_from_web(_web(1000)) == frozenset()


def test_what_the_web_lacks_is_named():
    examples = [(dataclasses.replace(scene, decals=()), []) for scene, _ in _web(50)]
    assert {("portrait", "Ada"), ("digit", "3"), ("word", "smallest")} <= missing_from_web(examples)


@pytest.mark.parametrize("pair", sorted(catalog.HELD_OUT_PAIRS))
def test_a_held_out_pair_is_found(pair):
    scene, task = robot_task(0)
    color, shape = pair
    stranger = dataclasses.replace(scene.objects[0], color=color, shape=shape)
    breached = dataclasses.replace(scene, objects=(stranger, *scene.objects[1:]))
    assert violations(breached, task) == [f"pair: {color} {shape}"]
    with pytest.raises(ContractViolation, match=f"pair: {color} {shape}"):
        check_episode(breached, task)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"background": "marble"}, "background: marble"),
        ({"light": 0.8}, "environment: light"),
        ({"camera_shift": (0.0, 0.01, 0.0)}, "environment: camera shift"),
        ({"surround": "navy"}, "surround: navy"),
        ({"clutter": 1}, "environment: clutter"),
    ],
)
def test_another_environment_is_found(change, found):
    scene, task = robot_task(1)
    breached = dataclasses.replace(scene, environment=dataclasses.replace(scene.environment, **change))
    assert violations(breached, task) == [found]


def test_decals_and_words_are_found():
    scene, task = robot_task(2, "reach")
    breached = dataclasses.replace(scene, decals=(Decal("portrait", "Ada", 0.0, 0.0),))
    assert violations(breached, task) == ["portrait: Ada"]
    assert violations(scene, task, "reach the smallest object") == ["word: object", "word: smallest"]
    assert violations(scene, task, "Nimm den roten Würfel") == ["word: nimm", "word: würfel"]
    check_episode(scene, task)


@pytest.mark.parametrize("name", [name for name, split in SPLITS.items() if split.group in ("unseen", "emergent")])
def test_evaluations_ask_for_what_was_withheld(name):
    """Were a split's tasks within the contract, its score would say nothing about generalisation."""
    assert all(violations(*sample_task(name, None, seed)) for seed in range(40))


@pytest.mark.parametrize("name", ["train", "seen"])
def test_seen_splits_do_not(name):
    assert not any(violations(*sample_task(name, None, seed)) for seed in range(40))


def test_every_english_word_of_the_evaluations_is_declared():
    """Words that evaluations use are either the robot's or withheld (and so, by the test above, in web data)."""
    told = [sample_task("train", None, seed)[1].instruction for seed in range(400)]
    known = set().union(*map(contract.text_items, told)) | contract.all_withheld()
    letters = {("word", letter.lower()) for letter in catalog.LETTERS}
    for name in ("symbols", "persons", "unseen_objects_hard"):
        for seed in range(60):
            said = contract.text_items(sample_task(name, None, seed)[1].instruction)
            assert said <= known | letters, said - known
