"""The page's sections on held-out data: actions, web skills and what was forgotten of them."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from rt2_jax.evaluate.text_scores import exact_match
from rt2_jax.report import plots
from rt2_jax.report.page import render


def actions(report: Mapping[str, Any]) -> Markup | None:
    """Held-out frames: how far greedy actions are from the demonstrations', one part for each task."""
    return render("actions.html", tasks=report["actions"]) if report["actions"] else None


def web(report: Mapping[str, Any]) -> Markup | None:
    """Web skills, with the reference checkpoint's beside them where there is one: what was forgotten."""
    if not report["web"]:
        return None
    forgetting = report["forgetting"]
    before = {
        (score["task"], metric["name"]): metric
        for score in (forgetting["web"] if forgetting else ())
        for metric in score["metrics"]
    }
    changes = []
    for score in report["web"]:
        metric = score["metrics"][0]
        if metric["unit"] == "fraction":
            old = before.get((score["task"], metric["name"]))
            changes.append(plots.Change(score["skill"], metric["name"], old["value"] if old else None, metric["value"]))
    return render(
        "web.html",
        scores=report["web"],
        before=before,
        reference=forgetting["checkpoint"]["path"] if forgetting else None,
        plot=plots.change_plot(changes, "Web skills before and after"),
        samples=[
            (sample, exact_match(sample["answer"], sample["target"]))
            for score in report["web"]
            for sample in score["samples"]
        ],
    )
