"""``rt2 eval``: one checkpoint, closed loop and held-out data, report.json and report.html."""

import datetime
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
from rich.console import Console

from rt2_jax.data.progress import progress_bar
from rt2_jax.data.records import action_meaning, again, prepared_dir, prepared_tasks, read_index
from rt2_jax.decode.policy import Policy, TextModel
from rt2_jax.errors import UserError
from rt2_jax.evaluate import offline, terminal
from rt2_jax.evaluate.background import training_curves
from rt2_jax.evaluate.document import Checkpoint, Provenance, build_report, describe_machine, installed_versions
from rt2_jax.evaluate.report import REPORT_HTML, REPORT_JSON, write_report
from rt2_jax.evaluate.results import CONTROLS, ActionScores, ClosedLoopResult, WebScores
from rt2_jax.files.places import check_file
from rt2_jax.tokens.grammar import build_grammar, text_grammar
from rt2_jax.train.bundle import LoadedBundle, load_bundle, open_folder
from rt2_jax.train.bundle_meta import read_meta
from rt2_jax.train.metrics import METRICS_FILE, read_metrics

if TYPE_CHECKING:  # the simulator is an extra
    from rt2_jax.evaluate.closed_loop import Job

SPLIT = "validation"
# Groups of splits that the controls run on: where the policy should do well, and where understanding is the question.
CONTROL_GROUPS = ("seen", "emergent")
# Tokens of a prompt and of an answer by a model that was never told how long they are.
PROMPT_LEN = ANSWER_LEN = 64


def describe_checkpoint(bundle: LoadedBundle) -> Checkpoint:
    """What the report says of a checkpoint."""
    return Checkpoint(
        path=str(bundle.path),
        sha256=bundle.identity,
        model=str(bundle.meta["model"]["name"]),
        parameters=sum(int(leaf.size) for leaf in jax.tree.leaves(bundle.params)),
        step=bundle.meta["step"],
    )


def make_policy(bundle: LoadedBundle, **sampling: Any) -> Policy:
    """The bundle's policy: greedy, unless `sampling` gives a temperature, top_k or top_p.

    Raises:
      UserError: a model that was shown no robot.
    """
    if bundle.bins is None:
        raise UserError(
            f"{bundle.path} holds pretrained weights that know no robot (rt2 sample --prompt asks them in text); "
            f"train from them: config.init_from = {bundle.path}"
        )
    return Policy(
        backbone=bundle.backbone,
        params=bundle.params,
        vocabulary=bundle.vocabulary,
        bins=bundle.bins,
        grammar=build_grammar(bundle.vocabulary, bundle.bins.allowed),
        image_size=bundle.meta["image_size"],
        prompt_len=bundle.meta["prompt_len"],
        plan_len=bundle.meta["target_len"],
        **sampling,
    )


def make_text_model(bundle: LoadedBundle, prompt_len: int, **sampling: Any) -> TextModel:
    """Any bundle as a model to be asked in text, with room for prompts of `prompt_len` tokens."""
    return TextModel(
        bundle.backbone,
        bundle.params,
        bundle.vocabulary,
        text_grammar(bundle.vocabulary),
        image_size=bundle.backbone.config.image_size,
        prompt_len=prompt_len,
        **sampling,
    )


def closed_loop_jobs(
    splits: Sequence[str] | None, skills: Sequence[str] | None, episodes: int, seed: int, controls: Sequence[str]
) -> list["Job"]:
    """The episodes to run: on `splits` (None: all but the training split), and the controls where they tell most.

    Raises:
      UserError: the simulator is not installed, an unknown name, or nothing to run.
    """
    try:
        from rt2_jax.evaluate.closed_loop import make_jobs
        from rt2_jax.sim.splits import SPLITS
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
                if is_action:
                    check_same_actions(model, data_dir, task)
                    scores = offline.score_actions(model, task, held_out)
                else:
                    web.append(offline.score_web(model, task, held_out, max_len))
            bar.advance(row, examples)
    return scores, web


def check_same_actions(policy: Policy, data_dir: pathlib.Path, task: str) -> None:
    """Raises a UserError when a task's integers mean other actions than the policy's."""
    meaning = action_meaning(data_dir, [task], SPLIT)
    if meaning is None or meaning[1] != policy.bins:
        card = meaning[0].name if meaning else "none"
        raise UserError(
            f"task {task} was prepared with other action bounds (card {card}) than the policy's, so its targets mean "
            "other actions; prepare it with the card that the policy was trained with, or leave it out by --tasks"
        )


def check_reads(folder: pathlib.Path, data_dir: pathlib.Path, tasks: Sequence[str]) -> None:
    """Refuses, before any work, a checkpoint that reads other tokens than the tasks hold."""
    vocabulary = read_meta(folder)["vocabulary"]
    known = vocabulary["sha256"] if vocabulary else "none"
    for task in tasks:
        prepared = read_index(data_dir, task, SPLIT).vocabulary
        if prepared != known:
            raise UserError(
                f"{task}/{SPLIT} was prepared with vocabulary {prepared[:12]}, {folder} has {known[:12]}; "
                f"{again(data_dir, task)} with the checkpoint's"
            )


