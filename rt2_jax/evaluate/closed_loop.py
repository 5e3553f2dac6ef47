"""Episodes in the simulated world, many in lock-step, so that the policy decodes one full batch at a time.

Every row of the batch is a seat: an environment that takes the next episode when its last one ends. Seats keep their
OpenGL contexts, and the batch keeps its size from the first step to the last, so nothing is compiled twice and an
episode's numbers do not depend on the company it had. Needs the [sim] extra.
"""

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.evaluate.frames import shrink_frame
from rt2_jax.evaluate.results import (
    CONTROLS,
    OTHER_IMAGE,
    WRONG_INSTRUCTION,
    ClosedLoopResult,
    EpisodeOutcome,
    Film,
    SkillResult,
    Timing,
)
from rt2_jax.sim.tasks.controls import other_scene, wrong_instruction
from rt2_jax.sim.tasks.env import MAX_STEPS, TabletopEnv
from rt2_jax.sim.tasks.splits import SPLITS, sample_task

SEATS = 16


class ActingPolicy(Protocol):
    """What an evaluation needs of `decode.policy.Policy`."""

    def act(self, images: np.ndarray, instructions: Sequence[str], mode: str = "action") -> Any:
        """uint8[B, N, H, W, 3] and B instructions -> actions float32[B, 8], bins int32[B, 8], text of B strings."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One episode to run: `sample_task(split, skill, seed)`, under a control or none."""

    split: str
    skill: str
    control: str | None
    seed: int


def make_jobs(
    splits: Iterable[str],
    skills: Sequence[str] | None,
    episodes: int,
    seed0: int = 0,
    controls: Iterable[str | None] = (None,),
) -> list[Job]:
    """`episodes` jobs with seeds seed0, seed0 + 1, ... for each split, each of its skills and each control, in order.

    Args:
      splits: names in `sim.splits.SPLITS`.
      skills: keeps only these of each split's skills; None keeps all.
      episodes: for each split, skill and control.
      seed0: the first seed. Splits have streams of their own: no seed of an evaluation gives a training scene.
      controls: None is the policy itself; see `results.CONTROLS`.

    Raises:
      UserError: a split, skill or control that does not exist, no episodes, or a negative seed.
    """
    splits, controls = list(splits), list(controls)
    for split in splits:
        if split not in SPLITS:
            raise UserError(f"split {split!r} is unknown; choose of {', '.join(SPLITS)}")
    known = {skill for split in SPLITS.values() for skill in split.skills}
    for skill in skills or ():
        if skill not in known:
            raise UserError(f"skill {skill!r} is unknown; choose of {', '.join(sorted(known))}")
    for control in controls:
        if control is not None and control not in CONTROLS:
            raise UserError(f"control {control!r} is unknown; choose of {', '.join(CONTROLS)}")
    if episodes < 1:
        raise UserError(f"episodes is {episodes}; run at least 1 for each skill of a split")
    if seed0 < 0:
        raise UserError(f"the seed is {seed0}; give 0 or more")
    return [
        Job(split, skill, control, seed)
        for split in splits
        for control in controls
        for skill in SPLITS[split].skills
        if skills is None or skill in skills
        for seed in range(seed0, seed0 + episodes)
    ]


class _Seat:
    """One row of the batch: an environment and the episode that it is in."""

    def __init__(self, make_env: Callable[[int, int], Any], image_size: int, num_images: int, max_steps: int):
        self._make_twin = lambda: make_env(image_size, max_steps)
        self._env = make_env(image_size, max_steps)
        self._twin: Any = None
        self.job: Job | None = None
        # The frames that the policy is shown, oldest first.
        self.frames = collections.deque([np.zeros((image_size, image_size, 3), np.uint8)] * num_images, num_images)
        self.told = "wait"

    def begin(self, job: Job) -> None:
        """Sets the scene; `frames` and `told` are then what the policy is shown and told."""
        scene, task = sample_task(job.split, job.skill, job.seed)
        observation, _ = self._env.reset(options={"scene": scene, "task": task})
        self.job, self.instruction, self.told = job, task.instruction, task.instruction
        self._steps: list[tuple[np.ndarray, np.ndarray, np.ndarray, str]] = []
        if job.control == WRONG_INSTRUCTION:
            self.told = wrong_instruction(scene, task, job.seed).instruction
        if job.control == OTHER_IMAGE:
            # The policy drives both worlds and sees the other one, so that it is not blind: it looks at a wrong table.
            self._twin = self._twin or self._make_twin()
            observation, _ = self._twin.reset(options={"scene": other_scene(scene, task, job.seed), "task": task})
        # Before the first step nothing has moved: the first frame stands for those before it.
        self.frames.extend([observation["image"]] * self.frames.maxlen)

    def step(self, action: np.ndarray, bins: np.ndarray, text: str) -> EpisodeOutcome | None:
        """Acts; the episode's outcome when that ended it."""
        self._steps.append((shrink_frame(self.frames[-1]), action, bins, text))
        observation, _, terminated, truncated, info = self._env.step(action)
        if self.job.control == OTHER_IMAGE:
            observation = self._twin.step(action)[0]
        self.frames.append(observation["image"])
        if not (terminated or truncated):
            return None
        return EpisodeOutcome(
            seed=self.job.seed,
            success=bool(info["success"]),
            steps=len(self._steps),
            terminated=bool(terminated),
            instruction=self.instruction,
            told=self.told,
        )

    def film(self, outcome: EpisodeOutcome) -> Film:
        """The episode that just ended."""
        frames, actions, bins, texts = zip(*self._steps, strict=True)
        return Film(
            split=self.job.split,
            skill=self.job.skill,
            control=self.job.control,
            outcome=outcome,
            frames=np.stack(frames),
            steps=np.arange(len(frames), dtype=np.int32),
            actions=np.stack(actions).astype(np.float32),
            bins=np.stack(bins).astype(np.int32),
            texts=tuple(texts),
        )

    def close(self) -> None:
        self._env.close()
        if self._twin is not None:
            self._twin.close()


