"""The report's numbers as tables on a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from rt2_jax.report.comparison import Comparison
from rt2_jax.report.words import CONTROL_LABELS, interval_words, measure_words, percent

_BAR_CELLS = 20


def _bar(rate: float | None) -> str:
    """Twenty cells, filled by eighths."""
    if rate is None:
        return ""
    eighths = round(rate * _BAR_CELLS * 8)
    partial = " ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else ""
    return "█" * (eighths // 8) + partial


def _table(title: str, *columns: str, left: int = 1) -> Table:
    """A table whose first `left` columns are words and whose others are numbers."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", no_wrap=index == 0)
    return table


def _closed_loop(report: Mapping[str, Any]) -> RenderableType:
    table = _table("Closed loop", "split", "", "rate", "95%", "episodes", left=2)
    order = list(dict.fromkeys(row["split"] for row in report["summary"]))
    for row in sorted(report["summary"], key=lambda row: order.index(row["split"])):
        name = row["label"]
        if row["control"]:
            name = f"  {CONTROL_LABELS[row['control']]}"
        style = "dim" if row["control"] else ""
        successes = f"{row['successes']}/{row['episodes']}"
        table.add_row(
            name, _bar(row["rate"]), percent(row["rate"]), interval_words(row["interval"]), successes, style=style
        )
    return table


def _web(report: Mapping[str, Any]) -> RenderableType:
    forgetting = report["forgetting"]
    old = {
        (score["task"], metric["name"]): metric["value"]
        for score in (forgetting["web"] if forgetting else ())
        for metric in score["metrics"]
    }
    columns = ["skill", "measure", "value", "questions"] + (["reference"] if forgetting else [])
    table = _table("Web skills, held out", *columns, left=2)
    for score in report["web"]:
        for place, metric in enumerate(score["metrics"]):
            cells = [score["skill"] if place == 0 else "", metric["name"], _value(metric["value"], metric["unit"])]
            cells.append(str(score["examples"]) if place == 0 else "")
            if forgetting:
                cells.append(_value(old.get((score["task"], metric["name"])), metric["unit"]))
            table.add_row(*cells)
    return table


def _value(value: float | None, unit: str) -> str:
    if unit == "fraction" or value is None:
        return percent(value)
    return f"{value:.1f}"


def _actions(report: Mapping[str, Any]) -> RenderableType:
    columns = ("dimension", "tokens right", "mean error", "median", "90%", "unit", "found", "due")
    table = _table("Actions, held out", *columns)
    for scores in report["actions"]:
        for row in scores["dimensions"]:
            errors = [row[name] for name in ("mean_error", "median_error", "p90_error")]
            cells = ["" if error is None else f"{error:.2f}" for error in errors]
            is_flag = row["kind"] != "continuous"
            flags = [percent(row[name]) if is_flag else "" for name in ("recall", "precision")]
            table.add_row(row["name"], percent(row["token_accuracy"]), *cells, row["unit"], *flags)
    return table


def _measures(report: Mapping[str, Any]) -> RenderableType:
    table = _table("Measured by the environment", "split", "skill", "", "measure", "mean (95%)", left=4)
    for row in report["closed_loop"]:
        for measure in row["measures"]:
            run = CONTROL_LABELS.get(row["control"], "")
            table.add_row(row["label"], row["skill"], run, measure["name"], measure_words(measure))
    return table


def summary_tables(report: Mapping[str, Any]) -> RenderableType:
    """The report for `rich.console.Console.print`; sections without numbers are left out."""
    parts: list[RenderableType] = []
    measured = any(row["measures"] for row in report["closed_loop"])
    for found, part in (
        (report["summary"], _closed_loop),
        (measured, _measures),
        (report["web"], _web),
        (report["actions"], _actions),
    ):
        if found:
            parts += [part(report), ""]
    return Group(*parts)


def comparison_table(comparison: Comparison) -> RenderableType:
    """Several runs side by side for `rich.console.Console.print`."""
    table = _table("Side by side", "", *comparison.names)
    for line in comparison.lines:
        table.add_row(line.label, *(percent(cell.value) for cell in line.cells))
    return table


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Prints the tables."""
    console.print(summary_tables(report))
