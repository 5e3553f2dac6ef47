"""What is to be evaluated, found to fit the checkpoint before any work, and then run."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from rt2_jax.actions.embodiment import difference
from rt2_jax.bundle.spec import read_spec
from rt2_jax.data.records import PreparedIndex, again, prepared_dir, prepared_tasks, read_index
from rt2_jax.errors import UserError
from rt2_jax.evaluate import offline
from rt2_jax.evaluate.closed_loop import ActingPolicy, Job, make_jobs, run_jobs
from rt2_jax.evaluate.env import Environment, EnvSpec, Robot, cameras_seen, check_robot
from rt2_jax.evaluate.examples import read_examples
from rt2_jax.evaluate.results import ActionScores, ClosedLoopResult, WebScores
from rt2_jax.evaluate.user_env import EnvironmentSource, UserEnvironments
from rt2_jax.policy.policy import Policy, TextModel
from rt2_jax.progress import progress_bar

SPLIT = "validation"
TABLETOP = "tabletop"


class TabletopEnvironments:
    """The environments that `rt2 eval` drives where none is named.

    Raises:
      UserError: the simulator is not installed.
    """

    name = TABLETOP

    def __init__(self) -> None:
        try:
            from rt2_jax.evaluate import tabletop_env
        except ImportError as error:
            raise UserError(
                f"closed loop on the tabletop needs the simulator, but {error.name} is not installed; pip install "
                "'rt2_jax[sim]', name another environment by --env module:factory, or pass --episodes 0 for the "
                "held-out metrics alone"
            ) from error
        self._module = tabletop_env
        self.spec: EnvSpec = tabletop_env.tabletop_spec()

    def make(self, image_size: int) -> Environment:
        """Another table, rendered at the policy's size."""
        return self._module.TabletopEnvironment(image_size)

    def close(self) -> None:
        """Nothing waits to be handed out."""


def open_environments(name: str | None) -> EnvironmentSource:
    """The environments of ``module:factory``, or the tabletop's; close them when all are done.

    Raises:
      UserError: they cannot be made.
    """
    return TabletopEnvironments() if name is None else UserEnvironments(name)


def closed_loop_jobs(
    spec: EnvSpec,
    splits: Sequence[str] | None,
    skills: Sequence[str] | None,
    episodes: int,
    seed: int,
    controls: Sequence[str],
) -> list[Job]:
    """The episodes to run: on `splits` (None: all but optional ones), and those of `controls` that a split asks for.

    Raises:
      UserError: an unknown name, or nothing to run.
    """
    offered = {split.name: split.controls for split in spec.splits}
    names = [split.name for split in spec.splits if not split.optional] if splits is None else list(splits)
    jobs = []
    for name in names:
        told = [control for control in controls if control in offered.get(name, ())]
        jobs += make_jobs(spec, [name], skills, episodes, seed, [None, *told])
    if not jobs:
        raise UserError(f"none of the splits {', '.join(names)} tests {', '.join(skills or ())}; name other skills")
    return jobs


class DrivingPolicy(ActingPolicy, Protocol):
    """What drives environments: a `Policy`, or a `remote.RemotePolicy`."""

    @property
    def image_size(self) -> int:
        """Side in pixels of the frames that it sees."""
        ...

    def embodiment(self) -> Robot:
        """Whose actions `act` gives."""
        ...


def run_closed_loop(
    policy: DrivingPolicy,
    environments: EnvironmentSource,
    jobs: Sequence[Job],
    mode: str,
    progress: bool,
    on_begin: Callable[[int], None] = lambda row: None,
) -> ClosedLoopResult:
    """Drives environments through `jobs`; `on_begin` as in `run_jobs`."""
    robot = policy.embodiment()
    with progress_bar(progress) as bar:
        task = bar.add_task("episodes", total=len(jobs))
        return run_jobs(
            policy,
            jobs,
            lambda: environments.make(policy.image_size),
            image_size=policy.image_size,
            num_images=len(robot.cameras) * robot.history,
            cameras=cameras_seen(environments.spec, robot),
            states=bool(robot.state_names),
            mode=mode,
            on_episode=lambda *_: bar.advance(task),
            on_begin=on_begin,
        )


def held_out_tasks(data_dir: pathlib.Path, wanted: Sequence[str] | None) -> list[str]:
    """The prepared tasks that have a held-out split, or those `wanted` of them, in the report's order.

    Raises:
      UserError: nothing is prepared, or a task wanted is not, or is damaged.
    """
    prepared = [task for task in prepared_tasks(data_dir) if prepared_dir(data_dir, task, SPLIT).is_dir()]
    if not prepared:
        raise UserError(f"{data_dir} holds no prepared {SPLIT} split; run `rt2 data prepare --data {data_dir}` first")
    for task in wanted or ():
        if task not in prepared:
            raise UserError(f"task {task!r} is not prepared in {data_dir}; choose from {', '.join(sorted(prepared))}")
    order = [*offline.TEXT_KINDS, offline.ACTION]

    def place(task: str) -> tuple[int, str]:
        return order.index(offline.scored_as(read_index(data_dir, task, SPLIT))), task

    return sorted(wanted or prepared, key=place)


