"""The report's three kinds of plot: rates with whiskers, before and after, and curves. Data in, SVG out."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

from markupsafe import Markup

from rt2_jax.report import svg

# Colours for series in the page's style: classes s0, line-0, name-0 and so on.
COLOURS = 8
_LABEL_WIDTH = 168.0
_VALUE_WIDTH = 60.0
_CHANGE_WIDTH = 112.0
_WIDTH = 940.0
_BAR, _THIN_BAR, _BAR_GAP, _ROW_GAP = 14.0, 8.0, 3.0, 13.0


@dataclasses.dataclass(frozen=True)
class Mark:
    """One bar: a rate in [0, 1] (None: not measured), its interval and the words of its tooltip.

    `series` names the colour class; a `thin` bar is a control's.
    """

    series: str
    value: float | None
    interval: tuple[float, float] | None
    note: str
    thin: bool = False


@dataclasses.dataclass(frozen=True)
class Reference:
    """A figure from elsewhere, drawn as a small sign: `series` names its colour and shape class."""

    series: str
    value: float
    note: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the rate plot: its bars, one below the other, and the signs on the line under them.

    A row without bars is a heading.
    """

    label: str
    detail: str = ""
    marks: tuple[Mark, ...] = ()
    references: tuple[Reference, ...] = ()

    @property
    def height(self) -> float:
        if not self.marks:
            return 30.0
        bars = sum((_THIN_BAR if mark.thin else _BAR) + _BAR_GAP for mark in self.marks)
        return bars + (11.0 if self.references else 0.0) + _ROW_GAP


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def _whisker(low: float, high: float, y: float, cap: float) -> str:
    path = f"M{low:.1f},{y:.1f}H{high:.1f}M{low:.1f},{y - cap:.1f}v{2 * cap:.1f}M{high:.1f},{y - cap:.1f}v{2 * cap:.1f}"
    return svg.element("path", d=path, class_="whisker")


def _sign(reference: Reference, x: float, y: float) -> str:
    """A ring for a series named so, a diamond otherwise: the two stay apart in print."""
    note = svg.tooltip(reference.note)
    if reference.series.endswith("-ring"):
        return svg.element("circle", note, cx=x, cy=y, r=3.6, class_=f"sign {reference.series}")
    return svg.element(
        "path", note, d=f"M{x - 4.6:.1f},{y:.1f}l4.6,-4.6l4.6,4.6l-4.6,4.6z", class_=f"sign {reference.series}"
    )


def _bars(row: Row, top: float, scale: float) -> list[str]:
    drawn: list[str] = []
    y = top
    for mark in row.marks:
        height = _THIN_BAR if mark.thin else _BAR
        middle = y + height / 2
        end = _LABEL_WIDTH
        if mark.value is None:
            drawn.append(svg.text(_LABEL_WIDTH + 4, middle + 4, "not measured", class_="faint small"))
        else:
            length = max(1.5, mark.value * scale)
            bar = svg.element(
                "rect", x=_LABEL_WIDTH, y=y, width=length, height=height, rx=2.0, class_=f"fill {mark.series}"
            )
            inside = [bar]
            end += length
            if mark.interval is not None:
                low, high = (_LABEL_WIDTH + scale * limit for limit in mark.interval)
                inside.append(_whisker(low, high, middle, 2.0 if mark.thin else 3.5))
                end = max(end, high)
            drawn.append(svg.element("g", svg.tooltip(mark.note), *inside))
            style = "value faint" if mark.thin else "value"
            drawn.append(svg.text(end + 7, middle + 4.2, _percent(mark.value), class_=style))
        y += height + _BAR_GAP
    drawn += [_sign(sign, _LABEL_WIDTH + scale * sign.value, y + 5.0) for sign in row.references]
    return drawn


def _percent_axis(scale: float, top: float, bottom: float) -> list[str]:
    """Lines and labels at every quarter from 0 to 100%."""
    drawn: list[str] = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _LABEL_WIDTH + scale * tick
        kind = "axis" if tick == 0 else "grid"
        drawn.append(svg.element("path", d=f"M{x:.1f},{top:.1f}V{bottom:.1f}", class_=kind))
        drawn.append(svg.text(x, bottom + 18, _percent(tick), class_="tick", text_anchor="middle"))
    return drawn


def rate_plot(rows: Sequence[Row], label: str) -> Markup:
    """Horizontal bars from 0 to 100% with whiskers, a row a group of bars; headings between them."""
    scale = _WIDTH - _LABEL_WIDTH - _VALUE_WIDTH
    top, bottom = 8.0, 26.0
    height = top + sum(row.height for row in rows) + bottom
    drawn = _percent_axis(scale, top, height - bottom)
    y = top
    for row in rows:
        if not row.marks:
            drawn.append(svg.text(0, y + 18, row.label, class_="heading"))
        else:
            anchor = y + (7.0 if row.marks[0].thin else 11.0)
            drawn.append(svg.text(_LABEL_WIDTH - 12, anchor, row.label, class_="label", text_anchor="end"))
            if row.detail:
                drawn.append(
                    svg.text(_LABEL_WIDTH - 12, anchor + 14, row.detail, class_="faint small", text_anchor="end")
                )
            drawn += _bars(row, y, scale)
        y += row.height
    return svg.drawing(_WIDTH, height, label, drawn)


