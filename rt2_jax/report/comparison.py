"""Several reports side by side: the ablation scratch, fine-tune, co-fine-tune (RT-2, section 4.3), or any others."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from rt2_jax.errors import UserError
from rt2_jax.evaluate.statistics import wilson_interval
from rt2_jax.report import plots
from rt2_jax.report.page import render
from rt2_jax.report.sections import pooled, rows_of
from rt2_jax.report.words import percent

MAX_REPORTS = plots.COLOURS
_GROUP_ROWS = {"seen": "Seen tasks", "unseen": "Unseen, pooled", "emergent": "Emergent, pooled"}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run's rate on one line: `value` in [0, 1] or None, its 95% interval, and the number of trials."""

    value: float | None
    interval: tuple[float, float] | None
    trials: int


@dataclasses.dataclass(frozen=True)
class Line:
    """What is compared, and a cell for each run in `Comparison.names`' order. `kind` is "policy", "web" or "action"."""

    kind: str
    label: str
    cells: tuple[Cell, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs by name, and the lines that any of them has."""

    names: tuple[str, ...]
    lines: tuple[Line, ...]


def _rate_cell(total: Mapping[str, Any] | None) -> Cell:
    if total is None:
        return Cell(None, None, 0)
    return Cell(total["rate"], wilson_interval(total["successes"], total["episodes"]), total["episodes"])


def _web_cell(report: Mapping[str, Any], task: str) -> Cell:
    for score in report["web"]:
        if score["task"] == task and score["metrics"][0]["unit"] == "fraction":
            metric = score["metrics"][0]
            return Cell(metric["value"], tuple(metric["interval"]) if metric["interval"] else None, score["examples"])
    return Cell(None, None, 0)


def _action_cell(report: Mapping[str, Any]) -> Cell:
    examples = sum(scores["examples"] for scores in report["actions"])
    if not examples:
        return Cell(None, None, 0)
    right = sum(scores["token_accuracy"] * scores["examples"] for scores in report["actions"])
    return Cell(right / examples, None, examples)


def compare(reports: Mapping[str, Mapping[str, Any]]) -> Comparison:
    """Lines up reports (the dictionaries of report.json) under the names given.

    Lines are the groups of splits pooled, each split, each web task's headline metric and the action tokens' accuracy;
    a run without a line's numbers has an empty cell there.

    Raises:
      UserError: fewer than two reports, or more than the plot has colours for.
    """
    if not 2 <= len(reports) <= MAX_REPORTS:
        raise UserError(
            f"comparing takes 2 to {MAX_REPORTS} reports, not {len(reports)}; give so many report.json files"
        )
    lines: list[Line] = []
    for group, label in _GROUP_ROWS.items():
        cells = tuple(_rate_cell(pooled(rows_of(report, None, group))) for report in reports.values())
        lines.append(Line("policy", label, cells))
    splits = {row["split"]: row for report in reports.values() for row in rows_of(report, None)}
    for split, facts in splits.items():
        if facts["group"] == "seen":
            continue
        cells = tuple(
            _rate_cell(pooled([row for row in rows_of(report, None) if row["split"] == split]))
            for report in reports.values()
        )
        lines.append(Line("policy", facts["label"], cells))
    tasks = {score["task"]: score for report in reports.values() for score in report["web"]}
    for task, score in tasks.items():
        label = f"{score['skill']}: {score['metrics'][0]['name']}"
        lines.append(Line("web", label, tuple(_web_cell(report, task) for report in reports.values())))
    lines.append(Line("action", "action tokens right", tuple(_action_cell(report) for report in reports.values())))
    kept = tuple(line for line in lines if any(cell.value is not None for cell in line.cells))
    return Comparison(tuple(reports), kept)


def comparison_section(comparison: Comparison) -> Markup:
    """The comparison as a section of the page: a plot of the closed loop and the web skills, and a table."""
    rows = []
    for kind, heading in (("policy", "CLOSED LOOP"), ("web", "WEB SKILLS"), ("action", "HELD-OUT ACTIONS")):
        lines = [line for line in comparison.lines if line.kind == kind]
        rows += [plots.Row(heading)] if lines else []
        for line in lines:
            label, _, detail = line.label.partition(": ")
            marks = tuple(
                plots.Mark(f"s{index}", cell.value, cell.interval, f"{name}: {percent(cell.value)}, n = {cell.trials}")
                for index, (name, cell) in enumerate(zip(comparison.names, line.cells, strict=True))
            )
            rows.append(plots.Row(label, detail, marks))
    plot = plots.rate_plot(rows, "Runs side by side")
    return render(
        "comparison.html",
        names=list(comparison.names),
        lines=comparison.lines,
        signs=[(f"s{index}", name) for index, name in enumerate(comparison.names)],
        plot=plot,
    )