def run_offline(
    model: TextModel,
    data_dir: pathlib.Path,
    tasks: Sequence[str],
    examples: int,
    max_len: int,
    progress: bool,
    actions: bool = True,
) -> tuple[list[ActionScores], list[WebScores]]:
    """The held-out splits of `tasks`: actions and plans (where wanted, and the model knows a robot) and all others.

    Raises:
      UserError: they are not prepared with the model's vocabulary, or do not fit its prompt; or actions were prepared
        with other bins than the policy's.
    """
    scores: list[ActionScores] = []
    web: list[WebScores] = []
    with progress_bar(progress) as bar:
        row = bar.add_task("held-out examples", total=examples * len(tasks))
        for task in tasks:
            index = read_index(data_dir, task, SPLIT)
            kind = offline.scored_as(index)
            acts = kind in (offline.ACTION, offline.PLAN)
            if not acts or (actions and isinstance(model, Policy)):
                robot = acting_for(model, index) if acts and isinstance(model, Policy) else model
                held_out = read_examples(data_dir, index, model.vocabulary, examples)
                if kind == offline.ACTION and isinstance(robot, Policy):
                    scores.append(offline.score_actions(robot, task, held_out))
                else:
                    web.append(offline.score_web(robot, task, kind, held_out, max_len))
            bar.advance(row, examples)
    return scores, web


def acting_for(policy: Policy, index: PreparedIndex) -> Policy:
    """The policy as it acts for the embodiment of a task that holds actions.

    Raises:
      UserError: the task's integers mean other actions than those that the policy knows by that name.
    """
    task, embodiment = index.task, index.embodiment
    assert embodiment is not None  # the task holds actions
    known = policy.embodiments.get(embodiment.name)
    if known is None and len(policy.embodiments) == 1:
        known = policy.embodiment()  # of one dataset alone, by whatever name
    if known is None:
        raise UserError(
            f"task {task} was prepared for the embodiment {embodiment.name}, the policy knows "
            f"{', '.join(policy.embodiments)}; leave it out by --tasks, or name another checkpoint"
        )
    differing = difference(known, embodiment)
    if differing:
        what, one, other = differing
        raise UserError(
            f"task {task} was prepared with other action bounds (card {embodiment.name}) than the policy's ({what} is "
            f"{other} and {one}), so its targets mean other actions; prepare it with the card that the policy was "
            "trained with, or leave it out by --tasks"
        )
    return policy.acting_as(known.name)


def check_reads(folder: pathlib.Path, data_dir: pathlib.Path, tasks: Sequence[str]) -> None:
    """Refuses, before any work, a checkpoint that reads other tokens than the tasks hold."""
    vocabulary = read_spec(folder).vocabulary
    known = vocabulary.sha256 if vocabulary else "none"
    for task in tasks:
        prepared = read_index(data_dir, task, SPLIT).vocabulary
        if prepared != known:
            raise UserError(
                f"{task}/{SPLIT} was prepared with vocabulary {prepared[:12]}, {folder} has {known[:12]}; "
                f"{again(data_dir, task)} with the checkpoint's"
            )


def check_drives(folder: pathlib.Path, environments: EnvironmentSource, embodiment: str | None = None) -> str | None:
    """Which of a checkpoint's embodiments an environment is, found before any work; see `robot_driven`.

    Returns:
      The embodiment's name; None for weights that know no robot, which are refused when they are asked to act.
    """
    return robot_driven(read_spec(folder).embodiments, str(folder), environments, embodiment)


def robot_driven(
    known: Mapping[str, Robot], who: str, environments: EnvironmentSource, embodiment: str | None = None
) -> str | None:
    """Which of a policy's robots an environment is: the one of its action numbers.

    Args:
      known: the robots, by name.
      who: what knows them, for messages.
      environments: what is to be driven.
      embodiment: its name, where action numbers do not tell; None takes the one that the environment says, if any.

    Returns:
      The robot's name; None where none is known.

    Raises:
      UserError: the policy's actions are other numbers than the environment's, its cameras are not all there, or
        several robots fit.
    """
    spec, where = environments.spec, f"environment {environments.name}"
    fitting = [
        name
        for name, each in known.items()
        if (tuple(each.space.names), tuple(each.space.units)) == (spec.action_names, spec.action_units)
    ]
    named = embodiment or spec.embodiment
    if named:
        if known and named not in known:
            raise UserError(f"{where} is embodiment {named!r}, unknown to {who}: {', '.join(known)}")
        fitting = [name for name in known if name == named]
    if len(fitting) > 1:
        raise UserError(
            f"{where}: the embodiments {', '.join(fitting)} of {who} have its action numbers; say which one it "
            "is by --embodiment, or in its spec"
        )
    name = fitting[0] if fitting else next(iter(known), None)
    if name is not None:
        check_robot(spec, known[name], where, f"embodiment {name} of {who}")
    return name
