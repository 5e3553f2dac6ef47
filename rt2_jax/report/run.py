"""``rt2 eval``: one checkpoint, closed loop and held-out data, report.json and report.html."""

import contextlib
import datetime
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from rich.console import Console

from rt2_jax.bundle.store import LoadedBundle, load_bundle, open_folder
from rt2_jax.errors import UserError
from rt2_jax.evaluate.results import CONTROLS, ClosedLoopResult, Film, WebScores
from rt2_jax.evaluate.run import (
    SPLIT,
    check_drives,
    check_reads,
    closed_loop_jobs,
    held_out_tasks,
    open_environments,
    run_closed_loop,
    run_offline,
)
from rt2_jax.files.places import check_file
from rt2_jax.policy.load import ANSWER_LEN, PROMPT_LEN, make_policy, make_text_model
from rt2_jax.report import terminal
from rt2_jax.report.background import training_curves
from rt2_jax.report.document import Checkpoint, Provenance, build_report, describe_machine, installed_versions
from rt2_jax.report.plots import Curve
from rt2_jax.report.report import REPORT_HTML, REPORT_JSON, write_report
from rt2_jax.train.metrics import METRICS_FILE, read_metrics


def describe_checkpoint(bundle: LoadedBundle) -> Checkpoint:
    """What the report says of a checkpoint."""
    return Checkpoint(
        path=str(bundle.path),
        sha256=bundle.identity,
        model=bundle.spec.model.name,
        parameters=sum(int(leaf.size) for leaf in jax.tree.leaves(bundle.params)),
        step=bundle.spec.step,
    )


def evaluate(
    checkpoint: str | pathlib.Path,
    out_dir: str | pathlib.Path,
    data_dir: str | pathlib.Path | None = None,
    *,
    env: str | None = None,
    reference: str | pathlib.Path | None = None,
    splits: Sequence[str] | None = None,
    skills: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    episodes: int = 20,
    examples: int = 256,
    seed: int = 0,
    controls: Sequence[str] = CONTROLS,
    mode: str = "action",
    embodiment: str | None = None,
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
      env: ``module:factory``, what makes environments to drive (`evaluate.env`); None is the tabletop.
      reference: a checkpoint whose web skills stand beside this one's, e.g. the one before robot data.
      splits: of the environment; None is all but those that run only where they are named.
      skills: keeps only these; None keeps all.
      tasks: prepared tasks whose held-out examples are scored; None is all.
      episodes: for each skill of each split; 0 leaves the closed loop out.
      examples: held-out examples of each prepared task, at most.
      seed: of the first episode.
      controls: run beside the policy on the splits that ask for them; () runs none.
      mode: "action", or "plan" to have the policy state a plan before each action.
      embodiment: which of the checkpoint's robots is driven; needed only where it knows several.
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
    if not episodes and (env or splits or skills):
        chosen = ", ".join([*([env] if env else []), *(splits or ()), *(skills or ())])
        raise UserError(f"{chosen} would be driven in episodes, and their number is 0; give episodes, or leave it out")
    data = None if data_dir is None else pathlib.Path(data_dir)
    with contextlib.ExitStack() as opened:
        # What is asked for is checked here; the work starts below.
        held_out = held_out_tasks(data, tasks) if data else []
        environments, jobs, robot = None, [], None
        if episodes:
            environments = opened.enter_context(contextlib.closing(open_environments(env)))
            jobs = closed_loop_jobs(environments.spec, splits, skills, episodes, seed, controls)
            robot = check_drives(pathlib.Path(checkpoint), environments, embodiment)
        for folder in (checkpoint, *([] if reference is None else [reference])):
            check_reads(pathlib.Path(folder), data or pathlib.Path(), held_out)  # no data, no tasks to read there
        if reference is not None:
            open_folder(reference, verify)
        for name in (REPORT_JSON, REPORT_HTML):
            check_file(pathlib.Path(out_dir) / name)
        # The episodes come last: they take by far the longest, and what fails should fail before them.
        before = None
        if reference is not None and data is not None:
            before = _web_scores_of(reference, data, held_out, examples, progress)
        bundle = load_bundle(checkpoint, verify=verify)
        described = describe_checkpoint(bundle)
        policy = make_policy(bundle) if environments or bundle.embodiments else None
        model = make_text_model(bundle, bundle.spec.prompt_len or PROMPT_LEN) if policy is None else policy
        max_len = bundle.spec.target_len or ANSWER_LEN
        runs: list[ClosedLoopResult] = []
        scores, web = [], []
        if data:
            scores, web = run_offline(model, data, held_out, examples, max_len, progress)
        if environments and policy is not None:
            runs = [run_closed_loop(policy.acting_as(robot), environments, jobs, mode, progress)]
    provenance = Provenance(
        title=title or pathlib.Path(checkpoint).resolve().name,
        created=now(),
        command=command or this_command(),
        wall_seconds=time.perf_counter() - began,
        checkpoint=described,
        data_path=None if data_dir is None else str(data_dir),
        data_split=SPLIT,
        machine=describe_machine(jax.default_backend(), [device.device_kind for device in jax.devices()]),
        versions=installed_versions(),
    )
    report = build_report(provenance, runs, scores, web, before, environments.name if environments else None)
    curves = training_curves(read_metrics(pathlib.Path(checkpoint) / METRICS_FILE))
    publish(report, out_dir, [film for run in runs for film in run.films], curves)
    return report


def now() -> str:
    """The time in UTC, as reports have it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def this_command() -> str:
    """This process's command line."""
    return shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]])


def publish(
    report: dict[str, Any], out_dir: str | pathlib.Path, films: Sequence[Film], curves: Sequence[Curve] = ()
) -> None:
    """Writes the two files and prints the tables; the last line printed names both files."""
    json_path, html_path = write_report(pathlib.Path(out_dir), report, films, curves)
    terminal.print_report(report, Console())
    print(f"report: {json_path} {html_path}")


def _web_scores_of(
    reference: str | pathlib.Path, data: pathlib.Path, tasks: Sequence[str], examples: int, progress: bool
) -> tuple[Checkpoint, list[WebScores]]:
    """What a verified reference knows of the web; nothing of it stays in memory."""
    bundle = load_bundle(reference, verify=False)
    model = make_text_model(bundle, bundle.spec.prompt_len or PROMPT_LEN)
    max_len = bundle.spec.target_len or ANSWER_LEN
    _, web = run_offline(model, data, tasks, examples, max_len, progress, actions=False)
    return describe_checkpoint(bundle), web
