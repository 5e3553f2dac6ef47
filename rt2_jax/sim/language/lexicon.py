"""Nouns, adjectives and places in four languages, inflected: how a thing on the table is named in a sentence.

`phrase(lang, thing)` gives every form a template may ask for, so templates stay plain strings such as
``"Wo ist {x.the}?"`` or ``"lege {x.the_acc} auf {y.the_acc}"``. English is canonical: its bare form is the thing's
name in instructions, detection strings and pointing prompts.
"""

import dataclasses
import functools
from collections.abc import Sequence

from rt2_jax.sim.world.scene import Decal, SceneObject

LANGUAGES: tuple[str, ...] = ("en", "de", "fr", "es")
GRIPPER = "robot gripper"
# The spot on the table straight below it, between the shadows of its fingers. It has a place but is never named.
UNDER_GRIPPER = "spot under the robot gripper"


@dataclasses.dataclass(frozen=True)
class Phrase:
    """One thing in one language: ``roter Würfel``, ``ein roter Würfel``, ``einen roten Würfel``, and so on.

    `of` is what follows "left", "near" or "close" in that language: ``of the red cube``, ``vom roten Würfel``,
    ``du cube rouge``, ``del cubo rojo``.
    """

    bare: str
    a: str
    a_acc: str
    the: str
    the_acc: str
    the_dat: str
    of: str


