"""What a web page would say about a picture of the table: captions, alt-text, questions, pointing and detection.

The simulator renders, this module words. An `Annotation` keeps the parts of a prompt; `datasets/tabletop/tasks.py`
joins them with the prompt conventions of RT-2 and PaLI-X (RT-2, section 3.2).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from rt2_jax.sim.language import questions, skill_words
from rt2_jax.sim.language.lexicon import GRIPPER, LANGUAGES, SURFACES, UNDER_GRIPPER, enumeration, phrase
from rt2_jax.sim.language.questions import View
from rt2_jax.sim.language.references import references
from rt2_jax.sim.language.wordings import DIRECTIONS, INSTRUCTIONS
from rt2_jax.sim.world.scene import Decal, Scene, SceneObject, direction_of, index_of

KINDS: tuple[str, ...] = (
    "detect", "locate", "vqa", "caption", "alt_text", "detect_from_gripper", "locate_from_gripper",
)  # fmt: skip
# Places counted from the spot under the gripper have it here: the middle of the integers 0..255, and of action bins.
SPOT_PLACE = 128
# English and the rest: RT-2's instructions are English, its web data is not only that.
_LANGUAGE_SHARES = (0.55, 0.15, 0.15, 0.15)
_CAPTIONS: dict[str, tuple[str, ...]] = {
    "en": (
        "a photo of {a} {surface}",
        "a picture of {a} {surface}",
        "{a} {surface}",
        "this is {a} {surface}",
        "{surface}: {a}",
    ),
    "de": ("ein Foto: {a} {surface}", "das Bild zeigt {a_acc} {surface}", "{a} {surface}"),
    "fr": ("une photo avec {a} {surface}", "on voit {a} {surface}", "{a} {surface}"),
    "es": ("una foto con {a} {surface}", "la imagen muestra {a} {surface}", "{a} {surface}"),
}
_BELOW_GRIPPER: dict[str, tuple[str, ...]] = {
    "en": ("a robot gripper above {a} {surface}", "a robot at work with {a} {surface}"),
    "de": ("ein Greifer und {a} {surface}",),
    "fr": ("une pince et {a} {surface}",),
    "es": ("una pinza y {a} {surface}",),
}
# Most things a caption names: longer ones do not fit a target of 64 tokens in every language.
_MOST_NAMED = 4


@dataclasses.dataclass(frozen=True)
class Annotation:
    """One prompt and its answer about an image.

    kind: one of `KINDS`. lang: a code of `LANGUAGES`.
    question: vqa: the question; locate and locate_from_gripper: what to locate, without article; alt_text:
        ``"position|text so far"``, where position is the number of words so far; empty for the others.
    target: the answer, as text.
    """

    kind: str
    lang: str
    question: str
    target: str


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many annotations of each kind an image gets at most."""

    detect: int = 1
    locate: int = 3
    vqa: int = 6
    caption: int = 2
    alt_text: int = 1
    detect_from_gripper: int = 1
    locate_from_gripper: int = 2


DEFAULT_COUNTS = Counts()


def annotate(
    scene: Scene,
    positions: Mapping[str, tuple[float, float]],
    rng: np.random.Generator,
    counts: Counts = DEFAULT_COUNTS,
) -> list[Annotation]:
    """Draws annotations of a scene whose visible things are at `positions`.

    Args:
      positions: name -> (x, y) in percent of the frame from its left and top, for every visible object and decal and,
        under `GRIPPER`, the gripper and, under `UNDER_GRIPPER`, the spot on the table below it. What is not in it is
        never named.
      rng: chooses what is said, in which words and languages.
      counts: how many of each kind; fewer if the scene has not as many to say.

    Returns: annotations without repeated (kind, language, question); none if nothing is visible.
    """
    view = View(scene, positions)
    if not view.things:
        return []
    found = [Annotation("detect", "en", "", detection(view))] * min(counts.detect, 1)
    found += _locates(view, rng, counts.locate)
    found += _questions(view, rng, counts.vqa)
    for _ in range(counts.caption):
        lang = _language(rng)
        found.append(Annotation("caption", lang, "", caption(view, rng, lang)))
    for _ in range(counts.alt_text):
        found.append(_alt_text(view, rng))
    return found + _from_gripper(view, rng, counts)


def detection(view: View) -> str:
    """``"blue ball 34 56; number 3 50 50; robot gripper 40 30"``: everything visible, in alphabetical order."""
    return "; ".join(f"{name} {view.place(name)}" for name in sorted(view.things))


def detection_from_gripper(view: View) -> str:
    """As `detection`, each place counted from the spot under the gripper; where the gripper is tells how high it is."""
    spot = view.percent(UNDER_GRIPPER)
    return "; ".join(f"{name} {place_from_gripper(view.percent(name), spot)}" for name in sorted(view.things))


def place_from_gripper(there: np.ndarray, spot: np.ndarray) -> str:
    """``"x y"`` of a place counted from the spot on the table under the gripper, which is at 128 128.

    Both int[2], percent of the frame. From the gripper itself a thing's place would say little of how far it is: the
    higher the gripper, the further up the frame it is seen.
    """
    return "{} {}".format(*(SPOT_PLACE + there - spot))


