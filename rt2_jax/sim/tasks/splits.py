"""The training distribution and RT-2's evaluations as one table (RT-2, sections 4.1 and 4.2).

A split says how scenes are drawn and what may be asked in them; `sample_task` turns (split, skill, seed) into a scene
and a task that the scripted expert can do and that has a wrong alternative in the same scene (`controls.py` needs
one). Every split has its own stream of random numbers, so no seed of an evaluation gives a training scene.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.sim.language import skill_words
from rt2_jax.sim.language.describe import foreign_instruction
from rt2_jax.sim.language.lexicon import LANGUAGES
from rt2_jax.sim.language.references import REASONING_CATEGORIES, Reference, references
from rt2_jax.sim.tasks import skills
from rt2_jax.sim.world import catalog
from rt2_jax.sim.world.sampling import ALL_DECALS, ALL_PAIRS, ROBOT_DECALS, ROBOT_PAIRS, draw_decals, robot_scene
from rt2_jax.sim.world.scene import Environment, Scene, Task, index_of

# How far the gripper's grasp point starts from the target at least, metres on the table: nothing is done by itself.
MIN_START_DISTANCE = 0.05
MIN_PLACE_DISTANCE = 0.08
_TRIES = 1000

Pair = tuple[str, str]
Choice = tuple[int, int | str | None]

EASY_PAIRS: tuple[Pair, ...] = tuple(sorted(catalog.HELD_OUT_PAIRS))
HARD_PAIRS: tuple[Pair, ...] = tuple(
    (color, shape)
    for color, shape in ALL_PAIRS
    if color not in catalog.ROBOT_COLORS or shape not in catalog.ROBOT_SHAPES
)
SYMBOLS: tuple[tuple[str, str], ...] = tuple(
    decal for decal in ALL_DECALS if decal[0] in ("digit", "letter", "icon") and decal not in ROBOT_DECALS
)
PORTRAITS: tuple[tuple[str, str], ...] = tuple(decal for decal in ALL_DECALS if decal[0] == "portrait")
DIGITS: tuple[tuple[str, str], ...] = tuple(decal for decal in ALL_DECALS if decal[0] == "digit")
ZONES: tuple[tuple[str, str], ...] = tuple(decal for decal in ROBOT_DECALS if decal[0] == "zone")
# RT-2's reasoning tasks: arithmetic, same colour, size, and instructions in other languages.
REASONING: tuple[str, ...] = (*REASONING_CATEGORIES, "multilingual")


@dataclasses.dataclass(frozen=True)
class Split:
    """How a split's scenes are drawn and what is asked in them.

    index: of its stream of random numbers; never reuse one. group: as RT-2 reports them.
    pairs: the objects of its scenes; targets: those that a task may handle, of which one is always there.
    decals: those of its scenes. surroundings: draws the environment; None is the robot's own. reasoning: whether
    instructions name things by what they are like, or in another language.
    """

    index: int
    name: str
    group: Literal["train", "seen", "unseen", "emergent"]
    description: str
    skills: tuple[str, ...] = catalog.SKILLS
    pairs: tuple[Pair, ...] = ROBOT_PAIRS
    targets: tuple[Pair, ...] = ROBOT_PAIRS
    decals: tuple[tuple[str, str], ...] = ROBOT_DECALS
    surroundings: Callable[[np.random.Generator], Environment] | None = None
    reasoning: bool = False


def _table_top(backgrounds: tuple[str, ...]) -> Callable[[np.random.Generator], Environment]:
    return lambda rng: Environment(background=str(rng.choice(backgrounds)))


def _other_surround(rng: np.random.Generator) -> str:
    return str(rng.choice([name for name in catalog.SURROUNDS if name != Environment().surround]))


def _mild_change(rng: np.random.Generator) -> Environment:
    """The robot's table under another lamp, in another room, seen by a camera moved by up to half a centimetre."""
    shift = rng.uniform(-0.005, 0.005, size=3)
    return Environment(
        background=str(rng.choice(catalog.ROBOT_BACKGROUNDS)),
        light=float(rng.choice([rng.uniform(0.7, 0.85), rng.uniform(1.15, 1.3)])),
        light_azimuth=float(rng.uniform(-0.8, 0.8)),
        camera_shift=(float(shift[0]), float(shift[1]), float(shift[2])),
        surround=_other_surround(rng),
    )


