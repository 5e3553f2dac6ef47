"""The page's last sections: the training run, and where everything comes from."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rt2_jax.report import plots
from rt2_jax.report.page import escape, panel, section

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
        ("Identity (SHA-256)", f"<code>{escape(checkpoint['sha256'])}</code>"),
        ("Model", f"{escape(checkpoint['model'])}, {checkpoint['parameters']:,} parameters"),
        ("Data", f"<code>{escape(report['data']['path'] or 'none')}</code>, split {escape(report['data']['split'])}"),
        ("Machine", escape(f"{machine['system']}, {machine['cores']} cores; JAX on {machine['backend']}: {devices}")),
        ("Versions", escape(", ".join(f"{name} {version}" for name, version in report["versions"].items()))),
        ("Wall time", f"{report['wall_seconds']:.0f} s"),
    ]
    if timing["control_steps"]:
        steps = f"{timing['control_steps']:,} control steps in {timing['total_seconds']:.0f} s"
        policy = f"policy {timing['policy_seconds']:.0f} s in {timing['policy_calls']:,} calls"
        facts.append(("Closed loop", f"{steps}: {policy}, simulation {timing['simulation_seconds']:.0f} s"))
    listing = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return section("Where this comes from", "", panel(f'<dl class="facts">{listing}</dl>'), anchor="provenance")
