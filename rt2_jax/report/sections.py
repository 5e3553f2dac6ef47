"""The sections of the report page, each from the report's dictionary; a section with nothing to say is None."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from rt2_jax.evaluate.statistics import wilson_interval
from rt2_jax.report import plots, reference
from rt2_jax.report.page import render
from rt2_jax.report.words import CONTROL_LABELS, interval_words, percent, spaced


@dataclasses.dataclass(frozen=True)
class Card:
    """A headline number: a share with a meter in the colour `tone`, its interval where it has one, and small print."""

    name: str
    rate: float
    interval: Sequence[float] | None
    tone: str
    small: str


def pooled(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """All episodes of `rows` together, as a row; None where there is no episode."""
    episodes, successes = (sum(row[name] for row in rows) for name in ("episodes", "successes"))
    if not episodes:
        return None
    return {
        "episodes": episodes,
        "successes": successes,
        "rate": successes / episodes,
        "interval": wilson_interval(successes, episodes),
    }


def rows_of(report: Mapping[str, Any], control: str | None, group: str | None = None) -> list[Mapping[str, Any]]:
    """The summary's rows of one control, in one group of splits (None: all)."""
    return [row for row in report["summary"] if row["control"] == control and group in (None, row["group"])]


def _series(group: str) -> str:
    """The colour class of a group of splits."""
    return "policy" if group == "seen" else group


def _note(name: str, row: Mapping[str, Any]) -> str:
    return (
        f"{name}: {row['successes']} of {row['episodes']} ({percent(row['rate'])}, 95% interval "
        f"{interval_words(row['interval'])})"
    )


def headline(report: Mapping[str, Any]) -> list[list[Card]]:
    """The numbers one looks for first: of the closed loop, and of what the web taught."""
    cards: list[Card] = []
    for group, name, tone in (
        ("seen", "Seen tasks", "policy"),
        ("unseen", "Unseen", "unseen"),
        ("emergent", "Emergent", "emergent"),
        ("other", "Tasks", "l5"),
    ):
        total = pooled(rows_of(report, None, group))
        if total is not None:
            counts = f"{total['successes']} of {total['episodes']} episodes"
            small = f"{counts}, 95% interval {interval_words(total['interval'])}"
            cards.append(Card(name, total["rate"], total["interval"], tone, small))
    for control, name in (("wrong_instruction", "Wrong instruction"), ("other_image", "Wrong picture")):
        total = pooled(rows_of(report, control))
        if total is not None:
            small = f"control, low is right: {total['successes']} of {total['episodes']} episodes"
            cards.append(Card(name, total["rate"], total["interval"], "control-a", small))
    web_cards: list[Card] = []
    for score in report["web"]:
        metric = score["metrics"][0]
        if metric["unit"] == "fraction" and metric["value"] is not None:
            small = f"{metric['name']}, {score['examples']} held-out questions"
            web_cards.append(Card(score["skill"].capitalize(), metric["value"], metric["interval"], "good", small))
    return [cards, web_cards]


def lead(report: Mapping[str, Any]) -> str:
    """One sentence that says how it went."""
    parts = []
    for group, words in (("seen", "seen tasks"), ("unseen", "unseen conditions"), ("emergent", "emergent ones")):
        total = pooled(rows_of(report, None, group))
        if total is not None:
            parts.append(f"{percent(total['rate'])} of {words}")
    everything = pooled(rows_of(report, None))
    if everything is None:
        return "Held-out frames and questions; no episodes were run."
    parts = parts or [f"{percent(everything['rate'])} of them"]
    wrong = pooled(rows_of(report, "wrong_instruction"))
    listening = (
        f" Told to do something else, it still did the task {percent(wrong['rate'])} of the time." if wrong else ""
    )
    words = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return f"In {everything['episodes']} closed-loop episodes the policy succeeds in {words}.{listening}"