def run_jobs(
    policy: ActingPolicy,
    jobs: Sequence[Job],
    *,
    image_size: int,
    num_images: int = 1,
    max_steps: int = MAX_STEPS,
    mode: str = "action",
    film_count: int = 1,
    seats: int = SEATS,
    on_episode: Callable[[Job, EpisodeOutcome], None] = lambda job, outcome: None,
    make_env: Callable[[int, int], Any] = TabletopEnv,
) -> ClosedLoopResult:
    """Runs episodes, `seats` at a time.

    Args:
      policy: called with the frames of `seats` episodes (fewer when there are fewer jobs) and as many instructions.
      jobs: what to run; results come in their order.
      image_size: side of the frames in pixels; the policy's own size saves a resizing.
      num_images: frames that the policy takes: the present one and those of the steps before, oldest first.
      max_steps: control steps after which an episode is cut.
      mode: "action" or "plan" (chain of thought), as `Policy.act` takes it.
      film_count: films kept of each (split, skill, control), successes and failures counted apart.
      on_episode: called as each episode ends, for progress.
      make_env: (image_size, max_steps) -> an environment with TabletopEnv's reset, step and close.

    Returns:
      Results for each (split, skill, control), with outcomes by seed, and the times. `Timing.policy` holds the
      policy's first call, which compiles.
    """
    began = time.perf_counter()
    waiting = collections.deque(jobs)
    # A power of two, as the policy pads to one anyway.
    count = min(seats, 1 << max(0, len(jobs) - 1).bit_length())
    rows = [_Seat(make_env, image_size, num_images, max_steps) for _ in range(count)]
    outcomes: dict[Job, EpisodeOutcome] = {}
    films: dict[Job, Film] = {}
    kept: collections.Counter[tuple[str, str, str | None, bool]] = collections.Counter()
    policy_seconds, calls, steps = 0.0, 0, 0
    try:
        for row in rows[: len(jobs)]:
            row.begin(waiting.popleft())
        while any(row.job is not None for row in rows):
            called = time.perf_counter()
            frames = np.stack([np.stack(row.frames) for row in rows])
            output = policy.act(frames, [row.told for row in rows], mode=mode)
            policy_seconds += time.perf_counter() - called
            calls += 1
            for row, action, bins, text in zip(rows, output.actions, output.bins, output.text, strict=True):
                if row.job is None:
                    continue
                steps += 1
                outcome = row.step(action, bins, text)
                if outcome is None:
                    continue
                job, group = row.job, (row.job.split, row.job.skill, row.job.control, outcome.success)
                outcomes[job] = outcome
                if kept[group] < film_count:
                    kept[group] += 1
                    films[job] = row.film(outcome)
                on_episode(job, outcome)
                row.job = None
                if waiting:
                    row.begin(waiting.popleft())
    finally:
        for row in rows:
            row.close()
    total = time.perf_counter() - began
    timing = Timing(policy_seconds, total - policy_seconds, total, steps, calls)
    ordered = tuple(films[job] for job in jobs if job in films)
    return ClosedLoopResult(tuple(_group(jobs, outcomes, mode, max_steps)), ordered, timing)


def _group(jobs: Sequence[Job], outcomes: dict[Job, EpisodeOutcome], mode: str, max_steps: int) -> list[SkillResult]:
    """One result for each (split, skill, control), in the jobs' order."""

    def kind(job: Job) -> tuple[str, str, str | None]:
        return job.split, job.skill, job.control

    return [
        SkillResult(split, skill, control, mode, max_steps, tuple(outcomes[job] for job in group))
        for (split, skill, control), group in itertools.groupby(jobs, key=kind)
    ]


def evaluate_split(
    policy: ActingPolicy,
    split: str,
    skills: Sequence[str] | None = None,
    episodes: int = 20,
    seed0: int = 0,
    max_steps: int = MAX_STEPS,
    control: str | None = None,
    film_count: int = 1,
    *,
    image_size: int,
    num_images: int = 1,
    mode: str = "action",
) -> ClosedLoopResult:
    """`run_jobs` over one split: `episodes` of each of its skills (or of `skills`), under `control` if one is named.

    Raises:
      UserError: as `make_jobs`.
    """
    jobs = make_jobs([split], skills, episodes, seed0, [control])
    return run_jobs(
        policy,
        jobs,
        image_size=image_size,
        num_images=num_images,
        max_steps=max_steps,
        mode=mode,
        film_count=film_count,
    )
