"""Everything the tabletop world can show, and which part of it the robot data may show.

The wide world (`ALL_*`) is what web images are drawn from. The robot's demonstrations are drawn from the `ROBOT_*`
subsets only; what is left over is what RT-2's generalisation and emergent evaluations ask for (RT-2, sections 4.1
and 4.2: skills carried from web data to the robot). `splits.py` samples from these tables and `contract.py` proves
that recorded robot data stays inside them.
"""

# RGB in [0, 1].
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.10, 0.10),
    "green": (0.10, 0.60, 0.18),
    "blue": (0.12, 0.28, 0.88),
    "yellow": (0.96, 0.84, 0.10),
    "purple": (0.50, 0.14, 0.66),
    "orange": (0.98, 0.50, 0.06),
    "pink": (0.98, 0.52, 0.74),
    "cyan": (0.10, 0.80, 0.86),
    "black": (0.07, 0.07, 0.08),
    "white": (0.96, 0.96, 0.96),
}
SHAPES: tuple[str, ...] = ("cube", "ball", "cylinder", "cone", "star", "bar")
# Half-extent of the object's largest horizontal circle, metres.
SIZES: dict[str, float] = {"small": 0.016, "large": 0.024}

ROBOT_COLORS: tuple[str, ...] = ("red", "green", "blue", "yellow", "purple", "orange")
ROBOT_SHAPES: tuple[str, ...] = ("cube", "ball", "cylinder", "cone")
# Pairs of a robot colour and a robot shape that the robot data never shows: the easy unseen objects.
HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset(
    {
        ("red", "ball"),
        ("green", "cylinder"),
        ("blue", "cone"),
        ("yellow", "cube"),
        ("purple", "cylinder"),
        ("orange", "cube"),
    }
)

DIGITS: tuple[str, ...] = tuple("123456789")
LETTERS: tuple[str, ...] = tuple("ABCDEFGHKLMPRSTXYZ")
ICONS: tuple[str, ...] = ("heart", "star", "moon", "tree", "house", "arrow", "sun", "cross")
# Drawn portraits: fixed features for a fixed first name (see assets.py).
PERSONS: tuple[str, ...] = ("Ada", "Kofi", "Mei", "Omar", "Lena", "Raj")
# Coloured square zones painted on the table, named "<color> zone".
ZONE_COLORS: tuple[str, ...] = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")

# The robot data places things only in zones and on these icons; digits, letters, portraits and the other icons come
# from web data alone.
ROBOT_ZONE_COLORS: tuple[str, ...] = ("red", "green", "blue", "yellow")
ROBOT_ICONS: tuple[str, ...] = ("heart", "moon")

# Table tops. Plain ones are one colour; patterned ones are drawn by assets.py.
BACKGROUNDS_PLAIN: tuple[str, ...] = ("grey", "beige", "slate", "mint", "sand", "lilac")
BACKGROUNDS_PATTERN: tuple[str, ...] = ("wood", "checker", "stripes", "dots", "marble", "grass")
ROBOT_BACKGROUNDS: tuple[str, ...] = ("grey", "beige", "wood")
UNSEEN_BACKGROUNDS_EASY: tuple[str, ...] = ("slate", "mint", "sand", "lilac")
UNSEEN_BACKGROUNDS_HARD: tuple[str, ...] = ("checker", "stripes", "dots", "marble", "grass")

# What surrounds the table, RGB in [0, 1].
SURROUNDS: dict[str, tuple[float, float, float]] = {
    "white": (0.93, 0.93, 0.92),
    "grey": (0.45, 0.45, 0.46),
    "navy": (0.12, 0.16, 0.32),
    "brown": (0.36, 0.22, 0.14),
    "teal": (0.08, 0.40, 0.40),
    "maroon": (0.40, 0.08, 0.14),
    "black": (0.05, 0.05, 0.06),
}

SKILLS: tuple[str, ...] = ("reach", "pick", "move_near", "push", "place")
DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "away": (0.0, 1.0),
    "closer": (0.0, -1.0),
}

# Half-width of the square where objects and decals lie, metres.
WORKSPACE = 0.15
# An episode succeeds within this distance of what the instruction names, metres.
SUCCESS_RADIUS = 0.03
