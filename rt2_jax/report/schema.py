"""The shape of report.json as dataclasses; schema.json beside this file is the same for other programs.

Reports are checked when they are written and when they are read to be compared. ``python -m rt2_jax.report.schema``
prints what schema.json holds.
"""

import dataclasses
import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from rt2_jax.errors import UserError
from rt2_jax.typed import shown

SCHEMA_NAME = "rt2_jax/evaluation"
# Raised when a field changes its meaning or goes away; a new field does not raise it.
SCHEMA_VERSION = 2

Amount = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Interval = tuple[Fraction, Fraction]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    path: str
    sha256: str
    model: str
    parameters: Count | None  # None where a server does not say
    step: int | None


@dataclasses.dataclass(frozen=True)
class Server:
    url: str
    limited: dict[str, Count]


@dataclasses.dataclass(frozen=True)
class Data:
    path: str | None
    split: str


@dataclasses.dataclass(frozen=True)
class Machine:
    system: str
    processor: str
    cores: Positive
    backend: str
    devices: list[str]


@dataclasses.dataclass(frozen=True)
class Timing:
    policy_seconds: Amount
    simulation_seconds: Amount
    total_seconds: Amount
    control_steps: Count
    policy_calls: Count


@dataclasses.dataclass(frozen=True)
class Episode:
    seed: int
    success: bool
    steps: Count
    terminated: bool
    instruction: str
    told: str
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Measure:
    name: str
    mean: float
    interval: tuple[float, float] | None
    episodes: Count


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    split: str
    label: str
    group: Literal["seen", "unseen", "emergent", "other"]
    control: Literal["wrong_instruction", "other_image"] | None
    mode: Literal["action", "plan"]
    episodes: Count
    successes: Count
    rate: Fraction | None
    interval: Interval


@dataclasses.dataclass(frozen=True)
class SkillResult(SplitSummary):
    skill: str
    terminated: Count
    max_steps: Positive
    mean_steps: Amount | None
    measures: list[Measure]
    episode_results: list[Episode]


@dataclasses.dataclass(frozen=True)
class Dimension:
    name: str
    unit: str
    kind: Literal["continuous", "terminate", "binary"]
    token_accuracy: Fraction
    mean_error: Amount | None
    median_error: Amount | None
    p90_error: Amount | None
    sign_accuracy: Fraction | None
    recall: Fraction | None
    precision: Fraction | None


@dataclasses.dataclass(frozen=True)
class Actions:
    task: str
    examples: Count
    token_accuracy: Fraction
    exact_match: Fraction
    dimensions: list[Dimension]


@dataclasses.dataclass(frozen=True)
class Metric:
    name: str
    value: float | None
    unit: Literal["fraction", "percent of frame"]
    interval: Interval | None
    higher_is_better: bool


@dataclasses.dataclass(frozen=True)
class Sample:
    prompt: str
    target: str
    answer: str


@dataclasses.dataclass(frozen=True)
class WebTask:
    task: str
    skill: str
    examples: Count
    metrics: Annotated[list[Metric], Meta(min_length=1)]
    samples: list[Sample]


@dataclasses.dataclass(frozen=True)
class Forgetting:
    checkpoint: Checkpoint
    web: list[WebTask]


@dataclasses.dataclass(frozen=True)
class Report:
    """What docs/report.md explains field by field. More fields are passed over: a later release may have added them."""

    schema: Literal[SCHEMA_NAME]
    version: Literal[SCHEMA_VERSION]
    title: str
    created: str
    command: str
    wall_seconds: Amount
    checkpoint: Checkpoint
    data: Data
    machine: Machine
    versions: dict[str, str]
    confidence: Fraction
    environment: str | None
    closed_loop: list[SkillResult]
    summary: list[SplitSummary]
    timing: Timing
    actions: list[Actions]
    web: list[WebTask]
    forgetting: Forgetting | None
    server: Server | None = None  # of a policy that was asked over the network


def json_schema() -> dict[str, Any]:
    """The JSON Schema of report.json."""
    found = msgspec.json.schema(Report)
    for part in found["$defs"].values():  # what dataclasses say of themselves where nobody wrote anything
        if part.get("description", "").startswith(f"{part['title']}("):
            del part["description"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA_NAME,
        "description": "report.json of rt2 eval. Fields may be added within a version; docs/report.md explains each.",
        **found,
    }


def check(report: Any, where: str = "report") -> dict[str, Any]:
    """Returns `report` if it fits `Report`; otherwise raises UserError with the first place where it does not.

    Args:
        report: JSON's values.
        where: the file that it was read from, for messages.
    """
    if not isinstance(report, dict) or report.get("schema") != SCHEMA_NAME:
        raise UserError(
            f"{where}: not an evaluation report: schema must be {SCHEMA_NAME!r}; give a report.json of `rt2 eval`"
        )
    if report.get("version") != SCHEMA_VERSION:
        raise UserError(
            f"{where}: report version {shown(report.get('version'))} cannot be read, only {SCHEMA_VERSION}; run "
            "`rt2 eval` again"
        )
    try:
        msgspec.convert(report, Report)
    except msgspec.ValidationError as error:
        told = str(error).replace("`$", "`report")
        raise UserError(f"{where}: damaged report ({told}); run `rt2 eval` again") from error
    return report


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