def evaluate(
    checkpoint: str | pathlib.Path,
    out_dir: str | pathlib.Path,
    data_dir: str | pathlib.Path | None = None,
    *,
    reference: str | pathlib.Path | None = None,
    splits: Sequence[str] | None = None,
    skills: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    episodes: int = 20,
    examples: int = 256,
    seed: int = 0,
    controls: Sequence[str] = CONTROLS,
    mode: str = "action",
    verify: bool = True,
    title: str | None = None,
    command: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluates a checkpoint and writes report.json and report.html; the last line printed names both.

    Args:
      checkpoint: a bundle or a run's workdir; a run's metrics.jsonl becomes the page's training curves.
      out_dir: where the two files go.
      data_dir: holds prepared data; None leaves out what needs it.
      reference: a checkpoint whose web skills stand beside this one's, e.g. the one before robot data.
      splits: of `sim.splits.SPLITS`; None is all but the training split.
      skills: keeps only these; None keeps all.
      tasks: prepared tasks whose held-out examples are scored; None is all.
      episodes: for each skill of each split; 0 leaves the closed loop out.
      examples: held-out examples of each prepared task, at most.
      seed: of the first episode.
      controls: run beside the policy on the seen and the emergent splits; () runs none.
      mode: "action", or "plan" to have the policy state a plan before each action.
      verify: hold every byte of the checkpoints to its hash.
      title: of the page; the checkpoint's folder's name by default.
      command: what the report says it was made by; this process's command line by default.
      progress: show progress bars on standard error.

    Returns:
      The report, as in report.json.

    Raises:
      UserError: something named does not exist or does not fit, or there is nothing to evaluate.
    """
    began = time.perf_counter()
    if episodes < 0 or examples < 1:
        raise UserError(f"episodes is {episodes} and examples {examples}; give 0 or more and 1 or more")
    if not episodes and data_dir is None:
        raise UserError("nothing to evaluate: episodes is 0 and there is no data; give one of the two")
    if reference is not None and data_dir is None:
        raise UserError("a reference is compared on prepared data, and there is none; give --data as well")
    if tasks and data_dir is None:
        raise UserError(f"the tasks {', '.join(tasks)} are prepared data, and there is none; give --data as well")
    if not episodes and (splits or skills):
        chosen = ", ".join([*(splits or ()), *(skills or ())])
        raise UserError(f"{chosen} would be driven in episodes, and their number is 0; give episodes, or leave it out")
    data = None if data_dir is None else pathlib.Path(data_dir)
    # What is asked for is checked here; the work starts below.
    held_out = held_out_tasks(data, tasks) if data else []
    jobs = closed_loop_jobs(splits, skills, episodes, seed, controls) if episodes else []
    for folder in (checkpoint, *([] if reference is None else [reference])):
        check_reads(pathlib.Path(folder), data, held_out)
    if reference is not None:
        open_folder(reference, verify)
    for name in (REPORT_JSON, REPORT_HTML):
        check_file(pathlib.Path(out_dir) / name)
    bundle = load_bundle(checkpoint, verify=verify)
    described = describe_checkpoint(bundle)
    if jobs or bundle.bins:
        model = make_policy(bundle)
    else:
        model = make_text_model(bundle, bundle.meta.get("prompt_len") or PROMPT_LEN)
    max_len = bundle.meta.get("target_len") or ANSWER_LEN
    runs: list[ClosedLoopResult] = []
    scores, web, before = None, [], None
    if data:
        scores, web = run_offline(model, data, held_out, examples, max_len, progress)
    if jobs:
        runs = [run_closed_loop(model, jobs, mode, progress)]
    if reference is not None:
        old = load_bundle(reference, verify=False)  # verified above
        old_model = make_text_model(old, old.meta.get("prompt_len") or PROMPT_LEN)
        old_len = old.meta.get("target_len") or ANSWER_LEN
        _, old_web = run_offline(old_model, data, held_out, examples, old_len, progress, actions=False)
        before = (describe_checkpoint(old), old_web)
    provenance = Provenance(
        title=title or pathlib.Path(checkpoint).resolve().name,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=command or shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
        wall_seconds=time.perf_counter() - began,
        checkpoint=described,
        data_path=None if data_dir is None else str(data_dir),
        data_split=SPLIT,
        machine=describe_machine(jax.default_backend(), [device.device_kind for device in jax.devices()]),
        versions=installed_versions(),
    )
    report = build_report(provenance, runs, scores, web, before)
    films = [film for run in runs for film in run.films]
    curves = training_curves(read_metrics(pathlib.Path(checkpoint) / METRICS_FILE))
    json_path, html_path = write_report(pathlib.Path(out_dir), report, films, curves)
    terminal.print_report(report, Console())
    print(f"report: {json_path} {html_path}")
    return report
