"""Nouns in four languages: spot checks of grammar that a table typo would break."""

import pytest

from rt2_jax.sim.language import lexicon
from rt2_jax.sim.language.describe import foreign_instruction
from rt2_jax.sim.world import catalog
from rt2_jax.sim.world.sampling import ALL_DECALS, ALL_PAIRS
from rt2_jax.sim.world.scene import Decal, Scene, SceneObject


def _thing(color, shape):
    return SceneObject(color, shape, "small", 0.0, 0.0)


@pytest.mark.parametrize(
    ("lang", "thing", "form", "expected"),
    [
        ("en", _thing("orange", "cube"), "a", "an orange cube"),
        ("en", Decal("digit", "3", 0, 0), "a", "the number 3"),
        ("en", Decal("portrait", "Ada", 0, 0), "a", "a portrait of Ada"),
        ("de", _thing("red", "cube"), "a", "ein roter Würfel"),
        ("de", _thing("red", "cube"), "a_acc", "einen roten Würfel"),
        ("de", _thing("red", "cube"), "the_dat", "dem roten Würfel"),
        ("de", _thing("white", "ball"), "the_dat", "der weißen Kugel"),
        ("de", _thing("purple", "ball"), "a_acc", "eine lila Kugel"),
        ("de", Decal("letter", "A", 0, 0), "the_acc", "den Buchstaben A"),
        ("de", Decal("zone", "black", 0, 0), "the_acc", "die schwarze Zone"),
        ("fr", _thing("green", "ball"), "a", "une balle verte"),
        ("fr", _thing("white", "star"), "the", "l'étoile blanche"),
        ("fr", _thing("blue", "cube"), "of", "du cube bleu"),
        ("fr", Decal("portrait", "Omar", 0, 0), "a", "un portrait d'Omar"),
        ("fr", Decal("icon", "heart", 0, 0), "of", "du signe du cœur"),
        ("es", _thing("yellow", "ball"), "the", "la bola amarilla"),
        ("es", _thing("orange", "bar"), "a", "una barra naranja"),
        ("es", Decal("zone", "red", 0, 0), "of", "de la zona roja"),
        ("es", lexicon.GRIPPER, "of", "de la pinza"),
    ],
)
def test_forms(lang, thing, form, expected):
    assert getattr(lexicon.phrase(lang, thing), form) == expected


def test_plural_colours():
    assert [lexicon.color_plural("de", color) for color in ("red", "purple", "black")] == ["rote", "lila", "schwarze"]
    assert [lexicon.color_plural("fr", color) for color in ("red", "orange", "blue")] == ["rouges", "orange", "bleus"]
    assert [lexicon.color_plural("es", color) for color in ("blue", "green", "pink")] == ["azules", "verdes", "rosa"]


@pytest.mark.parametrize("lang", lexicon.LANGUAGES)
def test_every_thing_has_its_own_name_in_every_language(lang):
    things = [_thing(*pair) for pair in ALL_PAIRS] + [Decal(*decal, 0.0, 0.0) for decal in ALL_DECALS]
    names = [lexicon.phrase(lang, thing).bare for thing in [*things, lexicon.GRIPPER]]
    assert len(set(names)) == len(names)
    assert set(lexicon.SURFACES[lang]) == {*catalog.BACKGROUNDS_PLAIN, *catalog.BACKGROUNDS_PATTERN}


def test_regions_skip_the_borders():
    assert lexicon.region("en", (10, 90)) == "bottom left"
    assert lexicon.region("de", (50, 50)) == "in der Mitte"
    assert lexicon.region("es", (80, 20)) == "arriba a la derecha"
    assert lexicon.region("en", (35, 90)) is None


def test_foreign_instructions():
    scene = Scene((_thing("red", "cube"), _thing("green", "ball")), (Decal("letter", "B", 0, 0),))
    assert foreign_instruction(scene, "place", 0, 0, "de") == "lege den roten Würfel auf den Buchstaben B"
    assert foreign_instruction(scene, "move_near", 1, 0, "fr") == "mets la balle verte près du cube rouge"
    assert foreign_instruction(scene, "push", 1, "left", "es") == "empuja la bola verde hacia la izquierda"
    assert foreign_instruction(scene, "pick", 0, None, "de", wording=1) == "hebe den roten Würfel auf"
