"""The sections of the report page, each from the report's dictionary; a section with nothing to say is ''."""

from collections.abc import Mapping, Sequence
from typing import Any

from rt2_jax.evaluate.statistics import wilson_interval
from rt2_jax.report import plots, reference
from rt2_jax.report.page import escape, legend, panel, section, table

CONTROL_LABELS: dict[str, str] = {
    "wrong_instruction": "control: told to do something else",
    "other_image": "control: shown another scene",
}
_NOT_COMPARABLE = (
    "Diamonds and rings are the RT-2 paper's figures for <em>real robots in real kitchens</em>: they are here for "
    "orientation and cannot be compared with a simulated table."
)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}%"


def interval_words(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.0f}–{100 * interval[1]:.0f}%"


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


def _card(name: str, value: str, tone: str, rate: float | None, interval: Sequence[float] | None, small: str) -> str:
    meter = ""
    if rate is not None:
        limits = ""
        if interval is not None:
            limits = f'<b style="left:{100 * interval[0]:.1f}%;right:{100 - 100 * interval[1]:.1f}%"></b>'
        meter = f'<div class="meter" style="--tone:var(--{tone})"><i style="width:{100 * rate:.1f}%"></i>{limits}</div>'
    return (
        f'<div class="card"><div class="name">{escape(name)}</div><div class="big">{escape(value)}</div>{meter}'
        f'<div class="small">{escape(small)}</div></div>'
    )


def headline(report: Mapping[str, Any]) -> str:
    """The numbers one looks for first, as cards."""
    cards: list[str] = []
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
            cards.append(_card(name, percent(total["rate"]), tone, total["rate"], total["interval"], small))
    for control, name in (("wrong_instruction", "Wrong instruction"), ("other_image", "Wrong picture")):
        total = pooled(rows_of(report, control))
        if total is not None:
            small = f"control, low is right: {total['successes']} of {total['episodes']} episodes"
            cards.append(_card(name, percent(total["rate"]), "control-a", total["rate"], total["interval"], small))
    web_cards: list[str] = []
    for score in report["web"]:
        metric = score["metrics"][0]
        if metric["unit"] == "fraction" and metric["value"] is not None:
            small = f"{metric['name']}, {score['examples']} held-out questions"
            name = score["skill"].capitalize()
            web_cards.append(_card(name, percent(metric["value"]), "good", metric["value"], metric["interval"], small))
    return "".join(f'<div class="cards">{"".join(group)}</div>' for group in (cards, web_cards) if group)


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


def generalisation(report: Mapping[str, Any]) -> str:
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
        return ""
    groups = dict.fromkeys(row["group"] for row in rows_of(report, None))
    entries = [(_series(group), f"policy, {group}") for group in reference.GROUPS if group in groups]
    entries += [(control, CONTROL_LABELS[control]) for control in controls]
    if has_paper:
        entries += [
            ("paper dia", f"paper, real robot: {reference.RT2_PALI_X}"),
            ("ring", f"paper, real robot: {reference.RT1}"),
        ]
    about = "Whiskers are 95% Wilson intervals; success is judged where the episode ends. " + (
        _NOT_COMPARABLE if has_paper else ""
    )
    plot = plots.rate_plot(rows, "Success rate per split")
    return section("How far it generalises", about, panel(legend(entries), plot), anchor="generalisation")


def by_skill(report: Mapping[str, Any]) -> str:
    """Success per skill, pooled over the splits of each group, and the matrix of every split and skill."""
    results = [row for row in report["closed_loop"] if row["control"] is None]
    if not results:
        return ""
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
        rows.append(plots.Row(skill.replace("_", " "), "", tuple(marks)))
    entries = [(_series(group), group) for group in groups]
    plot = plots.rate_plot(rows, "Success rate per skill")
    about = "Bars pool the splits of a group; the table below them has every split."
    return section(
        "Skill by skill", about, panel(legend(entries), plot), panel(_matrix(results, skills)), anchor="skills"
    )


def _matrix(results: Sequence[Mapping[str, Any]], skills: Sequence[str]) -> str:
    head = "<tr><th></th>" + "".join(f"<th>{escape(skill.replace('_', ' '))}</th>" for skill in skills) + "</tr>"
    body = []
    for split, label in {row["split"]: row["label"] for row in results}.items():
        cells = []
        for skill in skills:
            found = pooled([row for row in results if row["split"] == split and row["skill"] == skill])
            if found is None:
                cells.append("<td></td>")
                continue
            small = f"{found['successes']}/{found['episodes']} · {interval_words(found['interval'])}"
            cells.append(
                f'<td><span class="cell" style="--v:{found["rate"]:.2f}">{percent(found["rate"])}'
                f"<small>{small}</small></span></td>"
            )
        body.append(f'<tr><th class="row">{escape(label)}</th>{"".join(cells)}</tr>')
    return f'<table class="matrix">{head}{"".join(body)}</table>'


def measures(report: Mapping[str, Any]) -> str:
    """What the environment measured besides success, a column for each name."""
    rows = [row for row in report["closed_loop"] if row["measures"]]
    if not rows:
        return ""
    found = list(dict.fromkeys(measure["name"] for row in rows for measure in row["measures"]))
    body = []
    for row in rows:
        cells = {measure["name"]: measure_words(measure) for measure in row["measures"]}
        run = CONTROL_LABELS.get(row["control"], "policy").removeprefix("control: ")
        words = (row["label"], row["skill"].replace("_", " "), run, *(cells.get(name, "–") for name in found))
        body.append(tuple(map(escape, words)))
    head = ("Split", "Skill", "What was run", *map(escape, found))
    about = "Means over episodes of what the environment measured at their ends, with Student's 95% intervals."
    numeric = frozenset(range(3, len(head)))
    return section("What else was measured", about, panel(table(head, body, numeric)), anchor="measures")


def measure_words(measure: Mapping[str, Any]) -> str:
    """A mean, and the ends of its interval where it has one."""
    ends = measure["interval"]
    return f"{measure['mean']:.4g}" + (f" ({ends[0]:.4g} to {ends[1]:.4g})" if ends else "")


def numbers(report: Mapping[str, Any]) -> str:
    """Every closed-loop number in one table."""
    rows = [
        (
            escape(row["label"]),
            escape(row["skill"].replace("_", " ")),
            escape(CONTROL_LABELS.get(row["control"], "policy").removeprefix("control: ")),
            f"{row['successes']} / {row['episodes']}",
            f"<b>{percent(row['rate'])}</b>",
            interval_words(row["interval"]),
            str(row["terminated"]),
            "–" if row["mean_steps"] is None else f"{row['mean_steps']:.1f}",
        )
        for row in report["closed_loop"]
    ]
    if not rows:
        return ""
    head = ("Split", "Skill", "What was run", "Successes", "Rate", "95% interval", "Ended early", "Mean steps")
    body = panel(table(head, rows, frozenset({3, 4, 5, 6, 7})))
    listing = f"<details><summary>Show all {len(rows)} rows</summary>{body}</details>"
    return section("Every count", "", listing, anchor="numbers")
