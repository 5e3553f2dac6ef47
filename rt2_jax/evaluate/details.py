"""The page's later sections: films, held-out actions, web skills, forgetting, training, where it all came from."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rt2_jax.actions.space import ARM_UNITS
from rt2_jax.evaluate import films as film_strips
from rt2_jax.evaluate import plots, reference
from rt2_jax.evaluate.page import escape, legend, panel, section, table
from rt2_jax.evaluate.results import Film
from rt2_jax.evaluate.sections import CONTROL_LABELS, interval_words, percent

_TOKEN_LABELS = ("stop", "x", "y", "z", "roll", "pitch", "yaw", "grip")
_TOKEN_NAMES = ("terminate", "Δx", "Δy", "Δz", "roll", "pitch", "yaw", "gripper")
_MAX_CURVES = 6
_MAX_CURVE_POINTS = 400


def _film(film: Film) -> str:
    kept = film_strips.kept_frames(len(film.frames))
    frames = film.frames[kept]
    outcome, facts = film.outcome, reference.split_facts(film.split)
    steps = [int(step) for step in film.steps[kept]]
    data = {
        "steps": steps,
        "bins": film.bins[kept].tolist(),
        "actions": [[round(float(value), 5) for value in action] for action in film.actions[kept]],
        "names": _TOKEN_NAMES,
        "kinds": ARM_UNITS,
    }
    height, width = frames.shape[1:3]
    strip = film_strips.data_url(film_strips.encode_strip(frames))
    words = "success" if outcome.success else "failure"
    told = (
        f'<div class="told">told instead: “{escape(outcome.told)}”</div>' if outcome.told != outcome.instruction else ""
    )
    control = f" · {escape(CONTROL_LABELS[film.control])}" if film.control else ""
    ending = f"stopped itself after {outcome.steps}" if outcome.terminated else f"time was up after {outcome.steps}"
    chips = "".join(
        f'<span title="{name}"><b>{value}</b><small>{label}</small></span>'
        for name, label, value in zip(_TOKEN_NAMES, _TOKEN_LABELS, data["bins"][0], strict=True)
    )
    plan = film.texts[0].split("Action:")[0].strip() if "Action:" in film.texts[0] else ""
    plan = f'<div class="where">{escape(plan)}</div>' if plan else ""
    # "<" is escaped so that no text can end the script element.
    payload = json.dumps(data, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")
    return (
        f'<figure class="film" data-outcome="{words}" data-split="{escape(film.split)}" data-control="{film.control or "none"}" '
        f'style="--n:{len(frames)};--w:{width};--h:{height}">'
        f'<div class="screen" title="Click to stop and go on"><img class="strip" alt="{escape(outcome.instruction)}: {words}" '
        f'src="{strip}"><span class="badge {"ok" if outcome.success else "no"}">{words}</span>'
        f'<span class="badge step">{len(frames)} frames</span></div>'
        f'<input type="range" min="0" max="{len(frames) - 1}" value="0" aria-label="Frame">'
        f'<figcaption><div class="said">{escape(outcome.instruction)}</div>{told}{plan}'
        f'<div class="where">{escape(facts.label)} · {escape(film.skill.replace("_", " "))}{control} · seed {outcome.seed} · {ending}'
        f'</div><div class="tokens">{chips}</div><div class="physical"></div></figcaption>'
        f'<script type="application/json">{payload}</script></figure>'
    )


def episodes(films: Sequence[Film]) -> str:
    """Films that play by themselves; a slider stops them at any frame with what was decoded there."""
    if not films:
        return ""
    splits = dict.fromkeys(film.split for film in films)
    options = "".join(f'<option value="{escape(s)}">{escape(reference.split_facts(s).label)}</option>' for s in splits)
    controls = dict.fromkeys(film.control for film in films if film.control)
    control_options = "".join(
        f'<option value="{control}">{escape(CONTROL_LABELS[control])}</option>' for control in controls
    )
    control_select = (
        '<select name="control" aria-label="Policy or control"><option value="">policy and controls</option>'
        f'<option value="none">policy only</option>{control_options}</select>'
        if controls
        else ""
    )
    filters = (
        '<div class="filters"><button type="button" data-outcome="" aria-pressed="true">All</button>'
        '<button type="button" data-outcome="success" aria-pressed="false">Successes</button>'
        '<button type="button" data-outcome="failure" aria-pressed="false">Failures</button><span class="gap"></span>'
        f'<select name="split" aria-label="Split"><option value="">every split</option>{options}</select>{control_select}</div>'
    )
    about = (
        "What the policy saw, with the eight tokens that it decoded at each step and what they mean. Drag the slider to "
        "stop a film; click it to let it go on. Failures are shown as readily as successes."
    )
    grid = f'<div class="films">{"".join(_film(film) for film in films)}</div>'
    return section("Watch it", about, filters, grid, anchor="films")


def actions(report: Mapping[str, Any]) -> str:
    """Held-out frames: how far greedy actions are from the demonstrations'."""
    found = report["actions"]
    if found is None:
        return ""
    units = {"cm": " cm", "deg": "°", "1": ""}
    rows = [
        (
            escape(dimension["name"]),
            f'<span class="bar" style="width:{120 * dimension["token_accuracy"]:.0f}px"></span> '
            f"{percent(dimension['token_accuracy'])}",
            *(
                f"{dimension[name]:.2f}{units.get(dimension['unit'], ' ' + dimension['unit'])}"
                for name in ("mean_error", "median_error", "p90_error")
            ),
        )
        for dimension in found["dimensions"]
    ]
    extra = [
        ("all eight tokens right", percent(found["exact_match"])),
        ("tokens right", percent(found["token_accuracy"])),
        ("stop or go on right", percent(found["terminate_accuracy"])),
        ("stops found", percent(found["terminate_recall"])),
        ("stops that were due", percent(found["terminate_precision"])),
        ("gripper's sign right", percent(found["gripper_accuracy"])),
    ]
    facts = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in extra)
    about = (
        f"{found['examples']} held-out frames of <code>{escape(found['task'])}</code>, decoded greedily under the grammar. "
        "A wrong token may be the neighbouring bin: the errors say how far it is."
    )
    body = table(("Dimension", "Token right", "Mean error", "Median", "90%"), rows, frozenset({2, 3, 4}))
    return section(
        "Actions on held-out frames", about, panel(body), panel(f'<dl class="facts">{facts}</dl>'), anchor="actions"
    )