# Masculine, feminine (German: a stem that takes endings, or a word that takes none, marked by "=").
_ADJECTIVES: dict[str, dict[str, tuple[str, str]]] = {
    "fr": {
        "red": ("rouge", "rouge"), "green": ("vert", "verte"), "blue": ("bleu", "bleue"), "yellow": ("jaune", "jaune"),
        "purple": ("violet", "violette"), "orange": ("orange", "orange"), "pink": ("rose", "rose"),
        "cyan": ("turquoise", "turquoise"), "black": ("noir", "noire"), "white": ("blanc", "blanche"),
    },
    "es": {
        "red": ("rojo", "roja"), "green": ("verde", "verde"), "blue": ("azul", "azul"),
        "yellow": ("amarillo", "amarilla"), "purple": ("morado", "morada"), "orange": ("naranja", "naranja"),
        "pink": ("rosa", "rosa"), "cyan": ("turquesa", "turquesa"), "black": ("negro", "negra"),
        "white": ("blanco", "blanca"),
    },
}  # fmt: skip
_GERMAN_COLORS: dict[str, str] = {
    "red": "rot", "green": "grün", "blue": "blau", "yellow": "gelb", "purple": "=lila", "orange": "=orange",
    "pink": "=rosa", "cyan": "=türkis", "black": "schwarz", "white": "weiß",
}  # fmt: skip
# Words that do not change in the plural.
_INVARIABLE = frozenset({"orange", "turquoise", "naranja", "rosa", "turquesa"})
# Singular, plural, gender.
_SHAPES: dict[str, dict[str, tuple[str, str, str]]] = {
    "en": {
        "cube": ("cube", "cubes", "n"), "ball": ("ball", "balls", "n"), "cylinder": ("cylinder", "cylinders", "n"),
        "cone": ("cone", "cones", "n"), "star": ("star", "stars", "n"), "bar": ("bar", "bars", "n"),
    },
    "de": {
        "cube": ("Würfel", "Würfel", "m"), "ball": ("Kugel", "Kugeln", "f"), "cylinder": ("Zylinder", "Zylinder", "m"),
        "cone": ("Kegel", "Kegel", "m"), "star": ("Stern", "Sterne", "m"), "bar": ("Balken", "Balken", "m"),
    },
    "fr": {
        "cube": ("cube", "cubes", "m"), "ball": ("balle", "balles", "f"), "cylinder": ("cylindre", "cylindres", "m"),
        "cone": ("cône", "cônes", "m"), "star": ("étoile", "étoiles", "f"), "bar": ("barre", "barres", "f"),
    },
    "es": {
        "cube": ("cubo", "cubos", "m"), "ball": ("bola", "bolas", "f"), "cylinder": ("cilindro", "cilindros", "m"),
        "cone": ("cono", "conos", "m"), "star": ("estrella", "estrellas", "f"), "bar": ("barra", "barras", "f"),
    },
}  # fmt: skip
_ICONS: dict[str, dict[str, str]] = {
    "de": {
        "heart": "Herzsymbol", "star": "Sternsymbol", "moon": "Mondsymbol", "tree": "Baumsymbol", "house": "Haussymbol",
        "arrow": "Pfeilsymbol", "sun": "Sonnensymbol", "cross": "Kreuzsymbol",
    },
    "fr": {
        "heart": "signe du cœur", "star": "signe de l'étoile", "moon": "signe de la lune", "tree": "signe de l'arbre",
        "house": "signe de la maison", "arrow": "signe de la flèche", "sun": "signe du soleil",
        "cross": "signe de la croix",
    },
    "es": {
        "heart": "signo del corazón", "star": "signo de la estrella", "moon": "signo de la luna",
        "tree": "signo del árbol", "house": "signo de la casa", "arrow": "signo de la flecha", "sun": "signo del sol",
        "cross": "signo de la cruz",
    },
}  # fmt: skip
# Noun, gender and, for zones, whether it takes a colour.
_DECAL_NOUNS: dict[str, dict[str, tuple[str, str]]] = {
    "de": {"digit": ("Zahl", "f"), "letter": ("Buchstabe", "weak"), "zone": ("Zone", "f")},
    "fr": {"digit": ("chiffre", "m"), "letter": ("lettre", "f"), "zone": ("zone", "f")},
    "es": {"digit": ("número", "m"), "letter": ("letra", "f"), "zone": ("zona", "f")},
}
_GRIPPERS: dict[str, tuple[str, str]] = {"de": ("Greifer", "m"), "fr": ("pince", "f"), "es": ("pinza", "f")}
# Where on the table things lie, with the preposition.
SURFACES: dict[str, dict[str, str]] = {
    "en": {
        "grey": "on a grey table", "beige": "on a beige table", "slate": "on a slate table", "mint": "on a mint table",
        "sand": "on a sand table", "lilac": "on a lilac table", "wood": "on a wooden table",
        "checker": "on a checkered table", "stripes": "on a striped table", "dots": "on a dotted table",
        "marble": "on a marble table", "grass": "on grass",
    },
    "de": {
        "grey": "auf einem grauen Tisch", "beige": "auf einem beigen Tisch", "slate": "auf einem schiefergrauen Tisch",
        "mint": "auf einem mintgrünen Tisch", "sand": "auf einem sandfarbenen Tisch",
        "lilac": "auf einem fliederfarbenen Tisch", "wood": "auf einem Holztisch",
        "checker": "auf einem karierten Tisch", "stripes": "auf einem gestreiften Tisch",
        "dots": "auf einem gepunkteten Tisch", "marble": "auf einem Marmortisch", "grass": "auf Gras",
    },
    "fr": {
        "grey": "sur une table grise", "beige": "sur une table beige", "slate": "sur une table ardoise",
        "mint": "sur une table vert menthe", "sand": "sur une table couleur sable", "lilac": "sur une table lilas",
        "wood": "sur une table en bois", "checker": "sur une table à carreaux", "stripes": "sur une table à rayures",
        "dots": "sur une table à pois", "marble": "sur une table en marbre", "grass": "sur de l'herbe",
    },
    "es": {
        "grey": "sobre una mesa gris", "beige": "sobre una mesa beige", "slate": "sobre una mesa color pizarra",
        "mint": "sobre una mesa verde menta", "sand": "sobre una mesa color arena", "lilac": "sobre una mesa lila",
        "wood": "sobre una mesa de madera", "checker": "sobre una mesa de cuadros",
        "stripes": "sobre una mesa de rayas", "dots": "sobre una mesa de lunares", "marble": "sobre una mesa de mármol",
        "grass": "sobre hierba",
    },
}  # fmt: skip
# Rows from the top of the image to its bottom, columns from left to right.
REGIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "en": (("top left", "top", "top right"), ("left", "middle", "right"), ("bottom left", "bottom", "bottom right")),
    "de": (
        ("oben links", "oben", "oben rechts"),
        ("links", "in der Mitte", "rechts"),
        ("unten links", "unten", "unten rechts"),
    ),
    "fr": (
        ("en haut à gauche", "en haut", "en haut à droite"),
        ("à gauche", "au milieu", "à droite"),
        ("en bas à gauche", "en bas", "en bas à droite"),
    ),
    "es": (
        ("arriba a la izquierda", "arriba", "arriba a la derecha"),
        ("a la izquierda", "en el centro", "a la derecha"),
        ("abajo a la izquierda", "abajo", "abajo a la derecha"),
    ),
}
AND: dict[str, str] = {"en": "and", "de": "und", "fr": "et", "es": "y"}

