"""Draws the table top with Pillow: background patterns, and decals (zones, digits, letters, icons, portraits).

Pictures have x to the right and y *up the table*, i.e. row 0 is the table's far edge, so that digits are upright for
the camera. Everything is a pure function of its arguments; backgrounds and decals are cached per process.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rt2_jax.errors import UserError
from rt2_jax.sim.world import catalog
from rt2_jax.sim.world.scene import Decal, Environment

# The table top: a square with this half side (metres) around this centre.
TABLE_HALF = 0.26
TABLE_CENTRE = (0.0, -0.04)
TEXTURE_SIZE = 384
PIXELS_PER_METRE = TEXTURE_SIZE / (2 * TABLE_HALF)

# RGB 0..255. Pattern backgrounds name their base colour.
_BASE: dict[str, tuple[int, int, int]] = {
    "grey": (168, 170, 172),
    "beige": (222, 208, 184),
    "slate": (84, 96, 108),
    "mint": (170, 214, 192),
    "sand": (206, 178, 128),
    "lilac": (196, 182, 216),
    "wood": (176, 128, 84),
    "checker": (200, 200, 200),
    "stripes": (214, 206, 190),
    "dots": (190, 200, 212),
    "marble": (222, 222, 224),
    "grass": (86, 140, 62),
}
_INK = (24, 24, 28)
Colour = tuple[int, ...]
_CARD = (250, 250, 248)
# Decals are drawn this many times larger and reduced: smooth edges.
_OVERSAMPLE = 3


def surround_rgb(name: str) -> tuple[float, float, float]:
    """RGB in [0, 1] of a surround's name; UserError for an unknown one."""
    if name not in catalog.SURROUNDS:
        raise UserError(f"surround {name!r} is unknown; choose one of {', '.join(catalog.SURROUNDS)}")
    return catalog.SURROUNDS[name]


def table_texture(environment: Environment, decals: tuple[Decal, ...]) -> np.ndarray:
    """The table top as uint8[TEXTURE_SIZE, TEXTURE_SIZE, 3], row 0 at the far edge."""
    image = Image.fromarray(background(environment.background))
    for decal in decals:
        sprite = decal_sprite(decal.kind, decal.value, round(decal.size * PIXELS_PER_METRE))
        left = (decal.x - TABLE_CENTRE[0] + TABLE_HALF - decal.size / 2) * PIXELS_PER_METRE
        top = (TABLE_CENTRE[1] + TABLE_HALF - decal.y - decal.size / 2) * PIXELS_PER_METRE
        image.paste(sprite, (round(left), round(top)), sprite)
    return np.asarray(image)


@functools.cache
def background(name: str) -> np.ndarray:
    """A bare table top, uint8[TEXTURE_SIZE, TEXTURE_SIZE, 3]; UserError for an unknown name."""
    if name not in _BASE:
        raise UserError(f"background {name!r} is unknown; choose one of {', '.join(_BASE)}")
    base = np.array(_BASE[name], np.float32)
    rows, columns = np.mgrid[0:TEXTURE_SIZE, 0:TEXTURE_SIZE].astype(np.float32)
    rng = np.random.default_rng(sum(name.encode()))
    shade = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 1), np.float32)
    match name:
        case "wood":
            plank = np.floor(rows / 64)
            grain = _noise(rng, (96, 8)) + 0.5 * _noise(rng, (256, 16))
            tone = rng.uniform(-1, 1, 16)[plank.astype(int)]
            shade[..., 0] = 14 * grain + 12 * tone - 45 * ((rows % 64) < 3)
        case "checker":
            odd = (np.floor(rows / 40) + np.floor(columns / 40)) % 2
            shade[..., 0] = np.where(odd > 0, 36, -84)
        case "stripes":
            on = ((columns + rows) % 56 < 28)[..., None]
            return np.where(on, base, np.array((120, 104, 150))).astype(np.uint8)
        case "dots":
            on = ((rows % 44 - 22) ** 2 + (columns % 44 - 22) ** 2 < 11**2)[..., None]
            return np.where(on, np.array((70, 84, 120)), base).astype(np.uint8)
        case "marble":
            warp = 5.0 * _noise(rng, (6, 6)) + 2.0 * _noise(rng, (20, 20))
            veins = 1 - np.abs(np.sin((rows + 0.6 * columns) / 60 + warp))
            shade[..., 0] = -110 * veins**5 - 8 * _noise(rng, (40, 40))
        case "grass":
            shade[..., 0] = 26 * _noise(rng, (64, 128)) + 14 * _noise(rng, (14, 14))
    return np.clip(base + shade, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, grid: tuple[int, int]) -> np.ndarray:
    """Smooth noise in [-1, 1], float32[TEXTURE_SIZE, TEXTURE_SIZE], from a coarse random grid."""
    coarse = Image.fromarray(rng.uniform(-1, 1, grid).astype(np.float32))
    return np.asarray(coarse.resize((TEXTURE_SIZE, TEXTURE_SIZE), Image.Resampling.BICUBIC))


