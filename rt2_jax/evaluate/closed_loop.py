"""Episodes in any environment, many in lock-step, so that the policy decodes one full batch at a time.

Every row of the batch is a seat: an environment (`env.Environment`) that takes the next episode when its last one ends.
Seats keep their environments, and the batch keeps its size from the first step to the last, so nothing is compiled
twice and an episode's numbers do not depend on the company it had.
"""

import collections
import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np

from rt2_jax.errors import UserError
from rt2_jax.evaluate.env import SEATS, ControlledEnvironment, Environment, EnvSpec, Observation, Split
from rt2_jax.evaluate.frames import shrink_frame
from rt2_jax.evaluate.results import (
    CONTROLS,
    ClosedLoopResult,
    EpisodeOutcome,
    Film,
    SkillResult,
    Timing,
)
from rt2_jax.inputs.images import resize_image


class ActingPolicy(Protocol):
    """What an evaluation needs of `policy.policy.Policy`."""

    def act(
        self, images: np.ndarray, instructions: Sequence[str], mode: str = "action", *, states: np.ndarray | None = None
    ) -> Any:
        """uint8[B, N, H, W, 3], B instructions -> actions float32[B, width], bins int32[B, width], text: B strings.

        `states` is float32[B, S] for a policy with proprioception, and None for others.
        """


@dataclasses.dataclass(frozen=True)
class Job:
    """One episode to run, as `Environment.reset` takes it, under a control or none."""

    split: str
    skill: str
    control: str | None
    seed: int


def make_jobs(
    spec: EnvSpec,
    splits: Iterable[str],
    skills: Sequence[str] | None,
    episodes: int,
    seed0: int = 0,
    controls: Iterable[str | None] = (None,),
) -> list[Job]:
    """`episodes` jobs with seeds seed0, seed0 + 1, ... for each split, each of its skills and each control, in order.

    Args:
      spec: of the environment to be driven.
      splits: names of its splits.
      skills: keeps only these of each split's skills; None keeps all.
      episodes: for each split, skill and control.
      seed0: the first seed.
      controls: None is the policy itself; see `results.CONTROLS`.

    Raises:
      UserError: a split, skill or control that does not exist, no episodes, or a negative seed.
    """
    splits, controls = list(splits), list(controls)
    known = {split.name: split for split in spec.splits}
    for split in splits:
        if split not in known:
            raise UserError(f"split {split!r} is unknown; choose of {', '.join(known)}")
    for skill in skills or ():
        if skill not in spec.skills:
            raise UserError(f"skill {skill!r} is unknown; choose of {', '.join(sorted(spec.skills))}")
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
        for skill in known[split].skills
        if skills is None or skill in skills
        for seed in range(seed0, seed0 + episodes)
    ]


class _Seat:
    """One row of the batch: an environment and the episode that it is in."""

    def __init__(self, env: Environment, cameras: Sequence[str], image_size: int, history: int):
        self.env, self._cameras, self._image_size = env, cameras, image_size
        self.job: Job | None = None
        # uint8[C, H, W, 3] of each moment that the policy is shown, oldest first.
        # Before an episode's first there is none, which a black one says, as in training.
        self._none = np.zeros((len(cameras), image_size, image_size, 3), np.uint8)
        self._history = history
        self._moments = collections.deque([self._none] * history, history)
        self.told, self.state = "wait", np.zeros(len(env.spec.state_names), np.float32)

    @property
    def frames(self) -> np.ndarray:
        """uint8[N, H, W, 3]: what the policy is shown, the oldest moment first and of each moment every camera."""
        return np.concatenate(self._moments)

    def begin(self, job: Job) -> None:
        """Sets the task; `frames` and `told` are then what the policy is shown and told."""
        if job.control is None:
            observation = self.env.reset(job.split, job.skill, job.seed)
        else:
            # An environment whose splits name controls has the method for them.
            controlled = cast(ControlledEnvironment, self.env)
            observation = controlled.reset_control(job.control, job.split, job.skill, job.seed)
        self.job = job
        self._tell(observation)
        self._instruction = observation.instruction if observation.judged is None else observation.judged
        self._told_first = self.told
        self._steps: list[tuple[np.ndarray, np.ndarray, np.ndarray, str]] = []
        self._moments.extend([self._none] * (self._history - 1) + [self._moment(observation)])

    def step(self, action: np.ndarray, bins: np.ndarray, text: str) -> EpisodeOutcome | None:
        """Acts; the episode's outcome when that ended it."""
        assert self.job is not None
        self._steps.append((shrink_frame(self._moments[-1][0]), action, bins, text))
        after = self.env.step(action.copy())
        self._tell(after.observation)
        self._moments.append(self._moment(after.observation))
        if not after.done and len(self._steps) < self.env.spec.max_steps:
            return None
        return EpisodeOutcome(
            seed=self.job.seed,
            success=bool(after.success),
            steps=len(self._steps),
            terminated=bool(after.done and not after.truncated),
            instruction=self._instruction,
            told=self._told_first,
            metrics={name: float(value) for name, value in after.metrics.items()},
        )

    def _tell(self, observation: Observation) -> None:
        self.told = observation.instruction
        if observation.state is not None:
            self.state = observation.state.astype(np.float32)  # a copy

    def _moment(self, observation: Observation) -> np.ndarray:
        # Stacking copies: many environments draw every frame into one array.
        return np.stack([resize_image(observation.images[camera], self._image_size) for camera in self._cameras])

    def film(self, outcome: EpisodeOutcome) -> Film:
        """The episode that just ended."""
        assert self.job is not None
        frames, actions, bins, texts = zip(*self._steps, strict=True)
        spec = self.env.spec
        return Film(
            split=self.job.split,
            label=_split(spec, self.job.split).label,
            skill=self.job.skill,
            control=self.job.control,
            outcome=outcome,
            frames=np.stack(frames),
            steps=np.arange(len(frames), dtype=np.int32),
            actions=np.stack(actions).astype(np.float32),
            bins=np.stack(bins).astype(np.int32),
            names=spec.action_names,
            units=spec.action_units,
            kinds=spec.action_kinds,
            texts=tuple(texts),
        )