@dataclasses.dataclass(frozen=True)
class Change:
    """A fraction before and after; `after` or `before` may be missing."""

    label: str
    detail: str
    before: float | None
    after: float | None


def change_plot(changes: Sequence[Change], label: str) -> Markup:
    """A line a skill: a ring where the reference stands, a dot where this checkpoint does, a band between them."""
    scale = _WIDTH - _LABEL_WIDTH - _CHANGE_WIDTH
    step, top, bottom = 38.0, 8.0, 26.0
    height = top + step * len(changes) + bottom
    drawn = _percent_axis(scale, top, height - bottom)
    for index, change in enumerate(changes):
        y = top + step * index + step / 2
        drawn.append(svg.text(_LABEL_WIDTH - 12, y, change.label, class_="label", text_anchor="end"))
        drawn.append(svg.text(_LABEL_WIDTH - 12, y + 13, change.detail, class_="faint small", text_anchor="end"))
        before, after = (None if v is None else _LABEL_WIDTH + scale * v for v in (change.before, change.after))
        if before is not None and after is not None:
            kind = "gain" if after >= before else "loss"
            drawn.append(svg.element("path", d=f"M{before:.1f},{y:.1f}H{after:.1f}", class_=f"band {kind}"))
        if before is not None:
            note = svg.tooltip(f"reference: {change.before:.1%}")
            drawn.append(svg.element("circle", note, cx=before, cy=y, r=5.5, class_="before"))
        if after is not None:
            note = svg.tooltip(f"this checkpoint: {change.after:.1%}")
            drawn.append(svg.element("circle", note, cx=after, cy=y, r=5.5, class_="after"))
        words = " → ".join("–" if value is None else _percent(value) for value in (change.before, change.after))
        drawn.append(svg.text(_WIDTH - _CHANGE_WIDTH + 18, y + 4.2, words, class_="value"))
    return svg.drawing(_WIDTH, height, label, drawn)


@dataclasses.dataclass(frozen=True)
class Curve:
    """A named line; `points` are (x, y) with x rising."""

    name: str
    points: tuple[tuple[float, float], ...]


def _count(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places moved as little as needed so that neighbours are `gap` apart; the order is kept."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for previous, index in itertools.pairwise(order):
        moved[index] = max(moved[index], moved[previous] + gap)
    over = max((moved[index] - high for index in order), default=0.0)
    if over > 0:
        for rank, index in enumerate(reversed(order)):
            moved[index] = max(low, min(moved[index], high - rank * gap))
    return moved


def curve_plot(curves: Sequence[Curve], label: str, y_name: str, x_name: str = "step") -> Markup:
    """Lines over a common x, named at their right ends; y starts at 0 where that costs less than half of the height."""
    left, right, top, bottom, height = 52.0, 190.0, 22.0, 36.0, 300.0
    points = [point for curve in curves for point in curve.points if all(map(math.isfinite, point))]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = min(y for _, y in points), max(y for _, y in points)
    low_y = 0.0 if 0 <= low_y < high_y / 2 else low_y
    high_x = high_x if high_x > low_x else low_x + 1
    high_y = high_y if high_y > low_y else low_y + 1

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - low_x) / (high_x - low_x) * (_WIDTH - left - right),
            height - bottom - (y - low_y) / (high_y - low_y) * (height - top - bottom),
        )

    drawn: list[str] = []
    for tick in svg.ticks(low_y, high_y):
        x, y = place(low_x, tick)
        drawn.append(svg.element("path", d=f"M{x:.1f},{y:.1f}H{_WIDTH - right:.1f}", class_="grid"))
        drawn.append(svg.text(x - 8, y + 4, f"{tick:g}", class_="tick", text_anchor="end"))
    for tick in svg.ticks(low_x, high_x, 6):
        x, _ = place(tick, low_y)
        drawn.append(svg.text(x, height - bottom + 17, _count(tick), class_="tick", text_anchor="middle"))
    drawn.append(svg.text((left + _WIDTH - right) / 2, height - 3, x_name, class_="faint small", text_anchor="middle"))
    drawn.append(svg.text(0, 11, y_name, class_="faint small"))
    ends = [place(*curve.points[-1])[1] for curve in curves]
    for index, (curve, name_y) in enumerate(zip(curves, _spread(ends, 14.0, top, height - bottom), strict=True)):
        finite = [place(*point) for point in curve.points if all(map(math.isfinite, point))]
        drawn.append(
            svg.element("path", svg.tooltip(curve.name), d=svg.polyline(finite), class_=f"curve line-{index % COLOURS}")
        )
        words = f"{curve.name} {curve.points[-1][1]:.3g}"
        drawn.append(svg.text(_WIDTH - right + 9, name_y + 4, words, class_=f"small name-{index % COLOURS}"))
    return svg.drawing(_WIDTH, height, label, drawn)