@functools.lru_cache(maxsize=512)
def decal_sprite(kind: str, value: str, side: int) -> Image.Image:
    """A decal as an RGBA picture of `side` pixels; UserError for an unknown kind or value."""
    canvas = Image.new("RGBA", (side * _OVERSAMPLE, side * _OVERSAMPLE), (0, 0, 0, 0))
    draw = _UnitDraw(canvas)
    match kind:
        case "zone" if value in catalog.COLORS:
            _draw_zone(draw, value)
        case "digit" | "letter" if len(value) == 1:
            draw.card()
            draw.glyph(value)
        case "icon" if value in _ICONS:
            draw.card()
            _ICONS[value](draw)
        case "portrait" if value in _FACES:
            draw.card((206, 222, 236))
            _draw_face(draw, **_FACES[value])
        case _:
            raise UserError(f"decal {kind!r} {value!r} cannot be drawn; see rt2_jax/sim/world/catalog.py for what can")
    return canvas.resize((side, side), Image.Resampling.BOX)


class _UnitDraw:
    """Draws on a square canvas in unit coordinates: (0, 0) is the upper left corner, (1, 1) the lower right one."""

    def __init__(self, canvas: Image.Image):
        self.side = canvas.width
        self.draw = ImageDraw.Draw(canvas)

    def box(self, left: float, top: float, right: float, bottom: float) -> list[float]:
        return [value * (self.side - 1) for value in (left, top, right, bottom)]

    def card(self, fill: tuple[int, int, int] = _CARD) -> None:
        self.draw.rounded_rectangle(self.box(0, 0, 1, 1), 0.12 * self.side, (*fill, 255), (90, 90, 96), self.side // 40)

    def rectangle(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self.draw.rectangle(self.box(left, top, right, bottom), fill)

    def disc(self, x: float, y: float, rx: float, fill: Colour, ry: float | None = None) -> None:
        ry = rx if ry is None else ry
        self.draw.ellipse(self.box(x - rx, y - ry, x + rx, y + ry), fill)

    def ring(self, x: float, y: float, radius: float, fill: Colour, width: float) -> None:
        edge = self.box(x - radius, y - radius, x + radius, y + radius)
        self.draw.ellipse(edge, None, fill, round(width * self.side))

    def polygon(self, points: Sequence[tuple[float, float]], fill: Colour) -> None:
        self.draw.polygon([(x * (self.side - 1), y * (self.side - 1)) for x, y in points], fill)

    def glyph(self, text: str) -> None:
        font = ImageFont.load_default(0.98 * self.side)
        middle = (0.5 * self.side, 0.5 * self.side)
        left, top, right, bottom = self.draw.textbbox(middle, text, font=font, anchor="mm")
        shift = (middle[0] - (left + right) / 2, middle[1] - (top + bottom) / 2)
        place = (middle[0] + shift[0], middle[1] + shift[1])
        self.draw.text(place, text, _INK, font, "mm", stroke_width=self.side // 45, stroke_fill=_INK)


def _draw_zone(draw: _UnitDraw, color: str) -> None:
    rgb = np.array(catalog.COLORS[color]) * 255
    border = tuple(int(v) for v in (rgb * 0.55 if rgb.max() > 60 else rgb + 70))
    draw.rectangle(0, 0, 1, 1, (*border, 255))
    draw.rectangle(0.06, 0.06, 0.94, 0.94, (*(int(v) for v in rgb), 255))


def _star_points(x: float, y: float, outer: float, inner: float, tips: int) -> list[tuple[float, float]]:
    angles = [math.pi * k / tips - math.pi / 2 for k in range(2 * tips)]
    radii = [outer if k % 2 == 0 else inner for k in range(2 * tips)]
    return [(x + r * math.cos(a), y + r * math.sin(a)) for a, r in zip(angles, radii, strict=True)]


def _heart(draw: _UnitDraw) -> None:
    red = (206, 24, 40)
    draw.disc(0.33, 0.37, 0.19, red)
    draw.disc(0.67, 0.37, 0.19, red)
    draw.polygon([(0.165, 0.46), (0.835, 0.46), (0.5, 0.88)], red)
    draw.polygon([(0.33, 0.37), (0.67, 0.37), (0.5, 0.7)], red)


def _moon(draw: _UnitDraw) -> None:
    draw.disc(0.48, 0.5, 0.36, (52, 52, 120))
    draw.disc(0.64, 0.42, 0.30, _CARD)


def _tree(draw: _UnitDraw) -> None:
    draw.rectangle(0.43, 0.7, 0.57, 0.9, (104, 66, 34))
    for top, half in ((0.08, 0.22), (0.26, 0.29), (0.44, 0.36)):
        draw.polygon([(0.5, top), (0.5 - half, top + 0.3), (0.5 + half, top + 0.3)], (24, 112, 44))


def _house(draw: _UnitDraw) -> None:
    draw.rectangle(0.22, 0.46, 0.78, 0.88, (196, 150, 96))
    draw.polygon([(0.1, 0.48), (0.9, 0.48), (0.5, 0.1)], (142, 44, 36))
    draw.rectangle(0.42, 0.6, 0.58, 0.88, (70, 44, 30))


def _arrow(draw: _UnitDraw) -> None:
    draw.rectangle(0.1, 0.4, 0.58, 0.6, _INK)
    draw.polygon([(0.54, 0.18), (0.92, 0.5), (0.54, 0.82)], _INK)


def _sun(draw: _UnitDraw) -> None:
    draw.polygon(_star_points(0.5, 0.5, 0.44, 0.27, 10), (240, 150, 20))
    draw.disc(0.5, 0.5, 0.23, (252, 204, 40))


_ICONS = {
    "heart": _heart,
    "star": lambda draw: draw.polygon(_star_points(0.5, 0.53, 0.44, 0.18, 5), (226, 168, 16)),
    "moon": _moon,
    "tree": _tree,
    "house": _house,
    "arrow": _arrow,
    "sun": _sun,
    "cross": lambda draw: (
        draw.rectangle(0.39, 0.12, 0.61, 0.88, (16, 120, 150)),
        draw.rectangle(0.12, 0.39, 0.88, 0.61, (16, 120, 150)),
    ),
}

# skin, hair, hair style, clothes, glasses, hat (None = bare head).
_FACES: dict[str, dict] = {
    "Ada": dict(skin=(244, 206, 176), hair=(150, 52, 24), style="long", clothes=(40, 130, 70), glasses=False, hat=None),
    "Kofi": dict(skin=(92, 58, 40), hair=(20, 16, 16), style="short", clothes=(232, 190, 30), glasses=False, hat=None),
    "Mei": dict(skin=(250, 220, 186), hair=(18, 18, 24), style="bun", clothes=(200, 40, 60), glasses=True, hat=None),
    "Omar": dict(skin=(184, 130, 90), hair=(44, 28, 20), style="beard", clothes=(40, 70, 170), glasses=False, hat=None),
    "Lena": dict(skin=(252, 222, 204), hair=(236, 206, 96), style="long", clothes=(110, 50, 140), glasses=False,
                 hat=(220, 60, 110)),
    "Raj": dict(skin=(150, 98, 62), hair=(24, 20, 22), style="short", clothes=(236, 236, 236), glasses=True,
                hat=(30, 80, 60)),
}  # fmt: skip


def _draw_face(
    draw: _UnitDraw, skin: Colour, hair: Colour, style: str, clothes: Colour, glasses: bool, hat: Colour | None
) -> None:
    if style == "long":
        draw.disc(0.5, 0.46, 0.35, hair)
        draw.rectangle(0.15, 0.46, 0.85, 0.8, hair)
    if style == "bun":
        draw.disc(0.5, 0.12, 0.12, hair)
    draw.disc(0.5, 0.98, 0.36, clothes, ry=0.24)
    draw.rectangle(0.42, 0.66, 0.58, 0.8, skin)
    draw.disc(0.5, 0.40, 0.29, hair)
    draw.disc(0.5, 0.48, 0.25, skin, ry=0.27)
    if style == "beard":
        draw.disc(0.5, 0.63, 0.19, hair, ry=0.14)
        draw.disc(0.5, 0.60, 0.09, skin, ry=0.03)
    draw.disc(0.40, 0.46, 0.035, _INK)
    draw.disc(0.60, 0.46, 0.035, _INK)
    draw.rectangle(0.43, 0.605, 0.57, 0.635, (150, 40, 40))
    if glasses:
        draw.ring(0.39, 0.46, 0.10, _INK, 0.03)
        draw.ring(0.61, 0.46, 0.10, _INK, 0.03)
        draw.rectangle(0.48, 0.445, 0.52, 0.475, _INK)
    if hat is not None:
        draw.rectangle(0.12, 0.22, 0.88, 0.30, hat)
        draw.rectangle(0.27, 0.04, 0.73, 0.24, hat)
