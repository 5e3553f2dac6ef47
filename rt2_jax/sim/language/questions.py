"""Visual questions about a scene and their answers, in four languages (the web data's VQA).

Each kind of question is one function that returns a question and its answer, or None where the scene has none with a
single right answer. `wordings` has the sentences; `lexicon.Phrase` inflects the nouns in them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from rt2_jax.sim.language import lexicon, references
from rt2_jax.sim.language.lexicon import GRIPPER, phrase
from rt2_jax.sim.language.wordings import MINUS, PLUS, WORDINGS, YES
from rt2_jax.sim.world import catalog
from rt2_jax.sim.world.scene import Decal, Scene, SceneObject

Item = TypeVar("Item")
Thing = SceneObject | Decal | str
Question = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class View:
    """A scene and where its visible things are in the image: name -> (x, y) in percent from the left and the top."""

    scene: Scene
    positions: Mapping[str, tuple[float, float]]

    @functools.cached_property
    def things(self) -> dict[str, Thing]:
        """The visible things by name."""
        named: dict[str, Thing] = {thing.name: thing for thing in (*self.scene.objects, *self.scene.decals)}
        if self.scene.gripper is not None:
            named[GRIPPER] = GRIPPER
        return {name: thing for name, thing in named.items() if name in self.positions}

    @functools.cached_property
    def all_objects_seen(self) -> bool:
        """Whether no object is hidden, so that they may be counted."""
        return all(thing.name in self.positions for thing in self.scene.objects)

    def place(self, name: str) -> str:
        """``"x y"``: integers 0..99, percent of the frame from its left and its top."""
        return "{} {}".format(*self.percent(name))

    def percent(self, name: str) -> np.ndarray:
        """int[2], as `place` says it."""
        return np.clip(self.positions[name], 0, 99).astype(int)


_GERMAN_THE = {True: "die", False: "der"}
_SPANISH_THE = {True: "la", False: "el"}


def ask(view: View, rng: np.random.Generator, lang: str, kind: str) -> Question | None:
    """One question of `kind` (a key of `QUESTIONS`) in `lang`, worded at random; None if the scene has none."""
    return QUESTIONS[kind](view, rng, lang)


def _word(rng: np.random.Generator, kind: str, lang: str, **slots: object) -> str:
    wordings = WORDINGS[kind][lang]
    return wordings[int(rng.integers(len(wordings)))].format(**slots)


def _pick(rng: np.random.Generator, items: Sequence[Item]) -> Item | None:
    return items[int(rng.integers(len(items)))] if items else None


def _bare(view: View, lang: str, index: int | None) -> str | None:
    """How the visible object `index` is named in an answer."""
    if index is None or view.scene.objects[index].name not in view.positions:
        return None
    return phrase(lang, view.scene.objects[index]).bare


def _where(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    name = _pick(rng, sorted(view.things))
    if not name:
        return None
    answer = lexicon.region(lang, view.positions[name])
    return (_word(rng, "where", lang, x=phrase(lang, view.things[name])), answer) if answer else None


def _point(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    name = _pick(rng, sorted(view.things))
    return (_word(rng, "point", lang, x=phrase(lang, view.things[name])), view.place(name)) if name else None


def _what_at(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    name = _pick(rng, sorted(set(view.things) - {GRIPPER}))
    if name is None:
        return None
    here = np.array(view.positions[name])
    others = [np.hypot(*(here - view.positions[other])) for other in view.things if other != name]
    if others and min(others) < 8.0:
        return None
    return _word(rng, "what_at", lang, place=view.place(name)), phrase(lang, view.things[name]).bare


def _count(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    return (_word(rng, "count", lang), str(len(view.scene.objects))) if view.all_objects_seen else None


def _count_color(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    if not view.all_objects_seen:
        return None
    # Most questions are about a colour that is there: zeros teach little.
    colors = [thing.color for thing in view.scene.objects] if rng.random() < 0.7 else list(catalog.COLORS)
    color = colors[int(rng.integers(len(colors)))]
    answer = len(references.objects_of_colour(view.scene, color))
    return _word(rng, "count_color", lang, word=lexicon.color_plural(lang, color)), str(answer)


def _count_shape(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    if not view.all_objects_seen:
        return None
    shapes = [thing.shape for thing in view.scene.objects] if rng.random() < 0.7 else list(catalog.SHAPES)
    shape = shapes[int(rng.integers(len(shapes)))]
    word = lexicon.shape_plural(lang, shape)
    of = "d'" if word[0] == "é" else "de "
    gender = "a" if lexicon.is_feminine(lang, shape) else "o"
    question = _word(rng, "count_shape", lang, word=word, of=of, gender=gender)
    return question, str(sum(thing.shape == shape for thing in view.scene.objects))


def _color(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    shapes = [thing.shape for thing in view.scene.objects]
    thing = _pick(rng, [o for o in view.scene.objects if shapes.count(o.shape) == 1 and o.name in view.positions])
    if thing is None:
        return None
    word, feminine = lexicon.shape_word(lang, thing.shape), lexicon.is_feminine(lang, thing.shape)
    french = "l'" if word[0] == "é" else ("la " if feminine else "le ")
    the = {"en": "the", "de": _GERMAN_THE[feminine], "fr": french, "es": _SPANISH_THE[feminine]}[lang]
    return _word(rng, "color", lang, word=word, the=the), lexicon.color_word(lang, thing.color)


def _shape(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    colors = [thing.color for thing in view.scene.objects]
    thing = _pick(rng, [o for o in view.scene.objects if colors.count(o.color) == 1 and o.name in view.positions])
    if thing is None:
        return None
    # German takes the weak ending after "der", which is the plural's "-e".
    word = lexicon.color_plural(lang, thing.color) if lang == "de" else lexicon.color_word(lang, thing.color)
    return _word(rng, "shape", lang, word=word), lexicon.shape_word(lang, thing.shape)


def _extreme(kind: str, size: str) -> Callable[[View, np.random.Generator, str], Question | None]:
    def question(view: View, rng: np.random.Generator, lang: str) -> Question | None:
        answer = _bare(view, lang, references.odd_size(view.scene.objects, size)) if view.all_objects_seen else None
        return (_word(rng, kind, lang), answer) if answer else None

    return question


def _only_decal(kind: str) -> Callable[[View, np.random.Generator, str], Question | None]:
    def question(view: View, rng: np.random.Generator, lang: str) -> Question | None:
        same = [decal for decal in view.scene.decals if decal.kind == kind]
        if len(same) != 1 or same[0].name not in view.positions:
            return None
        return _word(rng, kind, lang), same[0].value

    return question


def _nearest(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    places = [(thing, thing.x, thing.y, index) for index, thing in enumerate(view.scene.objects)]
    places += [(decal, decal.x, decal.y, None) for decal in view.scene.decals]
    chosen = _pick(rng, [place for place in places if place[0].name in view.positions])
    if chosen is None:
        return None
    thing, x, y, skip = chosen
    answer = _bare(view, lang, references.nearest_object(view.scene, x, y, skip))
    return (_word(rng, "nearest", lang, x=phrase(lang, thing)), answer) if answer else None


def _beside(kind: str, sign: float) -> Callable[[View, np.random.Generator, str], Question | None]:
    def question(view: View, rng: np.random.Generator, lang: str) -> Question | None:
        if len(view.things) < 2:
            return None
        first, second = (sorted(view.things)[int(i)] for i in rng.permutation(len(view.things))[:2])
        offset = sign * (view.positions[first][0] - view.positions[second][0])
        if abs(offset) < 8.0:
            return None
        x, y = phrase(lang, view.things[first]), phrase(lang, view.things[second])
        return _word(rng, kind, lang, x=x, y=y), YES[lang][int(offset < 0)]

    return question


def _on(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    for index, decal in enumerate(view.scene.decals):
        answer = _bare(view, lang, references.object_on(view.scene, index))
        if answer and decal.name in view.positions:
            return _word(rng, "on", lang, x=phrase(lang, decal)), answer
    return None


def _same_color(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    pairs: list[tuple[SceneObject | Decal, int]] = [
        (decal, same[0])
        for decal in view.scene.decals
        if decal.kind == "zone" and len(same := references.objects_of_colour(view.scene, decal.value)) == 1
    ]
    for thing in view.scene.objects:
        same = references.objects_of_colour(view.scene, thing.color)
        if len(same) == 2:
            pairs.append((thing, same[view.scene.objects[same[0]] is thing]))
    chosen = _pick(rng, pairs)
    if chosen is None or chosen[0].name not in view.positions:
        return None
    answer = _bare(view, lang, chosen[1])
    return (_word(rng, "same_color", lang, x=phrase(lang, chosen[0])), answer) if answer else None


def _sum(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    result = int(rng.integers(1, 10))
    options = references.sums(result)
    text = options[int(rng.integers(len(options)))].replace("plus", PLUS[lang]).replace("minus", MINUS[lang])
    return _word(rng, "sum", lang, sum=text), str(result)


def _exists(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    if rng.random() < 0.5:
        thing = _pick(rng, [thing for thing in view.things.values() if not isinstance(thing, str)])
    else:
        color, shape = str(rng.choice(list(catalog.COLORS))), str(rng.choice(catalog.SHAPES))
        thing = SceneObject(color, shape, "small", 0.0, 0.0)
    if thing is None:
        return None
    there = thing.name in {other.name for other in (*view.scene.objects, *view.scene.decals)}
    if there and thing.name not in view.positions:
        return None
    return _word(rng, "exists", lang, x=phrase(lang, thing)), YES[lang][int(not there)]


def _gripper_open(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    gripper = view.scene.gripper
    if gripper is None or GRIPPER not in view.positions or abs(gripper.closed) < 0.6:
        return None
    return _word(rng, "gripper_open", lang), YES[lang][int(gripper.closed > 0)]


def _table(view: View, rng: np.random.Generator, lang: str) -> Question | None:
    return _word(rng, "table", lang), lexicon.SURFACES[lang][view.scene.environment.background]


QUESTIONS: dict[str, Callable[[View, np.random.Generator, str], Question | None]] = {
    "where": _where,
    "point": _point,
    "what_at": _what_at,
    "count": _count,
    "count_color": _count_color,
    "count_shape": _count_shape,
    "color": _color,
    "shape": _shape,
    "smallest": _extreme("smallest", "small"),
    "largest": _extreme("largest", "large"),
    "digit": _only_decal("digit"),
    "letter": _only_decal("letter"),
    "portrait": _only_decal("portrait"),
    "nearest": _nearest,
    "left": _beside("left", -1.0),
    "right": _beside("right", 1.0),
    "on": _on,
    "same_color": _same_color,
    "sum": _sum,
    "exists": _exists,
    "gripper_open": _gripper_open,
    "table": _table,
}
