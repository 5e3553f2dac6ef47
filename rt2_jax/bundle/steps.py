"""The steps of a run's ``checkpoints/``: which of them are whole, told before a reader touches their arrays.

A step is saved once every file of it is hashed into ``<step>/manifest.json``. Steps of releases before that have none,
and pass by the names of their files.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec

from rt2_jax.errors import UserError
from rt2_jax.files.manifest import MANIFEST_NAME, Manifest, find_damage, find_missing, read_manifest, told
from rt2_jax.typed import Natural, build, read_json

CHECKPOINTS_DIR = "checkpoints"
PARAMS_DIR = "params"
STEP_KIND = "checkpoint"
COMMIT_FILE = "commit_success.txt"
# The first format of a step's progress, and of its bundle metadata, that comes with a manifest.
SEALED_FORMAT = 2
# By a kill; or it is under way, where a run is looked at from outside.
CUT_OFF = "its save is not complete"
STEP_FILES = {
    "params": ("_METADATA", "manifest.ocdbt", COMMIT_FILE),
    "opt_state": ("_METADATA", "manifest.ocdbt", COMMIT_FILE),
    "progress": ("metadata", COMMIT_FILE),
}

_log = logging.getLogger(__name__)


def listed_steps(checkpoints: pathlib.Path) -> list[int]:
    """Numbers of all step folders, whole or not, newest first."""
    if not checkpoints.is_dir():
        return []
    numbers = {int(path.name) for path in checkpoints.iterdir() if path.name.isdecimal()}
    # A save names its folder "7", never "007".
    return sorted((number for number in numbers if (checkpoints / str(number)).is_dir()), reverse=True)


def whole_steps(checkpoints: pathlib.Path, verify: bool = True) -> Iterator[int]:
    """The whole steps, newest first; each is looked at when it is asked for, a damaged one passed over with a line."""
    for step in listed_steps(checkpoints):
        reason = why_damaged(checkpoints / str(step), verify)
        if reason is None:
            yield step
        else:
            log_passed_over(step, reason)


def complete_steps(checkpoints: pathlib.Path) -> list[int]:
    """The steps that are whole as far as names and sizes tell, newest first."""
    return list(whole_steps(checkpoints, verify=False))


def log_passed_over(step: int, reason: str) -> None:
    """The one line about a damaged step."""
    _log.warning("checkpoint step %d is passed over: %s", step, reason)


def why_damaged(step_dir: pathlib.Path, verify: bool = True) -> str | None:
    """What is wrong with a step, in a few words, or None when it is whole; without `verify` no file is hashed."""
    return why_unsealed(step_dir) or (why_changed(step_dir) if verify else None)


def why_unsealed(step_dir: pathlib.Path) -> str | None:
    """As `why_damaged`, from names, sizes, the manifest and the progress alone."""
    try:
        if saving_mark(step_dir).exists() and not (step_dir / MANIFEST_NAME).exists():
            return CUT_OFF
        reason = why_incomplete(step_dir)
        if reason:
            return reason
        manifest = read_manifest(step_dir)
        if manifest is not None:
            return _why_another(manifest, step_dir) or find_missing(step_dir, manifest)
        progress = read_progress(step_dir)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if progress.get("step") != int(step_dir.name):
        return f"it holds step {progress.get('step')!r}"
    formats = (progress.get("format", 1), progress["bundle"].get("format", 1))
    # Saves before the manifest came are whole without one.
    return None if all(number == 1 for number in formats) else f"its {MANIFEST_NAME} is missing"


def why_changed(step_dir: pathlib.Path, paths: Iterable[str] | None = None) -> str | None:
    """Which of a sealed step's files (of those at `paths`, when given) have not the bytes that were saved, or None."""
    try:
        manifest = read_manifest(step_dir)
        return None if manifest is None else find_damage(step_dir, manifest, paths)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def why_incomplete(step_dir: pathlib.Path) -> str | None:
    """What a step lacks of the files that every release writes, or None.

    Orbax lists any folder with a number for a name, copies without their commit file or data included.
    """
    wanted = [COMMIT_FILE, "_CHECKPOINT_METADATA"]
    wanted += [f"{item}/{name}" for item, names in STEP_FILES.items() for name in names]
    for name in wanted:
        if not (step_dir / name).is_file():
            return f"{name} is missing"
    for item in ("params", "opt_state"):
        if not any((step_dir / item).glob("ocdbt.process_*/d/*")):
            return f"{item} holds no data"
    return None


def saving_mark(step_dir: pathlib.Path) -> pathlib.Path:
    """The file that stands beside a step from before its save begins until it is sealed.

    It tells a save that was cut off, of which nothing is missed, from a step that has lost its manifest.
    """
    return step_dir.with_name(f"saving_{step_dir.name}")


def step_identity(step_dir: pathlib.Path) -> str | None:
    """The identity of a sealed step; None for one of an earlier release."""
    manifest = read_manifest(step_dir)
    return manifest and manifest.identity


@dataclasses.dataclass(frozen=True)
class _Progress:
    """The fields of a step's progress and their types; `read_progress` says what they are."""

    step: Natural
    example: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    bundle: dict[str, Any]
    format: Annotated[int, msgspec.Meta(ge=1, le=SEALED_FORMAT)] = 1
    config: dict[str, Any] | None = None
    data: dict[str, dict[str, Any]] | None = None


def read_progress(step_dir: pathlib.Path) -> dict[str, Any]:
    """A step's progress: "step", "example", "bundle" and, in newer ones, "format", "config" and "data".

    Raises:
        UserError: it cannot be read, or lacks one of the first three.
    """
    path = step_dir / "progress" / "metadata"
    progress = read_json(path, fix="copy the step again")
    build(_Progress, progress, f"{path} is no progress of a run", extra=True)
    return progress


def _why_another(manifest: Manifest, step_dir: pathlib.Path) -> str | None:
    if manifest.kind == STEP_KIND and dict(manifest.facts) == {"step": int(step_dir.name)}:
        return None
    return f"it is sealed as {told(manifest)}"
