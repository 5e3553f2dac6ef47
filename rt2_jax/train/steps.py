"""The steps of a run: which of their folders are whole."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from rt2_jax.errors import UserError

CHECKPOINTS_DIR = "checkpoints"
PARAMS_DIR = "params"
COMMIT_FILE = "commit_success.txt"
STEP_KIND = "checkpoint"
STEP_FILES = {
    "params": ("_METADATA", "manifest.ocdbt", COMMIT_FILE),
    "opt_state": ("_METADATA", "manifest.ocdbt", COMMIT_FILE),
    "progress": ("metadata", COMMIT_FILE),
}


def whole_steps(checkpoints: pathlib.Path, verify: bool = True) -> Iterator[int]:
    """Steps whose folders are whole, newest first."""
    steps = sorted((int(path.name) for path in checkpoints.iterdir() if path.name.isdigit()), reverse=True)
    for step in steps:
        if why_damaged(checkpoints / str(step), verify) is None:
            yield step


def why_damaged(step_dir: pathlib.Path, verify: bool = True) -> str | None:
    """What a checkpoint step lacks, or None when it is whole."""
    wanted = [COMMIT_FILE, "_CHECKPOINT_METADATA"]
    wanted += [f"{item}/{name}" for item, names in STEP_FILES.items() for name in names]
    for name in wanted:
        if not (step_dir / name).is_file():
            return f"{name} is missing"
    for item in ("params", "opt_state"):
        if not any((step_dir / item).glob("ocdbt.process_*/d/*")):
            return f"{item} holds no data"
    return None


def read_progress(step_dir: pathlib.Path) -> dict[str, Any]:
    """The JSON of a step's progress."""
    try:
        return json.loads((step_dir / "progress" / "metadata").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{step_dir} has no progress that can be read") from error
