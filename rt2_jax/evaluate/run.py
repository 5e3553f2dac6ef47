"""What is to be evaluated, found to fit the checkpoint before any work, and then run."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rt2_jax.actions.embodiment import difference
from rt2_jax.bundle.spec import read_spec
from rt2_jax.data.records import again, prepared_dir, prepared_tasks, read_index
from rt2_jax.errors import UserError
from rt2_jax.evaluate import offline
from rt2_jax.evaluate.results import ActionScores, ClosedLoopResult, WebScores
from rt2_jax.policy.policy import Policy, TextModel
from rt2_jax.progress import progress_bar

if TYPE_CHECKING:  # the simulator is an extra
    from rt2_jax.evaluate.closed_loop import Job

SPLIT = "validation"
# Groups of splits that the controls run on: where the policy should do well, and where understanding is the question.
CONTROL_GROUPS = ("seen", "emergent")


def closed_loop_jobs(
    splits: Sequence[str] | None, skills: Sequence[str] | None, episodes: int, seed: int, controls: Sequence[str]
) -> list["Job"]:
    """The episodes to run: on `splits` (None: all but the training split), and the controls where they tell most.

    Raises:
      UserError: the simulator is not installed, an unknown name, or nothing to run.
    """
    try:
        from rt2_jax.evaluate.closed_loop import make_jobs
        from rt2_jax.sim.tasks.splits import SPLITS
    except ImportError as error:
        raise UserError(
            f"closed loop needs the simulator, but {error.name} is not installed; pip install 'rt2_jax[sim]', or pass "
            "--episodes 0 for the held-out metrics alone"
        ) from error
    names = [name for name, split in SPLITS.items() if split.group != "train"] if splits is None else list(splits)
    jobs = []
    for name in names:
        told = controls if name in SPLITS and SPLITS[name].group in CONTROL_GROUPS else ()
        jobs += make_jobs([name], skills, episodes, seed, [None, *told])
    if not jobs:
        raise UserError(f"none of the splits {', '.join(names)} tests {', '.join(skills or ())}; name other skills")
    return jobs


def run_closed_loop(policy: Policy, jobs: Sequence["Job"], mode: str, progress: bool) -> ClosedLoopResult:
    """Drives the simulated arm through `jobs`."""
    from rt2_jax.evaluate.closed_loop import run_jobs

    with progress_bar(progress) as bar:
        task = bar.add_task("episodes", total=len(jobs))
        return run_jobs(
            policy,
            jobs,
            image_size=policy.image_size,
            num_images=policy.backbone.config.num_images,
            mode=mode,
            on_episode=lambda *_: bar.advance(task),
        )


def held_out_tasks(data_dir: pathlib.Path, wanted: Sequence[str] | None) -> list[str]:
    """The prepared tasks that have a held-out split, or those `wanted` of them, in the report's order.

    Raises:
      UserError: nothing is prepared, or a task wanted is not.
    """
    prepared = [task for task in prepared_tasks(data_dir) if prepared_dir(data_dir, task, SPLIT).is_dir()]
    if not prepared:
        raise UserError(f"{data_dir} holds no prepared {SPLIT} split; run `rt2 data prepare --data {data_dir}` first")
    for task in wanted or ():
        if task not in prepared:
            raise UserError(f"task {task!r} is not prepared in {data_dir}; choose from {', '.join(sorted(prepared))}")
    return sorted(wanted or prepared, key=offline.report_order)


def run_offline(
    model: TextModel,
    data_dir: pathlib.Path,
    tasks: Sequence[str],
    examples: int,
    max_len: int,
    progress: bool,
    actions: bool = True,
) -> tuple[ActionScores | None, list[WebScores]]:
    """The held-out splits of `tasks`: action tasks (where wanted, and known to the model) and all others.

    Raises:
      UserError: they are not prepared with the model's vocabulary, or do not fit its prompt; or actions were prepared
        with other bins than the policy's.
    """
    scores: ActionScores | None = None
    web: list[WebScores] = []
    with progress_bar(progress) as bar:
        row = bar.add_task("held-out examples", total=examples * len(tasks))
        for task in tasks:
            is_action = offline.is_action_task(task)
            if not is_action or actions and isinstance(model, Policy):
                held_out = offline.read_examples(data_dir, task, model.vocabulary, examples, SPLIT)
                robot = acting_for(model, data_dir, task) if isinstance(model, Policy) else model
                if is_action:
                    scores = offline.score_actions(robot, task, held_out)
                else:
                    web.append(offline.score_web(robot, task, held_out, max_len))
            bar.advance(row, examples)
    return scores, web


def acting_for(policy: Policy, data_dir: pathlib.Path, task: str) -> Policy:
    """The policy as it acts for the embodiment of a task; as it is for a task without actions.

    Raises:
      UserError: the task's integers mean other actions than those that the policy knows by that name.
    """
    embodiment = read_index(data_dir, task, SPLIT).embodiment
    if embodiment is None:
        return policy
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
