"""``rt2 eval --server``: the closed loop through `rt2 serve`, and its report."""

import contextlib
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from rt2_jax.errors import UserError
from rt2_jax.evaluate.results import CONTROLS
from rt2_jax.evaluate.run import SPLIT, closed_loop_jobs, open_environments, robot_driven, run_closed_loop
from rt2_jax.files.places import check_file
from rt2_jax.report.document import Checkpoint, Provenance, Server, build_report, describe_machine, installed_versions
from rt2_jax.report.report import REPORT_HTML, REPORT_JSON
from rt2_jax.report.run import now, publish, this_command


def evaluate_server(
    server: str,
    out_dir: str | pathlib.Path,
    *,
    api_key: str | None = None,
    env: str | None = None,
    splits: Sequence[str] | None = None,
    skills: Sequence[str] | None = None,
    episodes: int = 20,
    seed: int = 0,
    controls: Sequence[str] = CONTROLS,
    mode: str = "action",
    embodiment: str | None = None,
    title: str | None = None,
    command: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Drives environments by the policy that a server has, and writes report.json and report.html.

    Held-out metrics need the weights and are left out, which the page says. The same seeds give the same actions as
    `report.run.evaluate` of the bundle that is served, unless it has an envelope: its guard stands between.

    Args:
      server: the URL, as `serve.client.PolicyClient` takes it.
      api_key: the server's, where it wants one.
      env, splits, skills, episodes, seed, controls, mode, embodiment, out_dir, title, command, progress: as in
        `report.run.evaluate`; there is at least one episode.

    Returns:
      The report, as in report.json.

    Raises:
      UserError: the server cannot be reached or refuses, or something named does not exist or does not fit.
    """
    try:
        from rt2_jax.evaluate.remote import RemotePolicy
    except ImportError as error:
        raise UserError(f"a server is asked through the package {error.name}; pip install 'rt2_jax[serve]'") from error
    began = time.perf_counter()
    if episodes < 1:
        raise UserError(f"episodes is {episodes}; a server is asked in episodes alone, give 1 or more")
    with contextlib.ExitStack() as opened:
        environments = opened.enter_context(contextlib.closing(open_environments(env)))
        jobs = closed_loop_jobs(environments.spec, splits, skills, episodes, seed, controls)
        for name in (REPORT_JSON, REPORT_HTML):
            check_file(pathlib.Path(out_dir) / name)
        policy = opened.enter_context(RemotePolicy(server, api_key))
        greeting = policy.greeting
        if mode not in greeting.modes:
            raise UserError(f"mode {mode!r} is not served at {policy.url}; choose of: {', '.join(greeting.modes)}")
        robot = robot_driven(policy.robots, f"the server at {policy.url}", environments, embodiment)
        run = run_closed_loop(policy.acting_as(robot), environments, jobs, mode, progress, policy.begin)
        limited = dict(policy.limited())
    model, parameters, step = (greeting.model.get(field) for field in ("name", "parameters", "step"))
    provenance = Provenance(
        title=title or policy.url,
        created=now(),
        command=command or this_command(),
        wall_seconds=time.perf_counter() - began,
        checkpoint=Checkpoint(
            path=policy.url,
            sha256=greeting.bundle,
            model=str(model or "unnamed"),
            parameters=parameters if isinstance(parameters, int) else None,
            step=step if isinstance(step, int) else None,
        ),
        data_path=None,
        data_split=SPLIT,
        machine=describe_machine("none here", []),
        versions=installed_versions(),
    )
    report = build_report(
        provenance, [run], environment=environments.name, server=Server(url=policy.url, limited=limited)
    )
    publish(report, out_dir, run.films)
    return report
