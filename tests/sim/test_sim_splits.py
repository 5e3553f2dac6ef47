"""Every split draws feasible, deterministic tasks that ask for what the split is about."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.errors import UserError
from rt2_jax.sim.language import skill_words
from rt2_jax.sim.tasks import skills, splits
from rt2_jax.sim.tasks.contract import text_items
from rt2_jax.sim.tasks.splits import SPLITS, robot_task, sample_task
from rt2_jax.sim.world import catalog
from rt2_jax.sim.world.sampling import ROBOT_PAIRS
from rt2_jax.sim.world.scene import Environment

PAIRS = [(name, skill) for name, split in SPLITS.items() for skill in split.skills]


@pytest.mark.parametrize(("name", "skill"), PAIRS)
def test_tasks_are_feasible_and_deterministic(name, skill):
    for seed in range(4):
        scene, task = sample_task(name, skill, seed)
        assert (scene, task) == sample_task(name, skill, seed)
        assert task.skill == skill and len(scene.objects) >= 4
        assert skills.feasible(scene, task) and splits.is_feasible(scene, task)
        assert next(splits.alternatives(scene, task), None) is not None
        assert task.plan == skill_words.plan(scene, skill, task.target, task.reference)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(SPLITS)), seed=st.integers(0, 2**31))
def test_without_a_skill_one_of_the_splits_is_drawn(name, seed):
    _, task = sample_task(name, None, seed)
    assert task.skill in SPLITS[name].skills


def _drawn(name, count=40):
    return [sample_task(name, None, seed) for seed in range(count)]


def test_unseen_objects():
    for scene, task in _drawn("unseen_objects_easy"):
        thing = scene.objects[task.target]
        assert (thing.color, thing.shape) in catalog.HELD_OUT_PAIRS
    for scene, task in _drawn("unseen_objects_hard"):
        thing = scene.objects[task.target]
        assert thing.color not in catalog.ROBOT_COLORS or thing.shape not in catalog.ROBOT_SHAPES


@pytest.mark.parametrize("name", ["unseen_backgrounds_easy", "unseen_backgrounds_hard"])
def test_unseen_backgrounds_change_the_table_top_alone(name):
    for scene, _ in _drawn(name):
        assert scene.environment.background not in catalog.ROBOT_BACKGROUNDS
        assert scene.environment == Environment(background=scene.environment.background)
        assert {(thing.color, thing.shape) for thing in scene.objects} <= set(ROBOT_PAIRS)


def test_unseen_environments():
    for scene, _ in _drawn("unseen_environments_easy"):
        here = scene.environment
        assert here.light != 1 and here.surround != "white" and here.clutter == 0
        assert here.background in catalog.ROBOT_BACKGROUNDS
    for scene, _ in _drawn("unseen_environments_hard"):
        here = scene.environment
        assert abs(here.light - 1) >= 0.35 and here.clutter >= 3 and max(map(abs, here.camera_shift)) >= 0.006
        assert here.background not in catalog.ROBOT_BACKGROUNDS


def test_symbols_and_persons():
    for scene, task in _drawn("symbols"):
        decal = scene.decals[task.reference]
        assert decal.kind in ("digit", "letter", "icon") and decal.value not in catalog.ROBOT_ICONS
        assert task.instruction.endswith(f"the {decal.name}") and len(scene.decals) >= 2
    for scene, task in _drawn("persons"):
        decal = scene.decals[task.reference]
        assert decal.value in catalog.PERSONS and task.instruction.endswith(f" {decal.value}")


def test_reasoning_asks_for_all_its_kinds():
    drawn = _drawn("reasoning", 120)
    said = " | ".join(task.instruction for _, task in drawn)
    for words in ("smallest object", "largest object", " plus ", "same colour as the", "auf ", "sur ", "sobre "):
        assert words in said
    for scene, task in drawn:  # what is described is not named
        if "number that is" in task.instruction:
            assert scene.decals[task.reference].name not in task.instruction
            first, sign, second = task.instruction.split("number that is ")[1].split()
            total = {"plus": int(first) + int(second), "minus": int(first) - int(second)}[sign]
            assert scene.decals[task.reference].value == str(total)
        if "smallest object" in task.instruction:
            sizes = [thing.size for thing in scene.objects]
            assert sizes.count("small") == 1 and sizes[task.target] == "small"


def test_splits_share_no_scenes():
    scenes = [sample_task(name, skill, seed)[0] for name, skill in PAIRS for seed in range(3)]
    assert all(first.objects != second.objects for first, second in itertools.combinations(scenes, 2))
    assert len({split.index for split in SPLITS.values()}) == len(SPLITS)


def test_the_table_covers_rt2s_evaluations():
    assert {split.group for split in SPLITS.values()} == {"train", "seen", "unseen", "emergent"}
    assert [name for name, split in SPLITS.items() if split.group == "emergent"] == ["symbols", "reasoning", "persons"]
    assert sum(split.group == "unseen" for split in SPLITS.values()) == 6


def test_robot_task_is_the_train_split():
    assert robot_task(7, "push") == sample_task("train", "push", 7)
    assert robot_task(7) != sample_task("seen", None, 7)


def test_instructions_vary_in_words():
    told = {task.instruction.split()[0] for _, task in _drawn("train", 80)}
    assert len(told) >= 8
    assert all(text_items(task.instruction) for _, task in _drawn("train", 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", None, 0), "split 'nowhere' is unknown; choose one of train, seen"),
        (("symbols", "push", 0), "skill 'push' is not in split 'symbols'; choose one of place"),
        (("seen", None, -1), "seed -1 is negative"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        sample_task(*arguments)