_GERMAN_A = {"m": ("ein", "einen"), "f": ("eine", "eine"), "n": ("ein", "ein")}
_GERMAN_THE = {
    "m": ("der", "den", "dem", "vom"),
    "f": ("die", "die", "der", "von der"),
    "n": ("das", "das", "dem", "vom"),
}
# Endings after ein (nominative, accusative), after der (nominative, accusative, dative).
_GERMAN_ENDINGS = {
    "m": ("er", "en", "e", "en", "en"),
    "f": ("e", "e", "e", "e", "en"),
    "n": ("es", "es", "e", "e", "en"),
}


def phrase(lang: str, thing: SceneObject | Decal | str) -> Phrase:
    """Every form of `thing` (an object, a decal or `GRIPPER`) in `lang`. Raises KeyError for an unknown language."""
    match thing:
        case SceneObject():
            return _object_phrase(lang, thing.color, thing.shape)
        case Decal():
            return _decal_phrase(lang, thing.kind, thing.value, thing.name)
        case _:
            return _gripper_phrase(lang)


def color_word(lang: str, color: str) -> str:
    """The colour alone, as an answer: ``red``, ``rot``, ``rouge``, ``rojo``."""
    match lang:
        case "en":
            return color
        case "de":
            return _GERMAN_COLORS[color].removeprefix("=")
    return _ADJECTIVES[lang][color][0]


def color_plural(lang: str, color: str) -> str:
    """The colour before or after a masculine plural noun: ``rote``, ``rouges``, ``rojos``."""
    word = color_word(lang, color)
    match lang:
        case "en":
            return word
        case "de":
            return word if _GERMAN_COLORS[color].startswith("=") else word + "e"
        case "fr":
            return word if word in _INVARIABLE else word + "s"
    return word if word in _INVARIABLE else word + ("es" if word[-1] not in "aeo" else "s")


def shape_word(lang: str, shape: str) -> str:
    """The shape alone, as an answer: ``cube``, ``Würfel``, ``cubo``."""
    return _SHAPES[lang][shape][0]


def shape_plural(lang: str, shape: str) -> str:
    """``cubes``, ``Würfel``, ``cubos``."""
    return _SHAPES[lang][shape][1]


def is_feminine(lang: str, shape: str) -> bool:
    """Whether the shape's noun is feminine in `lang`."""
    return _SHAPES[lang][shape][2] == "f"


def region(lang: str, position: tuple[float, float]) -> str | None:
    """The ninth of the frame that holds `position` (percent); None within 3 percent of a border between ninths."""
    column, row = (_third(value) for value in position)
    return None if column is None or row is None else REGIONS[lang][row][column]


def enumeration(lang: str, items: Sequence[str]) -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {AND[lang]} {items[-1]}"


def _third(value: float) -> int | None:
    if min(abs(value - 36.0), abs(value - 64.0)) < 3.0:
        return None
    return int(value > 36.0) + int(value > 64.0)


