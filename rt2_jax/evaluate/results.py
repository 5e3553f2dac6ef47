"""What an evaluation finds, as plain data; `report.py` turns it into files."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from rt2_jax.evaluate.statistics import mean_interval, wilson_interval

# The controls of a closed-loop run: what is wrong on purpose. None is the policy itself.
WRONG_INSTRUCTION = "wrong_instruction"
OTHER_IMAGE = "other_image"
CONTROLS: tuple[str, ...] = (WRONG_INSTRUCTION, OTHER_IMAGE)


@dataclasses.dataclass(frozen=True)
class EpisodeOutcome:
    """How one episode went.

    `success` is judged at the end of the episode; `terminated` says that the policy, or what it did, ended it
    (otherwise the time ran out). `instruction` is the task's, `told` what the policy was told first: they differ only
    under the wrong-instruction control. `metrics` are what the environment measured besides, by name.
    """

    seed: int
    success: bool
    steps: int
    terminated: bool
    instruction: str
    told: str
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Film:
    """What the policy saw and did in one episode.

    `frames` is uint8[T, h, w, 3], downsampled; frame t is what the policy saw at step `steps[t]` (int32[T]), where it
    decoded `bins[t]` (int32[T, width]) and so `actions[t]` (float32[T, width]), numbers called `names` in `units`, of
    `kinds` as in `ActionSpace`. `texts` has T strings. `label` is how the report calls the split.
    """

    split: str
    label: str
    skill: str
    control: str | None
    outcome: EpisodeOutcome
    frames: np.ndarray
    steps: np.ndarray
    actions: np.ndarray
    bins: np.ndarray
    names: tuple[str, ...]
    units: tuple[str, ...]
    kinds: tuple[str, ...]
    texts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Measure:
    """The mean of a metric over the episodes that have it, and Student's 95% interval where they are two or more."""

    name: str
    mean: float
    interval: tuple[float, float] | None
    episodes: int


@dataclasses.dataclass(frozen=True)
class SkillResult:
    """All episodes of one skill in one split under one control (None: the policy itself).

    `label` and `group` say how the report calls the split and what it pools it with.
    """

    split: str
    label: str
    group: str
    skill: str
    control: str | None
    mode: str
    max_steps: int
    outcomes: tuple[EpisodeOutcome, ...]

    @property
    def episodes(self) -> int:
        return len(self.outcomes)

    @property
    def successes(self) -> int:
        return sum(outcome.success for outcome in self.outcomes)

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.successes, self.episodes)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What the environment measured, in the order in which the names first occur."""
        values: dict[str, list[float]] = {}
        for outcome in self.outcomes:
            for name, value in outcome.metrics.items():
                values.setdefault(name, []).append(value)
        return tuple(
            Measure(name, float(np.mean(found)), mean_interval(found), len(found)) for name, found in values.items()
        )


@dataclasses.dataclass(frozen=True)
class Timing:
    """Where the wall time of a closed-loop run went, in seconds, and how much was done in it."""

    policy: float
    simulation: float
    total: float
    control_steps: int
    policy_calls: int


@dataclasses.dataclass(frozen=True)
class ClosedLoopResult:
    """One call of `closed_loop.run_jobs`: a result per split, skill and control, a few films, the times."""

    skills: tuple[SkillResult, ...]
    films: tuple[Film, ...]
    timing: Timing


@dataclasses.dataclass(frozen=True)
class DimensionScores:
    """One action dimension on held-out frames.

    A "continuous" one has errors between decoded values, in `unit` (centimetres and degrees for metres and radians),
    and, where its bounds lie on both sides of zero, `sign_accuracy`: of the frames where the demonstration's value is
    more than a bin from zero, the share on the right side of it. A "terminate" or "binary" one has `recall` and
    `precision`: of the frames where it is on, and of those where the policy says so. None where there is no such frame
    and where a score does not belong to the kind.
    """

    name: str
    unit: str
    kind: str
    token_accuracy: float
    mean_error: float | None = None
    median_error: float | None = None
    p90_error: float | None = None
    sign_accuracy: float | None = None
    recall: float | None = None
    precision: float | None = None


@dataclasses.dataclass(frozen=True)
class ActionScores:
    """Greedy actions against the demonstrations', on held-out frames of one task.

    `token_accuracy` is the share of all tokens that are equal, `exact_match` the share of frames where all of an
    action's are.
    """

    task: str
    examples: int
    token_accuracy: float
    exact_match: float
    dimensions: tuple[DimensionScores, ...]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number of a web skill: `value` in `unit` ("fraction" or "percent of frame").

    `interval` is Wilson's 95% for a share of independent trials, None otherwise.
    """

    name: str
    value: float | None
    unit: str
    interval: tuple[float, float] | None
    higher_is_better: bool = True


@dataclasses.dataclass(frozen=True)
class Sample:
    """One question with the held-out answer and the model's."""

    prompt: str
    target: str
    answer: str


@dataclasses.dataclass(frozen=True)
class WebScores:
    """One web task on held-out examples; the first metric is the headline."""

    task: str
    skill: str
    examples: int
    metrics: tuple[Metric, ...]
    samples: tuple[Sample, ...]
