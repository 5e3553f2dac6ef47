"""Episode films on the page: what the policy saw, said and did, step by step."""

import json
from collections.abc import Sequence

import numpy as np

from rt2_jax.actions.space import TERMINATE
from rt2_jax.evaluate.results import Film
from rt2_jax.inputs.prompts import ACTION_MARKER
from rt2_jax.report import films as film_strips
from rt2_jax.report.page import escape, section
from rt2_jax.report.sections import CONTROL_LABELS


def _film(film: Film) -> str:
    kept = film_strips.kept_frames(len(film.frames))
    frames, outcome = film.frames[kept], film.outcome
    height, width = frames.shape[1:3]
    words, badge = ("success", "ok") if outcome.success else ("failure", "no")
    source = film_strips.data_url(film_strips.encode_strip(frames))
    name = escape(outcome.instruction)
    return (
        f'<figure class="film" data-outcome="{words}" data-split="{escape(film.split)}" '
        f'data-control="{film.control or "none"}" style="--n:{len(frames)};--w:{width};--h:{height}">'
        f'<div class="screen" title="Click to stop or go on"><img class="strip" alt="{name}: {words}" src="{source}">'
        f'<span class="badge {badge}">{words}</span><span class="badge step">{len(frames)} frames</span></div>'
        f'<input type="range" min="0" max="{len(frames) - 1}" value="0" aria-label="Frame">'
        f'<figcaption><div class="said">{name}</div>{_film_words(film)}<div class="tokens">{_chips(film)}</div>'
        f'<div class="physical"></div></figcaption>'
        f'<script type="application/json">{_film_data(film, kept)}</script></figure>'
    )


def _film_words(film: Film) -> str:
    """What else was said and where: the control's instruction, the plan, the split, how it ended."""
    outcome = film.outcome
    lines = []
    if outcome.told != outcome.instruction:
        lines.append(f'<div class="told">told instead: “{escape(outcome.told)}”</div>')
    plan, marker, _ = film.texts[0].partition(ACTION_MARKER)
    if marker and plan.strip():
        lines.append(f'<div class="plan">{escape(plan.strip())}</div>')
    control = f" · {CONTROL_LABELS[film.control]}" if film.control else ""
    ending = f"ended after {outcome.steps}" if outcome.terminated else f"time was up after {outcome.steps}"
    skill = film.skill.replace("_", " ")
    where = f"{film.label} · {skill}{control} · seed {outcome.seed} · {ending}"
    lines.append(f'<div class="where">{escape(where)}</div>')
    return "".join(lines)


def _chips(film: Film) -> str:
    return "".join(
        f"<span><b>{value}</b><small>{'stop' if name == TERMINATE else escape(name)}</small></span>"
        for name, value in zip(film.names, film.bins[0], strict=True)
    )


def _film_data(film: Film, kept: np.ndarray) -> str:
    """JSON for the script; "<" is escaped so that no text can end the script element."""
    data = {
        "steps": film.steps[kept].tolist(),
        "bins": film.bins[kept].tolist(),
        "actions": [[round(float(value), 5) for value in action] for action in film.actions[kept]],
        "names": film.names,
        "units": film.units,
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def episodes(films: Sequence[Film]) -> str:
    """Films that play by themselves; a slider stops them at any frame with what was decoded there."""
    if not films:
        return ""
    about = (
        "What the policy saw, with the tokens that it decoded at each step and what they mean. Drag the slider "
        "to stop at a frame; click the picture to go on. Failures are shown as readily as successes."
    )
    grid = f'<div class="films">{"".join(_film(film) for film in films)}</div>'
    return section("Watch it", about, _filters(films), grid, anchor="films")


def _filters(films: Sequence[Film]) -> str:
    buttons = "".join(
        f'<button type="button" data-outcome="{value}" aria-pressed="{str(not value).lower()}">{words}</button>'
        for value, words in (("", "All"), ("success", "Successes"), ("failure", "Failures"))
    )
    splits = list({film.split: film.label for film in films}.items())
    controls = [(name, CONTROL_LABELS[name]) for name in dict.fromkeys(film.control for film in films if film.control)]
    selects = _select("split", "every split", splits)
    if controls:
        selects += _select("control", "policy and controls", [("none", "policy only"), *controls])
    return f'<div class="filters">{buttons}<span class="gap"></span>{selects}</div>'


def _select(name: str, everything: str, options: Sequence[tuple[str, str]]) -> str:
    listed = "".join(f'<option value="{escape(value)}">{escape(words)}</option>' for value, words in options)
    return f'<select name="{name}" aria-label="{name}"><option value="">{everything}</option>{listed}</select>'
