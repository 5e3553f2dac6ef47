"""The page's last sections: the training run, and where everything comes from."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from rt2_jax.report import plots
from rt2_jax.report.page import render

_MAX_CURVE_POINTS = 400


def training_curves(lines: Sequence[Mapping[str, Any]]) -> list[plots.Curve]:
    """Loss curves of a run's metrics.jsonl (`train.metrics.read_metrics`): the mixture's, then each task's.

    The tasks' come from validation where the run has any, else from training. At most `plots.COLOURS` curves are kept,
    each thinned to a few hundred points.
    """
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name.split("/")[-1] == "loss" and isinstance(value, int | float) and math.isfinite(value):
                points.setdefault((line.get("split", "train"), name), []).append((float(line["step"]), float(value)))
    task_split = "validation" if any(split == "validation" and "/" in name for split, name in points) else "train"
    wanted = [("train", "loss"), *sorted(key for key in points if key[0] == task_split and "/" in key[1])]
    curves = []
    for split, name in [key for key in wanted if len(points.get(key, ())) > 1][: plots.COLOURS]:
        line = sorted(points[split, name])
        thin = line[:: math.ceil(len(line) / _MAX_CURVE_POINTS)]
        task = name.removesuffix("loss").rstrip("/").removeprefix("tabletop_").replace("_", " ")
        shown = f"{task}, held out" if split == "validation" else task
        curves.append(plots.Curve(shown or "all, training", tuple(thin if thin[-1] == line[-1] else [*thin, line[-1]])))
    return curves


def training(curves: Sequence[plots.Curve]) -> Markup | None:
    """The training run's losses."""
    if not curves:
        return None
    return render("training.html", plot=plots.curve_plot(curves, "Training curves", "loss"))


def provenance(report: Mapping[str, Any]) -> Markup:
    """Everything one needs to make the report again."""
    return render("provenance.html", report=report)
