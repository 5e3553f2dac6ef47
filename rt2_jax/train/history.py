"""``history.jsonl``: a line for each start of a run: when, from which step, on what, by which command, what changed."""

import datetime
import json
import pathlib
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import jax

import rt2_jax
from rt2_jax.files.writing import whole_file

HISTORY_FILE = "history.jsonl"


def record_start(
    run_dir: pathlib.Path, step: int, identity: str | None, changes: Mapping[str, tuple[Any, Any]] | None
) -> None:
    """Adds the line of a start.

    Args:
        run_dir: holds history.jsonl.
        step: the step that the run goes on from, 0 at its first start.
        identity: of that step (see `files.manifest`); None at the first start, or where an earlier release saved it.
        changes: field -> (value before, value now); None where an earlier release did not record the config.
    """
    line = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": step,
        "identity": identity,
        "changes": None if changes is None else {name: list(pair) for name, pair in changes.items()},
        "hosts": jax.process_count(),
        "devices": [jax.device_count(), jax.devices()[0].device_kind],
        "release": rt2_jax.__version__,
        "command": shlex.join(sys.argv),
    }
    path = run_dir / HISTORY_FILE
    before = path.read_bytes() if path.is_file() else b""
    # What is damaged stays as it is, on lines of its own.
    ended = before if not before or before.endswith(b"\n") else before + b"\n"
    with whole_file(path) as partial:
        partial.write_bytes(ended + json.dumps(line).encode() + b"\n")


def read_history(run_dir: str | pathlib.Path) -> list[dict[str, Any]]:
    """The starts of a run, the first one first; damaged lines are left out."""
    path = pathlib.Path(run_dir) / HISTORY_FILE
    starts = []
    for text in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and type(line.get("step")) is int:
            starts.append(line)
    return starts
