"""Episode films on the page: what the policy saw, said and did, step by step."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from rt2_jax.actions.space import TERMINATE
from rt2_jax.evaluate.results import Film
from rt2_jax.inputs.prompts import ACTION_MARKER
from rt2_jax.report import films as film_strips
from rt2_jax.report.page import render
from rt2_jax.report.words import CONTROL_LABELS, spaced


@dataclasses.dataclass(frozen=True)
class FilmCard:
    """A film as the page shows it.

    Attributes:
        outcome: "success" or "failure".
        count, width, height: of the frames, below one another in the picture `source`.
        instruction, told: the task's, and what the policy was told.
        plan: what it stated first, "" where it stated none.
        where: split, skill, control, seed and how it ended.
        tokens: (name, bin) of the first action's numbers.
        data: what the page's script shows at each frame.
    """

    outcome: str
    split: str
    control: str | None
    count: int
    width: int
    height: int
    source: str
    instruction: str
    told: str
    plan: str
    where: str
    tokens: list[tuple[str, int]]
    data: dict[str, Any]


def _card(film: Film) -> FilmCard:
    kept = film_strips.kept_frames(len(film.frames))
    frames, outcome = film.frames[kept], film.outcome
    plan, marker, _ = film.texts[0].partition(ACTION_MARKER)
    control = f" · {CONTROL_LABELS[film.control]}" if film.control else ""
    ending = f"ended after {outcome.steps}" if outcome.terminated else f"time was up after {outcome.steps}"
    return FilmCard(
        outcome="success" if outcome.success else "failure",
        split=film.split,
        control=film.control,
        count=len(frames),
        width=frames.shape[2],
        height=frames.shape[1],
        source=film_strips.data_url(film_strips.encode_strip(frames)),
        instruction=outcome.instruction,
        told=outcome.told,
        plan=plan.strip() if marker else "",
        where=f"{film.label} · {spaced(film.skill)}{control} · seed {outcome.seed} · {ending}",
        tokens=[
            ("stop" if kind == TERMINATE else name, int(bin_))
            for name, kind, bin_ in zip(film.names, film.kinds, film.bins[0], strict=True)
        ],
        data={
            "steps": film.steps[kept].tolist(),
            "bins": film.bins[kept].tolist(),
            "actions": [[round(float(value), 5) for value in action] for action in film.actions[kept]],
            "names": film.names,
            "units": film.units,
            "kinds": film.kinds,
        },
    )


def episodes(films: Sequence[Film]) -> Markup | None:
    """Films that play by themselves; a slider stops them at any frame with what was decoded there."""
    if not films:
        return None
    controls = dict.fromkeys(film.control for film in films if film.control)
    return render(
        "films.html",
        films=[_card(film) for film in films],
        splits=list({film.split: film.label for film in films}.items()),
        controls=[(name, CONTROL_LABELS[name]) for name in controls],
    )