def _strong_change(rng: np.random.Generator) -> Environment:
    """Another table and room, harsh or dim light from anywhere, clutter, a camera moved by 1 to 2.6 centimetres."""
    shift = rng.uniform(0.006, 0.015, size=3) * rng.choice([-1.0, 1.0], size=3)
    return Environment(
        background=str(rng.choice(catalog.UNSEEN_BACKGROUNDS_EASY)),
        light=float(rng.choice([rng.uniform(0.5, 0.65), rng.uniform(1.35, 1.5)])),
        light_azimuth=float(rng.uniform(-math.pi, math.pi)),
        camera_shift=(float(shift[0]), float(shift[1]), float(shift[2])),
        surround=_other_surround(rng),
        clutter=int(rng.integers(3, 7)),
    )


_TABLE: tuple[Split, ...] = (
    Split(1, "train", "train", "the demonstrations' distribution"),
    Split(2, "seen", "seen", "the demonstrations' distribution, other scenes"),
    Split(
        3, "unseen_objects_easy", "unseen", "known colours and shapes in pairs never shown",
        pairs=(*ROBOT_PAIRS, *EASY_PAIRS), targets=EASY_PAIRS,
    ),
    Split(
        4, "unseen_objects_hard", "unseen", "a colour or a shape never shown, among anything",
        pairs=ALL_PAIRS, targets=HARD_PAIRS,
    ),
    Split(
        5, "unseen_backgrounds_easy", "unseen", "plain table tops of other colours",
        surroundings=_table_top(catalog.UNSEEN_BACKGROUNDS_EASY),
    ),
    Split(
        6, "unseen_backgrounds_hard", "unseen", "patterned table tops",
        surroundings=_table_top(catalog.UNSEEN_BACKGROUNDS_HARD),
    ),
    Split(
        7, "unseen_environments_easy", "unseen", "other light and room, camera nudged",
        surroundings=_mild_change,
    ),
    Split(
        8, "unseen_environments_hard", "unseen", "other table, room and light, clutter, camera moved",
        surroundings=_strong_change,
    ),
    Split(
        9, "symbols", "emergent", "put things on numbers, letters and signs that only web data shows",
        skills=("place",), decals=SYMBOLS,
    ),
    Split(
        10, "reasoning", "emergent", "smallest, same colour, sums, other languages",
        reasoning=True,
    ),
    Split(
        11, "persons", "emergent", "put things on portraits of people that only web data names",
        skills=("place",), decals=PORTRAITS,
    ),
)  # fmt: skip
SPLITS: dict[str, Split] = {split.name: split for split in _TABLE}


def sample_task(split: str, skill: str | None, seed: int) -> tuple[Scene, Task]:
    """A scene of at least four objects and a task in it; the same for the same arguments, everywhere.

    Args:
      split: a key of `SPLITS`. skill: one of the split's skills; None draws one. seed: 0 or more.

    Raises: UserError for an unknown split, a skill the split does not test, or a negative seed.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
    chosen = SPLITS[split]
    if skill is not None and skill not in chosen.skills:
        raise UserError(f"skill {skill!r} is not in split {split!r}; choose one of {', '.join(chosen.skills)}")
    if seed < 0:
        raise UserError(f"seed {seed} is negative; choose 0 or more")
    stream = 0 if skill is None else 1 + catalog.SKILLS.index(skill)
    rng = np.random.default_rng(np.random.SeedSequence([chosen.index, stream, seed]))
    skill = str(rng.choice(chosen.skills)) if skill is None else skill
    category = _category(rng, skill) if chosen.reasoning else None
    for _ in range(_TRIES):
        scene = _draw_scene(rng, chosen, skill, category)
        task = _draw_task(rng, chosen, scene, skill, category)
        if task is not None:
            return scene, task
    raise RuntimeError(f"no feasible {skill} task in {_TRIES} scenes of {split}, seed {seed}")


def robot_task(seed: int, skill: str | None = None) -> tuple[Scene, Task]:
    """A demonstration's scene and task: the "train" split."""
    return sample_task("train", skill, seed)


