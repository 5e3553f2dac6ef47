"""The little SVG that the plots need, as strings. Colours come from the page's style by class, so both themes work."""

import html
import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup


def _format(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return html.escape(str(value), quote=True)


def element(tag: str, *children: str, **attributes: object) -> str:
    """``<tag a="...">children</tag>``; attribute values are escaped, children are markup already.

    ``class_`` means class, other underscores become hyphens, attributes that are None are left out.
    """
    names = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    opening = tag + "".join(f' {name}="{_format(value)}"' for name, value in names)
    inside = "".join(children)
    return f"<{opening}>{inside}</{tag}>" if inside or tag in ("div", "span", "td", "th") else f"<{opening}/>"


def text(x: float, y: float, content: str, **attributes: object) -> str:
    """A line of text whose baseline starts at (x, y)."""
    return element("text", html.escape(content), x=x, y=y, **attributes)


def tooltip(content: str) -> str:
    """What a browser shows while the pointer rests on the parent element."""
    return element("title", html.escape(content))


def drawing(width: float, height: float, label: str, children: Iterable[str]) -> Markup:
    """A drawing that scales with the page; `label` is what a screen reader says."""
    markup = element(
        "svg",
        *children,
        viewBox=f"0 0 {_format(float(width))} {_format(float(height))}",
        role="img",
        aria_label=label,
        xmlns=None,
        class_="plot",
        style=f"max-width:{_format(float(width))}px",
    )
    return Markup(markup)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """The ``d`` of a path through `points`."""
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