def caption(view: View, rng: np.random.Generator, lang: str) -> str:
    """A sentence or phrase that names up to four visible things and the table."""
    things = [thing for thing in view.things.values() if not isinstance(thing, str)]
    chosen = [phrase(lang, things[int(i)]) for i in rng.permutation(len(things))[:_MOST_NAMED]]
    if not chosen:
        chosen = [phrase(lang, GRIPPER)]
    wordings = _CAPTIONS[lang]
    if GRIPPER in view.things and things and rng.random() < 0.4:
        wordings = _BELOW_GRIPPER[lang]
    return wordings[int(rng.integers(len(wordings)))].format(
        a=enumeration(lang, [words.a for words in chosen]),
        a_acc=enumeration(lang, [words.a_acc for words in chosen]),
        surface=SURFACES[lang][view.scene.environment.background],
    )


def locatable_name(thing: SceneObject | Decal | str) -> str:
    """What follows "Locate the": the thing's name, or "portrait of Ada"."""
    if isinstance(thing, str):
        return thing
    portrait = isinstance(thing, Decal) and thing.kind == "portrait"
    return f"portrait of {thing.name}" if portrait else thing.name


def _language(rng: np.random.Generator) -> str:
    return str(rng.choice(LANGUAGES, p=_LANGUAGE_SHARES))


def _locates(view: View, rng: np.random.Generator, count: int) -> list[Annotation]:
    """Half plain names, half descriptions; each category of descriptions is as likely as another."""
    plain = [(locatable_name(thing), name) for name, thing in sorted(view.things.items())]
    by_category: dict[str, list[tuple[str, str]]] = {}
    for reference in references(view.scene):
        if reference.name in view.things and reference.anchor in (None, *view.things):
            by_category.setdefault(reference.category, []).append((reference.text, reference.name))
    asked: dict[str, str] = {}
    for _ in range(3 * count):
        described = bool(by_category) and rng.random() < 0.5
        options = by_category[str(rng.choice(sorted(by_category)))] if described else plain
        text, name = options[int(rng.integers(len(options)))]
        asked[text] = view.place(name)
        if len(asked) == count:
            break
    return [Annotation("locate", "en", text, place) for text, place in asked.items()]


def _from_gripper(view: View, rng: np.random.Generator, counts: Counts) -> list[Annotation]:
    """Where things are as the robot would need it: seen from its gripper, in percent of the frame."""
    others = sorted(set(view.things) - {GRIPPER})
    if GRIPPER not in view.things or UNDER_GRIPPER not in view.positions or not others:
        return []
    everything = Annotation("detect_from_gripper", "en", "", detection_from_gripper(view))
    found = [everything] * min(counts.detect_from_gripper, 1)
    for index in rng.permutation(len(others))[: counts.locate_from_gripper]:
        name = others[int(index)]
        place = place_from_gripper(view.percent(name), view.percent(UNDER_GRIPPER))
        found.append(Annotation("locate_from_gripper", "en", locatable_name(view.things[name]), place))
    return found


def _questions(view: View, rng: np.random.Generator, count: int) -> list[Annotation]:
    asked: dict[tuple[str, str], str] = {}
    kinds = [*questions.QUESTIONS, "translate"]
    for index in rng.permutation(2 * len(kinds)):
        if len(asked) == count:
            break
        lang, kind = _language(rng), kinds[int(index) % len(kinds)]
        answered = _translation(view, rng) if kind == "translate" else questions.ask(view, rng, lang, kind)
        if answered is not None:
            asked["en" if kind == "translate" else lang, answered[0]] = answered[1]
    return [Annotation("vqa", lang, question, answer) for (lang, question), answer in asked.items()]


def _alt_text(view: View, rng: np.random.Generator) -> Annotation:
    """PaLI's split captioning: a caption cut after some words; the answer is the rest."""
    lang = _language(rng)
    words = caption(view, rng, lang).split()
    cut = int(rng.integers(1, len(words)))
    return Annotation("alt_text", lang, f"{cut}|{' '.join(words[:cut])}", " ".join(words[cut:]))


def foreign_instruction(
    scene: Scene, skill: str, target: int, reference: int | str | None, lang: str, wording: int = 0
) -> str:
    """An instruction in German, French or Spanish; `wording` counts modulo the skill's wordings."""
    options = INSTRUCTIONS[lang][skill]
    y = None
    if skill in ("move_near", "place"):
        place = index_of(reference)
        y = phrase(lang, scene.objects[place] if skill == "move_near" else scene.decals[place])
    direction = DIRECTIONS[lang][direction_of(reference)] if skill == "push" else ""
    x = phrase(lang, scene.objects[target])
    return options[wording % len(options)].format(x=x, y=y, direction=direction)


def _translation(view: View, rng: np.random.Generator) -> tuple[str, str] | None:
    """A question about language alone, as web text has them: what a foreign instruction means in English."""
    scene, lang = view.scene, str(rng.choice(LANGUAGES[1:]))
    pairs = ["move_near"] * (len(scene.objects) > 1) + ["place"] * bool(scene.decals)
    skill = str(rng.choice(["reach", "pick", "push", *pairs]))
    order = rng.permutation(len(scene.objects))
    target, other = int(order[0]), int(order[-1])
    reference: int | str | None = {
        "move_near": other,
        "push": str(rng.choice(sorted(DIRECTIONS[lang]))),
        "place": int(rng.integers(max(1, len(scene.decals)))),
    }.get(skill)
    foreign = foreign_instruction(scene, skill, target, reference, lang, int(rng.integers(2)))
    return f'what does "{foreign}" mean?', skill_words.instructions(scene, skill, target, reference)[0]
