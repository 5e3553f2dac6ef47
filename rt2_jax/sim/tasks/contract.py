"""What robot data must never show and web data must: the premise of RT-2's evaluations (sections 4.1 and 4.2).

A score on an unseen or emergent split means something only if the demonstrations did not contain what the split asks
for, and the web data did. `WITHHELD` declares it once; `check_episode` holds every recorded episode to it, and
`missing_from_web` tells what the web data has not shown yet.
"""

import re
from collections.abc import Iterable

from rt2_jax.sim.language import lexicon
from rt2_jax.sim.language.wordings import INSTRUCTIONS
from rt2_jax.sim.world import catalog
from rt2_jax.sim.world.sampling import ALL_DECALS, ROBOT_DECALS
from rt2_jax.sim.world.scene import Environment, Scene, Task

# (kind, value), e.g. ("pair", "red ball"), ("digit", "3"), ("word", "smallest").
Item = tuple[str, str]

# Words of RT-2's symbol, person and reasoning tasks that no demonstration is told.
_EVALUATION_WORDS = (
    "number", "letter", "portrait", "smallest", "largest", "object", "same", "colour", "that", "is", "plus", "minus",
    *catalog.DIGITS, *catalog.PERSONS,
)  # fmt: skip
# Foreign instructions: their verbs ("nimm", "pose", "empuja"), and names of shapes and colours unless English has them.
_FOREIGN_VERBS = tuple(
    wording.split()[0] for skills in INSTRUCTIONS.values() for wordings in skills.values() for wording in wordings
)
_FOREIGN_NAMES = tuple(
    word
    for lang in lexicon.LANGUAGES[1:]
    for word in (
        *(lexicon.shape_word(lang, shape) for shape in catalog.SHAPES),
        *(lexicon.color_word(lang, color) for color in catalog.COLORS),
    )
    if word not in catalog.COLORS and word not in catalog.SHAPES
)


class ContractViolation(ValueError):
    """Robot data shows what only web data may show."""


def _values(everything: Iterable[str], robot: Iterable[str]) -> frozenset[str]:
    return frozenset(everything) - frozenset(robot)


def _decals(kind: str) -> frozenset[str]:
    return frozenset(value for decal, value in ALL_DECALS if decal == kind and (decal, value) not in ROBOT_DECALS)


WITHHELD: dict[str, frozenset[str]] = {
    "color": _values(catalog.COLORS, catalog.ROBOT_COLORS),
    "shape": _values(catalog.SHAPES, catalog.ROBOT_SHAPES),
    "pair": frozenset(f"{color} {shape}" for color, shape in catalog.HELD_OUT_PAIRS),
    **{kind: _decals(kind) for kind in ("zone", "digit", "letter", "icon", "portrait")},
    "background": _values(catalog.BACKGROUNDS_PLAIN + catalog.BACKGROUNDS_PATTERN, catalog.ROBOT_BACKGROUNDS),
    "surround": _values(catalog.SURROUNDS, [Environment().surround]),
    "environment": frozenset({"light", "light azimuth", "camera shift", "clutter"}),
    "word": frozenset(
        word.lower()
        for word in (
            *_EVALUATION_WORDS,
            *_FOREIGN_VERBS,
            *_FOREIGN_NAMES,
            *_values(catalog.COLORS, catalog.ROBOT_COLORS),
            *_values(catalog.SHAPES, catalog.ROBOT_SHAPES),
            *_decals("icon"),
        )
    ),
}


def scene_items(scene: Scene) -> frozenset[Item]:
    """Everything of `WITHHELD`'s kinds, withheld or not, that a scene shows (words apart)."""
    items: set[Item] = set()
    for thing in scene.objects:
        items |= {("color", thing.color), ("shape", thing.shape), ("pair", thing.name)}
    items |= {(decal.kind, decal.value) for decal in scene.decals}
    here, usual = scene.environment, Environment()
    items |= {("background", here.background), ("surround", here.surround)}
    changed = {
        "light": here.light != usual.light,
        "light azimuth": here.light_azimuth != usual.light_azimuth,
        "camera shift": here.camera_shift != usual.camera_shift,
        "clutter": here.clutter != usual.clutter,
    }
    return frozenset(items | {("environment", name) for name, is_changed in changed.items() if is_changed})


def text_items(text: str) -> frozenset[Item]:
    """The words and numbers of a text, lower case, as items of kind "word"."""
    return frozenset(("word", word) for word in re.findall(r"[^\W_]+", text.lower()))


def withheld(items: Iterable[Item]) -> frozenset[Item]:
    """Those items that robot data must not show."""
    return frozenset((kind, value) for kind, value in items if value in WITHHELD.get(kind, ()))


def all_withheld() -> frozenset[Item]:
    """Every withheld item."""
    return frozenset((kind, value) for kind, values in WITHHELD.items() for value in values)


def violations(scene: Scene, task: Task, instruction: str | None = None) -> list[str]:
    """What an episode shows or says that robot data must not, as sorted lines; empty if it honours the contract.

    `instruction` is the text as recorded; None takes the task's. The task's plan is checked too.
    """
    said = task.instruction if instruction is None else instruction
    found = withheld(scene_items(scene) | text_items(said) | text_items(task.plan))
    return [f"{kind}: {value}" for kind, value in sorted(found)]


def check_episode(scene: Scene, task: Task, instruction: str | None = None) -> None:
    """Raises ContractViolation, naming every item, if a recorded episode shows or says what robot data must not."""
    found = violations(scene, task, instruction)
    if found:
        raise ContractViolation(f"robot data must not show {', '.join(found)} (sim/tasks/contract.py declares what)")


def missing_from_web(examples: Iterable[tuple[Scene, Iterable[str]]]) -> frozenset[Item]:
    """The withheld items that none of the web examples (a scene, the texts said of it) shows or says."""
    missing = set(all_withheld())
    for scene, texts in examples:
        missing -= scene_items(scene)
        for text in texts:
            missing -= text_items(text)
    return frozenset(missing)
