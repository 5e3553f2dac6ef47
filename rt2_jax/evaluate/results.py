"""What an evaluation finds, as plain data; `report.py` turns it into files."""

import dataclasses

import numpy as np

from rt2_jax.evaluate.statistics import wilson_interval

# The controls of a closed-loop run: what is wrong on purpose. None is the policy itself.
WRONG_INSTRUCTION = "wrong_instruction"
OTHER_IMAGE = "other_image"
CONTROLS: tuple[str, ...] = (WRONG_INSTRUCTION, OTHER_IMAGE)


@dataclasses.dataclass(frozen=True)
class EpisodeOutcome:
    """How one episode went.

    `success` is judged at the end of the episode; `terminated` says that the policy itself chose to stop (otherwise
    the time ran out). `instruction` is the task's, `told` what the policy was told: they differ only under the
    wrong-instruction control.
    """

    seed: int
    success: bool
    steps: int
    terminated: bool
    instruction: str
    told: str


@dataclasses.dataclass(frozen=True)
class Film:
    """What the policy saw and did in one episode.

    `frames` is uint8[T, h, w, 3], downsampled; frame t is what the policy saw at step `steps[t]` (int32[T]), where it
    decoded `bins[t]` (int32[T, 8]) and so `actions[t]` (float32[T, 8], physical units). `texts` has T strings.
    """

    split: str
    skill: str
    control: str | None
    outcome: EpisodeOutcome
    frames: np.ndarray
    steps: np.ndarray
    actions: np.ndarray
    bins: np.ndarray
    texts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SkillResult:
    """All episodes of one skill in one split under one control (None: the policy itself)."""

    split: str
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
    """One call of `evaluate_split`: a result per skill, a few films, the times."""

    skills: tuple[SkillResult, ...]
    films: tuple[Film, ...]
    timing: Timing


@dataclasses.dataclass(frozen=True)
class DimensionError:
    """One action dimension on held-out frames. Errors are in `unit` ("cm", "deg" or "1"), on physical values."""

    name: str
    unit: str
    token_accuracy: float
    mean_error: float
    median_error: float
    p90_error: float


@dataclasses.dataclass(frozen=True)
class ActionScores:
    """Greedy actions against the demonstrations', on held-out frames.

    `token_accuracy` is the share of the eight tokens that are equal, `exact_match` the share of frames where all
    eight are; `terminate_recall` and `terminate_precision` are None where nothing was to stop, or nothing was stopped;
    `gripper_accuracy` asks only whether the gripper's sign is right.
    """

    task: str
    examples: int
    token_accuracy: float
    exact_match: float
    terminate_accuracy: float
    terminate_recall: float | None
    terminate_precision: float | None
    gripper_accuracy: float
    dimensions: tuple[DimensionError, ...]


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
