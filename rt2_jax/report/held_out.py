"""The page's sections on held-out data: actions, web skills and what was forgotten of them."""

from collections.abc import Mapping
from typing import Any

from rt2_jax.evaluate.text_scores import exact_match
from rt2_jax.report import plots
from rt2_jax.report.page import escape, legend, panel, section, table
from rt2_jax.report.sections import interval_words, percent

_UNITS = {"cm": " cm", "deg": "°"}


def _error(dimension: Mapping[str, Any], name: str) -> str:
    if dimension[name] is None:
        return ""
    unit = dimension["unit"]
    return f"{dimension[name]:.2f}{escape(_UNITS.get(unit, f' {unit}' if unit else ''))}"


def actions(report: Mapping[str, Any]) -> str:
    """Held-out frames: how far greedy actions are from the demonstrations', one part for each task."""
    if not report["actions"]:
        return ""
    about = (
        "Decoded greedily under the grammar. A wrong token may be the neighbouring bin: the errors say how far it is."
    )
    body = [part for scores in report["actions"] for part in _task_actions(scores)]
    return section("Actions on held-out frames", about, *body, anchor="actions")


def _task_actions(scores: Mapping[str, Any]) -> tuple[str, ...]:
    rows = [
        (
            escape(dimension["name"]),
            f'<span class="bar" style="width:{120 * dimension["token_accuracy"]:.0f}px"></span> '
            f"{percent(dimension['token_accuracy'])}",
            *(_error(dimension, name) for name in ("mean_error", "median_error", "p90_error")),
            "" if dimension["sign_accuracy"] is None else percent(dimension["sign_accuracy"]),
        )
        for dimension in scores["dimensions"]
    ]
    tiles = [
        (f"all {len(scores['dimensions'])} tokens right", scores["exact_match"]),
        ("tokens right", scores["token_accuracy"]),
    ]
    for dimension in scores["dimensions"]:
        if dimension["kind"] != "continuous":
            tiles.append((f"{dimension['name']}: found where it was due", dimension["recall"]))
            tiles.append((f"{dimension['name']}: due where it was given", dimension["precision"]))
    counts = f'<p class="about">{scores["examples"]} frames of <code>{escape(scores["task"])}</code></p>'
    head = ("Dimension", "Token right", "Mean error", "Median", "90%", "Sign right")
    shown = "".join(f"<div><b>{percent(value)}</b><span>{escape(name)}</span></div>" for name, value in tiles)
    return (
        counts,
        panel(table(head, rows, frozenset({2, 3, 4, 5}))),
        panel(f'<div class="tiles">{shown}</div>'),
    )


def _metric_words(metric: Mapping[str, Any] | None) -> str:
    if metric is None or metric["value"] is None:
        return "–"
    if metric["unit"] != "fraction":
        return f"{metric['value']:.1f} <small>{escape(metric['unit'])}</small>"
    whiskers = f" <small>{interval_words(metric['interval'])}</small>" if metric["interval"] else ""
    return f"<b>{percent(metric['value'])}</b>{whiskers}"


def _answer(answer: str, target: str) -> str:
    kind = "right" if exact_match(answer, target) else "wrong"
    return f'<span class="{kind}">{escape(answer) or "(nothing)"}</span>'


def web(report: Mapping[str, Any]) -> str:
    """Web skills, with the reference checkpoint's beside them where there is one: what was forgotten."""
    if not report["web"]:
        return ""
    forgetting = report["forgetting"]
    old = {
        (score["task"], metric["name"]): metric
        for score in (forgetting["web"] if forgetting else ())
        for metric in score["metrics"]
    }
    rows, changes = [], []
    for score in report["web"]:
        for place, metric in enumerate(score["metrics"]):
            before = old.get((score["task"], metric["name"]))
            row = [
                f"<b>{escape(score['skill'])}</b>" if place == 0 else "",
                escape(metric["name"]),
                str(score["examples"]) if place == 0 else "",
                _metric_words(metric),
            ]
            rows.append((*row, _metric_words(before)) if forgetting else tuple(row))
            if place == 0 and metric["unit"] == "fraction":
                value = before["value"] if before else None
                changes.append(plots.Change(score["skill"], metric["name"], value, metric["value"]))
    head = ["Skill", "Measure", "Questions", "This checkpoint"] + (["Reference"] if forgetting else [])
    body = [panel(table(head, rows, frozenset({2})))]
    about = "Greedy answers to held-out questions about images that training never saw."
    if forgetting:
        path = escape(forgetting["checkpoint"]["path"])
        about += f" The reference is <code>{path}</code>: what it knew and this one does not was forgotten."
        signs = legend([("policy round", "this checkpoint"), ("ring", "reference")])
        body.insert(0, panel(signs, plots.change_plot(changes, "Web skills before and after")))
    samples = [
        (
            escape(sample["prompt"]),
            escape(sample["target"]),
            _answer(sample["answer"], sample["target"]),
        )
        for score in report["web"]
        for sample in score["samples"]
    ]
    if samples:
        listing = panel(table(("Prompt", "Held-out answer", "The model's answer"), samples))
        body.append(f"<details><summary>Read {len(samples)} questions and answers</summary>{listing}</details>")
    return section("What the web taught", about, *body, anchor="web")
