"""Results -> the dictionary that report.json holds (its shape: `schema.Report`)."""

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from typing import Any

from rt2_jax.evaluate.results import ActionScores, ClosedLoopResult, Metric, SkillResult, WebScores
from rt2_jax.evaluate.statistics import wilson_interval
from rt2_jax.report.schema import SCHEMA_NAME, SCHEMA_VERSION, check

CONFIDENCE = 0.95
_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "mujoco", "sentencepiece", "pillow")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Which weights were judged. `step` is None where the bundle does not say, `parameters` where a server does not."""

    path: str
    sha256: str
    model: str
    parameters: int | None
    step: int | None


@dataclasses.dataclass(frozen=True)
class Server:
    """Where the policy was asked over the network; `limited` is what the guards of the client's side did."""

    url: str
    limited: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a report comes from: everything one needs to make it again."""

    title: str
    created: str  # ISO 8601, UTC
    command: str
    wall_seconds: float
    checkpoint: Checkpoint
    data_path: str | None
    data_split: str
    machine: dict[str, Any]
    versions: dict[str, str]


def describe_machine(backend: str, devices: Sequence[str]) -> dict[str, Any]:
    """This machine, without its name: system, processor, cores, JAX backend and devices."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "backend": backend,
        "devices": list(devices),
    }


def installed_versions() -> dict[str, str]:
    """Version of Python and of each package that decides the numbers, where installed."""
    found = {"python": platform.python_version()}
    for name in ("rt2_jax", *_PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _rate(successes: int, episodes: int) -> dict[str, Any]:
    return {
        "episodes": episodes,
        "successes": successes,
        "rate": round(successes / episodes, 4) if episodes else None,
        "interval": [round(end, 4) for end in wilson_interval(successes, episodes, CONFIDENCE)],
    }


def _skill_result(result: SkillResult) -> dict[str, Any]:
    steps = [outcome.steps for outcome in result.outcomes]
    return {
        "split": result.split,
        "label": result.label,
        "group": result.group,
        "skill": result.skill,
        "control": result.control,
        "mode": result.mode,
        **_rate(result.successes, result.episodes),
        "terminated": sum(outcome.terminated for outcome in result.outcomes),
        "max_steps": result.max_steps,
        "mean_steps": round(sum(steps) / len(steps), 2) if steps else None,
        "measures": [
            {
                "name": measure.name,
                "mean": round(measure.mean, 4),
                "interval": None if measure.interval is None else [round(end, 4) for end in measure.interval],
                "episodes": measure.episodes,
            }
            for measure in result.measures
        ],
        "episode_results": [
            dataclasses.asdict(dataclasses.replace(outcome, metrics=dict(outcome.metrics)))
            for outcome in result.outcomes
        ],
    }


def summarise(skills: Iterable[SkillResult]) -> list[dict[str, Any]]:
    """Per split, control and mode: all episodes of all skills together, in the order first met."""
    totals: dict[tuple[str, str, str, str | None, str], list[int]] = {}
    for result in skills:
        row = (result.split, result.label, result.group, result.control, result.mode)
        total = totals.setdefault(row, [0, 0])
        total[0] += result.successes
        total[1] += result.episodes
    return [
        {"split": split, "label": label, "group": group, "control": control, "mode": mode, **_rate(*total)}
        for (split, label, group, control, mode), total in totals.items()
    ]


def _metric(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "value": None if metric.value is None else round(metric.value, 4),
        "unit": metric.unit,
        "interval": None if metric.interval is None else [round(end, 4) for end in metric.interval],
        "higher_is_better": metric.higher_is_better,
    }


def _web(scores: Sequence[WebScores]) -> list[dict[str, Any]]:
    return [
        {
            "task": score.task,
            "skill": score.skill,
            "examples": score.examples,
            "metrics": [_metric(metric) for metric in score.metrics],
            "samples": [dataclasses.asdict(sample) for sample in score.samples],
        }
        for score in scores
    ]


def _actions(scores: ActionScores) -> dict[str, Any]:
    found = dataclasses.asdict(scores)
    found["dimensions"] = [
        {name: round(value, 4) if isinstance(value, float) else value for name, value in dimension.items()}
        for dimension in found["dimensions"]
    ]
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}


def build_report(
    provenance: Provenance,
    closed_loop: Sequence[ClosedLoopResult],
    actions: Sequence[ActionScores] = (),
    web: Sequence[WebScores] = (),
    reference: tuple[Checkpoint, Sequence[WebScores]] | None = None,
    environment: str | None = None,
    server: Server | None = None,
) -> dict[str, Any]:
    """Everything found, as a dictionary that fits `schema.Report`; rates keep four decimals.

    `reference` is the checkpoint whose web skills stand beside this one's (forgetting), with its scores; `environment`
    what the closed loop was in; `server` where the policy was.
    """
    skills = [result for run in closed_loop for result in run.skills]
    timings = [run.timing for run in closed_loop]
    report = {
        "schema": SCHEMA_NAME,
        "version": SCHEMA_VERSION,
        "title": provenance.title,
        "created": provenance.created,
        "command": provenance.command,
        "wall_seconds": round(provenance.wall_seconds, 2),
        "checkpoint": dataclasses.asdict(provenance.checkpoint),
        "data": {"path": provenance.data_path, "split": provenance.data_split},
        "machine": provenance.machine,
        "versions": provenance.versions,
        "confidence": CONFIDENCE,
        "environment": environment,
        "closed_loop": [_skill_result(result) for result in skills],
        "summary": summarise(skills),
        "timing": {
            "policy_seconds": round(sum(timing.policy for timing in timings), 3),
            "simulation_seconds": round(sum(timing.simulation for timing in timings), 3),
            "total_seconds": round(sum(timing.total for timing in timings), 3),
            "control_steps": sum(timing.control_steps for timing in timings),
            "policy_calls": sum(timing.policy_calls for timing in timings),
        },
        "actions": [_actions(scores) for scores in actions],
        "web": _web(web),
        "forgetting": None
        if reference is None
        else {"checkpoint": dataclasses.asdict(reference[0]), "web": _web(reference[1])},
        "server": None if server is None else dataclasses.asdict(server),
    }
    return check(report)