def generalisation(report: Mapping[str, Any]) -> Markup | None:
    """Success per split with whiskers, the controls and the paper's figures beside it."""
    rows: list[plots.Row] = []
    controls: list[str] = []
    has_paper = False
    for group, heading in reference.GROUPS.items():
        splits = {row["split"]: row["label"] for row in rows_of(report, None, group)}
        rows += [plots.Row(heading.upper())] if splits else []
        for split, label in splits.items():
            paper = reference.paper_figures(report, split)
            marks: list[plots.Mark] = []
            episodes = 0
            for row in (row for row in report["summary"] if row["split"] == split):
                control = row["control"]
                name = CONTROL_LABELS.get(control, "policy")
                name += ", planning first" if row["mode"] == "plan" else ""
                series = control or _series(group)
                controls += [control] if control and control not in controls else []
                episodes = max(episodes, row["episodes"])
                marks.append(
                    plots.Mark(series, row["rate"], tuple(row["interval"]), _note(name, row), thin=control is not None)
                )
            signs: tuple[plots.Reference, ...] = ()
            if paper is not None:
                has_paper = True
                signs = tuple(
                    plots.Reference(series, value / 100, f"paper, real robot, {model}: {value}%")
                    for model, series, value in zip(
                        reference.PAPER_MODELS, ("paper-ring", "paper", ""), paper, strict=True
                    )
                    if series
                )
            rows.append(plots.Row(label, f"{episodes} episodes", tuple(marks), signs))
    if not rows:
        return None
    groups = dict.fromkeys(row["group"] for row in rows_of(report, None))
    entries = [(_series(group), f"policy, {group}") for group in reference.GROUPS if group in groups]
    entries += [(control, CONTROL_LABELS[control]) for control in controls]
    if has_paper:
        entries += [
            ("paper dia", f"paper, real robot: {reference.RT2_PALI_X}"),
            ("ring", f"paper, real robot: {reference.RT1}"),
        ]
    plot = plots.rate_plot(rows, "Success rate per split")
    return render("generalisation.html", has_paper=has_paper, signs=entries, plot=plot)


def by_skill(report: Mapping[str, Any]) -> Markup | None:
    """Success per skill, pooled over the splits of each group, and the matrix of every split and skill."""
    results = [row for row in report["closed_loop"] if row["control"] is None]
    if not results:
        return None
    skills = list(dict.fromkeys(row["skill"] for row in results))
    groups = [g for g in reference.GROUPS if any(row["group"] == g for row in results)]
    rows = []
    for skill in skills:
        marks = []
        for group in groups:
            total = pooled([row for row in results if row["skill"] == skill and row["group"] == group])
            if total is not None:
                note = _note(f"{skill}, {group}", total)
                marks.append(plots.Mark(_series(group), total["rate"], total["interval"], note))
        rows.append(plots.Row(spaced(skill), "", tuple(marks)))
    entries = [(_series(group), group) for group in groups]
    plot = plots.rate_plot(rows, "Success rate per skill")
    matrix = [
        (
            label,
            [pooled([row for row in results if (row["split"], row["skill"]) == (split, skill)]) for skill in skills],
        )
        for split, label in {row["split"]: row["label"] for row in results}.items()
    ]
    return render("skills.html", signs=entries, plot=plot, skills=skills, matrix=matrix)


def measures(report: Mapping[str, Any]) -> Markup | None:
    """What the environment measured besides success, a column for each name."""
    rows = [(row, {found["name"]: found for found in row["measures"]}) for row in report["closed_loop"]]
    rows = [(row, found) for row, found in rows if found]
    names = list(dict.fromkeys(name for _, found in rows for name in found))
    return render("measures.html", rows=rows, names=names) if rows else None


def numbers(report: Mapping[str, Any]) -> Markup | None:
    """Every closed-loop number in one table."""
    return render("numbers.html", rows=report["closed_loop"]) if report["closed_loop"] else None