def _split(spec: EnvSpec, name: str) -> Split:
    return next(split for split in spec.splits if split.name == name)


def run_jobs(
    policy: ActingPolicy,
    jobs: Sequence[Job],
    make_env: Callable[[], Environment],
    *,
    image_size: int,
    num_images: int = 1,
    cameras: Sequence[str] = (),
    states: bool = False,
    mode: str = "action",
    film_count: int = 1,
    seats: int = SEATS,
    on_episode: Callable[[Job, EpisodeOutcome], None] = lambda job, outcome: None,
    on_begin: Callable[[int], None] = lambda row: None,
) -> ClosedLoopResult:
    """Runs episodes, many at a time.

    Args:
      policy: called with the frames of as many episodes as there are seats and as many instructions.
      jobs: what to run; results come in their order.
      make_env: an environment whose actions are the policy's; called once a seat.
      image_size: side of the policy's frames in pixels, to which the environment's are resized.
      num_images: frames that the policy takes: those of the present moment and of the steps before, oldest first.
      cameras: those of the environment that the policy looks through, in its order; () is the first one. Films show
        the first.
      states: whether the policy is told the environment's state.
      mode: "action" or "plan" (chain of thought), as `Policy.act` takes it.
      film_count: films kept of each (split, skill, control), successes and failures counted apart.
      seats: episodes at a time, at most; fewer where there are fewer jobs or the environment wants fewer.
      on_episode: called as each episode ends, for progress.
      on_begin: called as each episode begins, with the row of the batch that it has, for a policy that keeps something
        of a row from one call to the next.

    Returns:
      Results for each (split, skill, control), with outcomes by seed, and the times. `Timing.policy` holds the
      policy's first call, which compiles.

    Raises:
      UserError: a camera that the environment has not, frames that are no multiple of the cameras, or whatever an
        environment of the user's own does wrong (`user_env`).
    """
    began = time.perf_counter()
    waiting = collections.deque(jobs)
    outcomes: dict[Job, EpisodeOutcome] = {}
    films: dict[Job, Film] = {}
    kept: collections.Counter[tuple[str, str, str | None, bool]] = collections.Counter()
    policy_seconds, calls, steps = 0.0, 0, 0
    with contextlib.ExitStack() as opened:

        def seat() -> _Seat:
            env = make_env()
            opened.callback(env.close)
            eyes = tuple(cameras) or env.spec.cameras[:1]
            missing = [camera for camera in eyes if camera not in env.spec.cameras]
            if missing:
                raise UserError(
                    f"the policy looks through camera {missing[0]!r}, the environment has "
                    f"{', '.join(env.spec.cameras)}; call its cameras as the policy's card does"
                )
            if num_images % len(eyes):
                raise UserError(
                    f"the policy takes {num_images} frames and looks through {len(eyes)} cameras ({', '.join(eyes)}); "
                    "name as many as it was trained with"
                )
            return _Seat(env, eyes, image_size, num_images // len(eyes))

        rows = [seat()]
        spec = rows[0].env.spec
        # A power of two, as the policy pads to one anyway.
        count = min(seats, spec.seats, 1 << max(0, len(jobs) - 1).bit_length())
        rows += [seat() for _ in range(count - 1)]
        for place, row in enumerate(rows[: len(jobs)]):
            on_begin(place)
            row.begin(waiting.popleft())
        while any(row.job is not None for row in rows):
            called = time.perf_counter()
            frames = np.stack([row.frames for row in rows])
            told = [row.told for row in rows]
            output = policy.act(
                frames, told, mode=mode, states=np.stack([row.state for row in rows]) if states else None
            )
            policy_seconds += time.perf_counter() - called
            calls += 1
            answers = zip(rows, output.actions, output.bins, output.text, strict=True)
            for place, (row, action, bins, text) in enumerate(answers):
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
                    on_begin(place)
                    row.begin(waiting.popleft())
    total = time.perf_counter() - began
    timing = Timing(policy_seconds, total - policy_seconds, total, steps, calls)
    ordered = tuple(films[job] for job in jobs if job in films)
    return ClosedLoopResult(tuple(_group(jobs, outcomes, mode, spec)), ordered, timing)


def _group(jobs: Sequence[Job], outcomes: dict[Job, EpisodeOutcome], mode: str, spec: EnvSpec) -> Iterator[SkillResult]:
    """One result for each (split, skill, control), in the jobs' order."""

    def kind(job: Job) -> tuple[str, str, str | None]:
        return job.split, job.skill, job.control

    for (name, skill, control), group in itertools.groupby(jobs, key=kind):
        split = _split(spec, name)
        found = tuple(outcomes[job] for job in group)
        yield SkillResult(name, split.label, split.group, skill, control, mode, spec.max_steps, found)