def _metric_words(metric: Mapping[str, Any] | None) -> str:
    if metric is None or metric["value"] is None:
        return "–"
    if metric["unit"] != "fraction":
        return f"{metric['value']:.1f} <small>{escape(metric['unit'])}</small>"
    whiskers = f" <small>{interval_words(metric['interval'])}</small>" if metric["interval"] else ""
    return f"<b>{percent(metric['value'])}</b>{whiskers}"


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
        about += f" The reference is <code>{escape(forgetting['checkpoint']['path'])}</code>: what it knew and this one does not was forgotten."
        signs = legend([("s0", "this checkpoint")]) + plots.change_plot(changes, "Web skills before and after")
        body.insert(0, panel(signs))
    samples = [
        (
            escape(sample["prompt"]),
            escape(sample["target"]),
            f'<span class="{"right" if sample["answer"].strip() == sample["target"].strip() else "wrong"}">{escape(sample["answer"]) or "(nothing)"}</span>',
        )
        for score in report["web"]
        for sample in score["samples"]
    ]
    if samples:
        listing = panel(table(("Prompt", "Held-out answer", "The model's answer"), samples))
        body.append(f"<details><summary>Read {len(samples)} questions and answers</summary>{listing}</details>")
    return section("What the web taught", about, *body, anchor="web")


def read_curves(lines: Sequence[str]) -> list[plots.Curve]:
    """Curves of a metrics.jsonl: one JSON object a line with ``step`` and numbers, most telling ones first.

    Losses come first, a run's overall one before those of its tasks; at most `_MAX_CURVES` are kept and each is thinned to
    `_MAX_CURVE_POINTS`. Lines that are not such objects (a run killed while writing) are passed over.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        step = values.get("step") if isinstance(values, dict) else None
        if isinstance(step, bool) or not isinstance(step, int | float):
            continue
        for name, value in values.items():
            if "loss" in name and isinstance(value, int | float) and math.isfinite(value):
                points.setdefault(name, []).append((float(step), float(value)))
    named = sorted(
        (name for name in points if len(points[name]) > 1), key=lambda name: (name.count("/"), len(name), name)
    )
    curves = []
    for name in named[:_MAX_CURVES]:
        line = sorted(points[name])
        thin = line[:: math.ceil(len(line) / _MAX_CURVE_POINTS)]
        curves.append(plots.Curve(name, tuple(thin if thin[-1] == line[-1] else [*thin, line[-1]])))
    return curves


def training(curves: Sequence[plots.Curve]) -> str:
    """The training run's losses."""
    if not curves:
        return ""
    plot = plots.curve_plot(curves, "Training curves", "loss")
    return section("How it was trained", "Cross-entropy a token, natural logarithm.", panel(plot), anchor="training")


def provenance(report: Mapping[str, Any]) -> str:
    """Everything one needs to make the report again."""
    checkpoint, machine, timing = report["checkpoint"], report["machine"], report["timing"]
    devices = ", ".join(machine["devices"])
    facts = [
        ("Command", f"<code>{escape(report['command'])}</code>"),
        ("Checkpoint", f"<code>{escape(checkpoint['path'])}</code>"),
        ("Bundle SHA-256", f"<code>{escape(checkpoint['sha256'])}</code>"),
        ("Model", f"{escape(checkpoint['model'])}, {checkpoint['parameters']:,} parameters"),
        ("Data", f"<code>{escape(report['data']['path'] or 'none')}</code>, split {escape(report['data']['split'])}"),
        (
            "Machine",
            f"{escape(machine['system'])}, {machine['cores']} cores; JAX on {escape(machine['backend'])}: {escape(devices)}",
        ),
        ("Versions", escape(", ".join(f"{name} {version}" for name, version in report["versions"].items()))),
        ("Wall time", f"{report['wall_seconds']:.0f} s"),
    ]
    if timing["control_steps"]:
        facts.append(
            (
                "Closed loop",
                f"{timing['control_steps']:,} control steps in {timing['total_seconds']:.0f} s: policy {timing['policy_seconds']:.0f} s in "
                f"{timing['policy_calls']:,} calls, simulation {timing['simulation_seconds']:.0f} s",
            )
        )
    listing = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return section("Where this comes from", "", panel(f'<dl class="facts">{listing}</dl>'), anchor="provenance")