def is_feasible(scene: Scene, task: Task) -> bool:
    """Whether the expert can do the task and has something left to do from the gripper's start."""
    target, gripper = scene.objects[task.target], scene.gripper
    assert gripper is not None, "the scene has no gripper"
    if math.hypot(gripper.x - target.x, gripper.y - target.y) < MIN_START_DISTANCE:
        return False
    if task.skill == "place":
        decal = scene.decals[index_of(task.reference)]
        if math.hypot(decal.x - target.x, decal.y - target.y) < MIN_PLACE_DISTANCE:
            return False
    return skills.feasible(scene, task)


def choices(scene: Scene, skill: str) -> list[Choice]:
    """Every (target, reference) that names a task of `skill` in `scene`, feasible or not."""
    count = len(scene.objects)
    match skill:
        case "move_near":
            return list(itertools.permutations(range(count), 2))
        case "push":
            return list(itertools.product(range(count), catalog.DIRECTIONS))
        case "place":
            return list(itertools.product(range(count), range(len(scene.decals))))
    return [(target, None) for target in range(count)]


def alternatives(scene: Scene, task: Task) -> Iterator[Task]:
    """Feasible tasks of the same skill, in a fixed order, whose target and reference both differ from the task's.

    Moving the task's reference object is not among them: it may end near the target, which would do the task.
    """
    for target, reference in choices(scene, task.skill):
        differs = target != task.target and (reference is None or reference != task.reference)
        moves_reference = task.skill == "move_near" and target == task.reference
        if differs and not moves_reference:
            other = skill_words.make_task(scene, task.skill, target, reference)
            if is_feasible(scene, other):
                yield other


def _category(rng: np.random.Generator, skill: str) -> str:
    possible = [name for name in REASONING if name != "arithmetic" or skill == "place"]
    if skill == "place":  # objects described by size or colour are asked for by the other skills
        possible = ["colour", "arithmetic", "multilingual"]
    return str(rng.choice(possible))


def _draw_scene(rng: np.random.Generator, split: Split, skill: str, category: str | None) -> Scene:
    kinds = {"arithmetic": DIGITS, "colour": ZONES}.get(category or "", split.decals)
    fewest = 2 if skill == "place" else 0
    decals = draw_decals(rng, int(rng.integers(fewest, 4)), kinds)
    environment = None if split.surroundings is None else split.surroundings(rng)
    first = split.targets[int(rng.integers(len(split.targets)))]
    return robot_scene(rng, pairs=split.pairs, first=(first,), decals=decals, environment=environment)


def _draw_task(rng: np.random.Generator, split: Split, scene: Scene, skill: str, category: str | None) -> Task | None:
    options = [c for c in choices(scene, skill) if _pair(scene, c[0]) in split.targets]
    described = None
    if category in REASONING_CATEGORIES:
        described = _draw_reference(rng, scene, skill, category)
        if described is None:
            return None
        options = [c for c in options if c[described.is_decal] == described.index]
    phrasing = int(rng.integers(12))
    for index in rng.permutation(len(options)):
        target, reference = options[int(index)]
        task = skill_words.make_task(scene, skill, target, reference, phrasing)
        if is_feasible(scene, task) and next(alternatives(scene, task), None) is not None:
            return _reworded(rng, scene, task, category, described)
    return None


def _draw_reference(rng: np.random.Generator, scene: Scene, skill: str, category: str) -> Reference | None:
    fitting = [r for r in references(scene) if r.category == category and r.is_decal == (skill == "place")]
    return fitting[int(rng.integers(len(fitting)))] if fitting else None


def _reworded(
    rng: np.random.Generator, scene: Scene, task: Task, category: str | None, described: Reference | None
) -> Task:
    """The same task in the words of its reasoning category; the plan keeps the plain names."""
    if described is not None:
        return dataclasses.replace(task, instruction=task.instruction.replace(described.name, described.text, 1))
    if category == "multilingual":
        lang = str(rng.choice(LANGUAGES[1:]))
        text = foreign_instruction(scene, task.skill, task.target, task.reference, lang, int(rng.integers(2)))
        return dataclasses.replace(task, instruction=text)
    return task


def _pair(scene: Scene, index: int) -> Pair:
    return scene.objects[index].color, scene.objects[index].shape
