"""What is said about scenes is true of them: checked against the scene by other code than the one that said it."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.sim.language import describe, lexicon, questions, references
from rt2_jax.sim.language.describe import Counts, annotate
from rt2_jax.sim.language.lexicon import UNDER_GRIPPER
from rt2_jax.sim.language.questions import View
from rt2_jax.sim.tasks.corpus import corpus, rough_positions
from rt2_jax.sim.world.sampling import wide_scene
from rt2_jax.sim.world.scene import Decal, Environment, GripperPose, Scene, SceneObject

SCENE = Scene(
    objects=(
        SceneObject("red", "cube", "small", -0.1, 0.1),
        SceneObject("blue", "ball", "large", 0.1, 0.1),
        SceneObject("red", "star", "large", 0.1, -0.1),
    ),
    decals=(Decal("digit", "3", -0.1, -0.1), Decal("zone", "blue", 0.0, 0.0)),
    environment=Environment(background="stripes"),
    gripper=GripperPose(0.0, 0.0, 0.09, closed=1.0),
)
POSITIONS = {
    "red cube": (22.4, 22.9),
    "blue ball": (78.0, 22.0),
    "red star": (78.0, 78.0),
    "number 3": (22.0, 78.0),
    "blue zone": (50.0, 50.0),
    "robot gripper": (50.0, 45.0),
    UNDER_GRIPPER: (50.9, 60.2),
}
MANY = Counts(locate=20, vqa=20, caption=8, alt_text=8)


def _answers(scene, positions, kind, lang="en", tries=40):
    view = View(scene, positions)
    rngs = (np.random.default_rng(seed) for seed in range(tries))
    return dict(asked for rng in rngs if (asked := questions.ask(view, rng, lang, kind)) is not None)


def _scene(seed):
    scene = wide_scene(np.random.default_rng(seed))
    return scene, {**rough_positions(scene), UNDER_GRIPPER: (40.7, 61.2)}


def test_detection_names_everything_in_alphabetical_order():
    expected = "blue ball 78 22; blue zone 50 50; number 3 22 78; red cube 22 22; red star 78 78; robot gripper 50 45"
    assert describe.detection(View(SCENE, POSITIONS)) == expected
    from_spot = "blue ball 156 90; blue zone 128 118; number 3 100 146; red cube 100 90; red star 156 146; "
    assert describe.detection_from_gripper(View(SCENE, POSITIONS)) == from_spot + "robot gripper 128 113"


@pytest.mark.parametrize(
    "unseen", [{"robot gripper"}, {UNDER_GRIPPER}, POSITIONS.keys() - {"robot gripper", UNDER_GRIPPER}]
)
def test_nothing_is_placed_from_a_gripper_without_something_and_its_spot(unseen):
    positions = {name: place for name, place in POSITIONS.items() if name not in unseen}
    kinds = {a.kind for a in annotate(SCENE, positions, np.random.default_rng(0), MANY)}
    assert "detect" in kinds and not any(kind.endswith("from_gripper") for kind in kinds)


@pytest.mark.parametrize(
    ("kind", "lang", "question", "answer"),
    [
        ("where", "en", "where is the red cube?", "top left"),
        ("where", "de", "Wo ist die blaue Kugel?", "oben rechts"),
        ("point", "fr", "Où exactement est l'étoile rouge ?", "78 78"),
        ("what_at", "en", "what is at 22 78?", "number 3"),
        ("count", "en", "how many objects are there?", "3"),
        ("count_color", "es", "¿Cuántos objetos rojos hay?", "2"),
        ("count_shape", "es", "¿Cuántas bolas hay?", "1"),
        ("count_shape", "fr", "Combien d'étoiles y a-t-il ?", "1"),
        ("color", "en", "what colour is the ball?", "blue"),
        ("color", "fr", "De quelle couleur est l'étoile ?", "rouge"),
        ("shape", "de", "Welche Form hat der blaue Gegenstand?", "Kugel"),
        ("smallest", "en", "which object is the smallest?", "red cube"),
        ("digit", "en", "what number is on the table?", "3"),
        ("left", "en", "is the red cube left of the blue ball?", "yes"),
        ("left", "de", "Ist der rote Stern links vom roten Würfel?", "nein"),
        ("right", "es", "¿Está la bola azul a la derecha del cubo rojo?", "sí"),
        ("same_color", "en", "which object has the same colour as the blue zone?", "blue ball"),
        ("same_color", "en", "which object has the same colour as the red star?", "red cube"),
        ("gripper_open", "en", "is the gripper open?", "no"),
        ("table", "en", "what is the table like?", "on a striped table"),
    ],
)
def test_answers(kind, lang, question, answer):
    assert _answers(SCENE, POSITIONS, kind, lang, tries=200)[question] == answer


@pytest.mark.parametrize("kind", ["largest", "letter", "portrait", "on"])
def test_questions_without_a_single_answer_are_not_asked(kind):
    assert _answers(SCENE, POSITIONS, kind) == {}


def test_references_hold_one_thing_each():
    found = {reference.text: reference.name for reference in references.references(SCENE)}
    assert found["smallest object"] == "red cube"
    assert found["number that is 1 plus 2"] == "number 3"
    assert found["number that is 9 minus 6"] == "number 3"
    assert found["object with the same colour as the blue zone"] == "blue ball"
    assert found["zone with the same colour as the blue ball"] == "blue zone"
    assert found["object with the same colour as the red cube"] == "red star"
    assert found["leftmost object"] == "red cube"
    assert "rightmost object" not in found and "largest object" not in found


@given(result=st.integers(1, 9))
def test_sums_come_out_right(result):
    for text in references.sums(result):
        first, sign, second = text.split()
        assert {"plus": int(first) + int(second), "minus": int(first) - int(second)}[sign] == result


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_annotations_are_true_and_well_formed(seed):
    scene, positions = _scene(seed)
    found = annotate(scene, positions, np.random.default_rng(seed), MANY)
    keys = [(a.kind, a.lang, a.question) for a in found if a.kind in ("locate", "locate_from_gripper", "vqa")]
    assert len(set(keys)) == len(keys)
    places = {name: f"{int(np.clip(x, 0, 99))} {int(np.clip(y, 0, 99))}" for name, (x, y) in positions.items()}
    spot = _numbers(places.pop(UNDER_GRIPPER))
    described = {reference.text: reference.name for reference in references.references(scene)}
    for annotation in found:
        question, target = annotation.question, annotation.target
        assert annotation.kind in describe.KINDS and annotation.lang in lexicon.LANGUAGES
        assert target == target.strip() and target
        match annotation.kind:
            case "detect":
                assert dict(re.findall(r"(\D+) (\d+ \d+)(?:; )?", _spaced_letters(target))) == _spaced(places)
            case "locate":
                name = described.get(question, question.removeprefix("portrait of "))
                assert target == places[name]
            case "detect_from_gripper":
                seen = re.findall(r"(\D+) (\d+) (\d+)(?:; )?", _spaced_letters(target))
                counted = {name: f"{int(x) - 128 + spot[0]} {int(y) - 128 + spot[1]}" for name, x, y in seen}
                assert counted == _spaced(places)
            case "locate_from_gripper":
                place = " ".join(str(there - 128 + here) for there, here in zip(_numbers(target), spot, strict=True))
                assert place == places[question.removeprefix("portrait of ")]
            case "alt_text":
                count, text = question.split("|")
                assert int(count) == len(text.split())


def _numbers(place):
    return tuple(map(int, place.split()))


def _spaced_letters(text):
    """Digit decals end in a digit of their own: "number 3 50 50" -> "number three 50 50" for the pattern above."""
    return re.sub(r"number (\d)", lambda found: "number " + "abcdefghij"[int(found[1])], text)


def _spaced(places):
    return {_spaced_letters(name): place for name, place in places.items()}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_hidden_things_are_never_pointed_at_named_or_counted(seed):
    scene, positions = _scene(seed)
    hidden = scene.objects[seed % len(scene.objects)]
    del positions[hidden.name]
    for annotation in annotate(scene, positions, np.random.default_rng(seed), MANY):
        if annotation.kind in ("detect", "caption", "alt_text", "locate", "detect_from_gripper", "locate_from_gripper"):
            forms = vars(lexicon.phrase(annotation.lang, hidden)).values()
            text = f"{annotation.question} {annotation.target}"
            assert not any(re.search(rf"\b{form}\b", text) for form in forms), annotation
        elif "mean?" not in annotation.question:
            assert lexicon.phrase(annotation.lang, hidden).bare not in annotation.target, annotation
    assert _answers(scene, positions, "count", tries=3) == {}


def test_the_same_seed_says_the_same():
    scene, positions = _scene(5)
    first, second = (annotate(scene, positions, np.random.default_rng(1)) for _ in range(2))
    assert first == second
    assert first != annotate(scene, positions, np.random.default_rng(2))


def test_an_empty_view_says_nothing():
    assert annotate(SCENE, {}, np.random.default_rng(0)) == []


def test_integers_stand_alone():
    """The vocabulary has whole integers as words: a digit inside a word would fall apart."""
    for seed in range(60):
        scene, positions = _scene(seed)
        for annotation in annotate(scene, positions, np.random.default_rng(seed), MANY):
            for text in (annotation.question.partition("|")[2], annotation.target):
                assert not re.search(r"[^\W\d]\d|\d[^\W\d]", text), text


def test_every_question_is_asked_in_every_language():
    for kind in questions.QUESTIONS:
        for lang in lexicon.LANGUAGES:
            asked = (_answers(*_scene(seed), kind, lang, tries=2) for seed in range(150))
            assert next((found for found in asked if found), None), (kind, lang)


def test_corpus_has_all_names_languages_and_prompts():
    lines = list(corpus(num_scenes=60))
    assert lines == list(corpus(num_scenes=60))
    text = "\n".join(lines)
    words = [
        "Detect all objects", "Locate the smallest object", "what action should the robot take to", "Answer in fr:",
        "Plan: place", "Generate the alt-text in", "Kofi", "letter Z", "number 9", "cyan star", "barra naranja",
        "étoile", "Würfel", "schiebe", "push the", "to the left", "robot gripper", "heart sign", "1 128 91 241",
    ]  # fmt: skip
    assert [word for word in words if word not in text] == []
