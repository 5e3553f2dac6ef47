"""Text that covers all the tabletop data says, for training a vocabulary: no rendering, no files."""

from collections.abc import Iterator

import numpy as np

from rt2_jax.sim.language import describe, skill_words
from rt2_jax.sim.language.lexicon import GRIPPER, LANGUAGES
from rt2_jax.sim.language.questions import QUESTIONS, View, ask
from rt2_jax.sim.language.references import references
from rt2_jax.sim.tasks.splits import SPLITS, sample_task
from rt2_jax.sim.world import catalog
from rt2_jax.sim.world.sampling import ALL_DECALS, ALL_PAIRS, wide_scene
from rt2_jax.sim.world.scene import Decal, Scene, SceneObject

# What joins the parts below in training (RT-2, section 3.2): every word of the prompts must be in the vocabulary.
_FORMS = {
    "robot": "Q: what action should the robot take to {text}? A:",
    "instruction": "Instruction: {text}",
    "plan": "Plan: {text}. Action: 1 128 91 241 5 101 127 217",
    "caption": "Generate caption in {lang}",
    "vqa": "Answer in {lang}: {text}",
    "alt_text": "Generate the alt-text in {lang} at {position}: {text}",
    "detect": "Detect all objects",
    "locate": "Locate the {text}",
}
# Places from the gripper bring no new words, and the vocabulary that ships was drawn without them.
_COUNTS = describe.Counts(detect_from_gripper=0, locate_from_gripper=0)


def corpus(num_scenes: int = 1000, seed: int = 0) -> Iterator[str]:
    """Texts of every kind, language and task, and every name in the catalogue; the same for the same arguments.

    Args:
      num_scenes: how many scenes are described in words; a few thousand settle a vocabulary of a thousand pieces.
      seed: of those scenes.
    """
    yield from _names()
    rng = np.random.default_rng(seed)
    for index in range(num_scenes):
        scene = wide_scene(rng)
        yield from _web_texts(scene, rng)
        for split in SPLITS:
            if index % 10 == 0:
                _, task = sample_task(split, None, index)
                yield _FORMS["robot"].format(text=task.instruction)
                yield _FORMS["instruction"].format(text=task.instruction)
                yield _FORMS["plan"].format(text=task.plan)


def rough_positions(scene: Scene) -> dict[str, tuple[float, float]]:
    """About where things appear, name -> percent of the frame: for texts that need no picture."""
    things = {thing.name: (thing.x, thing.y) for thing in (*scene.objects, *scene.decals)}
    if scene.gripper is not None:
        things[GRIPPER] = (scene.gripper.x, scene.gripper.y)
    scale = 42.0 / catalog.WORKSPACE
    return {name: (50.0 + scale * x, 50.0 - scale * y) for name, (x, y) in things.items()}


def _web_texts(scene: Scene, rng: np.random.Generator) -> Iterator[str]:
    for annotation in describe.annotate(scene, rough_positions(scene), rng, _COUNTS):
        position, _, rest = annotation.question.partition("|")
        text = rest if annotation.kind == "alt_text" else annotation.question
        yield _FORMS[annotation.kind].format(lang=annotation.lang, text=text, position=position)
        yield annotation.target


def _names() -> Iterator[str]:
    """Every object and decal by name, question and instruction, in every language."""
    rng = np.random.default_rng(0)
    decals = [Decal(kind, value, 0.1, 0.1) for kind, value in ALL_DECALS]
    for index, (color, shape) in enumerate(ALL_PAIRS):
        thing = SceneObject(color, shape, "small", 0.0, 0.0)
        other = SceneObject(*ALL_PAIRS[(index + 7) % len(ALL_PAIRS)], "large", -0.1, -0.1)
        decal = decals[index % len(decals)]
        scene = Scene((thing, other), (decal,))
        view = View(scene, rough_positions(scene))
        yield _FORMS["detect"]
        yield describe.detection(view)
        for reference in references(scene):
            yield _FORMS["locate"].format(text=reference.text)
        for lang in LANGUAGES:
            yield _FORMS["caption"].format(lang=lang)
            yield describe.caption(view, rng, lang)
            for kind in QUESTIONS:
                yield from ask(view, rng, lang, kind) or ()
        yield from _instructions(scene)
    yield from (decal.name for decal in decals)


def _instructions(scene: Scene) -> Iterator[str]:
    references_of: dict[str, tuple[int | str | None, ...]] = {
        "reach": (None,),
        "pick": (None,),
        "move_near": (1,),
        "push": tuple(catalog.DIRECTIONS),
        "place": (0,),
    }
    for skill, references_here in references_of.items():
        for reference in references_here:
            yield from skill_words.instructions(scene, skill, 0, reference)
            yield skill_words.plan(scene, skill, 0, reference)
            for lang in LANGUAGES[1:]:
                for wording in range(2):
                    yield describe.foreign_instruction(scene, skill, 0, reference, lang, wording)