@functools.cache
def _object_phrase(lang: str, color: str, shape: str) -> Phrase:
    noun, _, gender = _SHAPES[lang][shape]
    match lang:
        case "en":
            return _english(f"{color} {noun}")
        case "de":
            return _german(noun, gender, _GERMAN_COLORS[color])
    adjective = _ADJECTIVES[lang][color][gender == "f"]
    return _romance(lang, f"{noun} {adjective}", gender)


@functools.cache
def _decal_phrase(lang: str, kind: str, value: str, name: str) -> Phrase:
    if kind == "portrait":
        return _portrait(lang, name)
    if lang == "en":
        return _definite_only(f"the {name}", name) if kind in ("digit", "letter") else _english(name)
    if kind == "icon":
        noun = _ICONS[lang][value]
        return _german(noun, "n", None) if lang == "de" else _romance(lang, noun, "m")
    noun, gender = _DECAL_NOUNS[lang][kind]
    if kind == "zone":
        if lang == "de":
            return _german(noun, gender, _GERMAN_COLORS[value])
        return _romance(lang, f"{noun} {_ADJECTIVES[lang][value][1]}", gender)
    if gender == "weak":  # der Buchstabe, den Buchstaben
        weak = f"{noun}n {value}"
        return Phrase(f"{noun} {value}", f"der {noun} {value}", f"den {weak}", f"der {noun} {value}", f"den {weak}",
                      f"dem {weak}", f"vom {weak}")  # fmt: skip
    forms = _german(f"{noun} {value}", gender, None) if lang == "de" else _romance(lang, f"{noun} {value}", gender)
    return dataclasses.replace(forms, a=forms.the, a_acc=forms.the_acc)


def _gripper_phrase(lang: str) -> Phrase:
    if lang == "en":
        return _english(GRIPPER)
    noun, gender = _GRIPPERS[lang]
    return _german(noun, gender, None) if lang == "de" else _romance(lang, noun, gender)


def _english(name: str) -> Phrase:
    article = "an" if name[0] in "aeiou" else "a"
    return _caseless(name, f"{article} {name}", f"the {name}", f"of the {name}")


def _definite_only(definite: str, bare: str) -> Phrase:
    return _caseless(bare, definite, definite, f"of {definite}")


def _caseless(bare: str, a: str, the: str, of: str) -> Phrase:
    """A thing whose words are the same in every case."""
    return Phrase(bare, a, a, the, the, the, of)


def _portrait(lang: str, name: str) -> Phrase:
    vowel = name[0] in "AEIOU"
    of = {"en": "of ", "de": "von ", "fr": "d'" if vowel else "de ", "es": "de "}[lang] + name
    picture = {"en": "a portrait", "de": "ein Porträt", "fr": "un portrait", "es": "un retrato"}[lang]
    return _caseless(name, f"{picture} {of}", name, of)


def _german(noun: str, gender: str, color: str | None) -> Phrase:
    def with_color(ending: str) -> str:
        if color is None:
            return noun
        return f"{color[1:]} {noun}" if color.startswith("=") else f"{color}{ending} {noun}"

    endings, (a, a_acc), the = _GERMAN_ENDINGS[gender], _GERMAN_A[gender], _GERMAN_THE[gender]
    return Phrase(
        bare=with_color(endings[0]),
        a=f"{a} {with_color(endings[0])}",
        a_acc=f"{a_acc} {with_color(endings[1])}",
        the=f"{the[0]} {with_color(endings[2])}",
        the_acc=f"{the[1]} {with_color(endings[3])}",
        the_dat=f"{the[2]} {with_color(endings[4])}",
        of=f"{the[3]} {with_color(endings[4])}",
    )


def _romance(lang: str, name: str, gender: str) -> Phrase:
    feminine = gender == "f"
    if lang == "es":
        a, the, of = ("una", "la", "de la") if feminine else ("un", "el", "del")
    else:
        a, the, of = ("une", "la", "de la") if feminine else ("un", "le", "du")
    definite, genitive = f"{the} {name}", f"{of} {name}"
    if lang == "fr" and name[0] in "aeiouéê":
        definite, genitive = f"l'{name}", f"de l'{name}"
    return _caseless(name, f"{a} {name}", definite, genitive)
