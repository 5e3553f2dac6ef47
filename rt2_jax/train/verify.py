"""``rt2 verify``: every byte below a folder that was sealed, held to its hash."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import rich.box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from rt2_jax.bundle.spec import BUNDLE_FILE
from rt2_jax.bundle.steps import CHECKPOINTS_DIR, PARAMS_DIR, STEP_KIND, listed_steps, read_progress, why_damaged
from rt2_jax.bundle.store import BUNDLE_KIND, PRETRAINED_KIND, open_folder, read_meaning
from rt2_jax.errors import UserError
from rt2_jax.files.manifest import MANIFEST_NAME, Manifest, find_damage, read_manifest, told
from rt2_jax.train.config import config_text
from rt2_jax.train.history import read_history
from rt2_jax.typed import read_json

# What says that a folder without a manifest is of a kind that is sealed nowadays.
_SIGNS = {"index.json": "prepared split", "dataset_info.json": "dataset", BUNDLE_FILE: BUNDLE_KIND}


@dataclasses.dataclass(frozen=True)
class Checked:
    """One folder.

    Attributes:
        path: of it.
        what: its kind and facts, such as "checkpoint step 1000".
        num_bytes: that were hashed.
        identity: "" where it has none.
        damage: what is wrong with it, or None.
        unsealed: nothing in it says whether it is whole.
    """

    path: pathlib.Path
    what: str
    num_bytes: int = 0
    identity: str = ""
    damage: str | None = None
    unsealed: bool = False


def verify(path: str | pathlib.Path, console: Console | None = None) -> list[Checked]:
    """Prints a line for every sealed folder at or below `path`, and what they come to.

    Raises:
        UserError: no such folder, nothing in it that rt2 seals, or damage.
    """
    path, console = pathlib.Path(path), console or Console()
    if not path.is_dir():
        raise UserError(f"{path} is no folder; name a bundle, a run, a dataset or prepared data")
    began = time.perf_counter()
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    terminal = Console(stderr=True)
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        found = [_check(folder, manifest, progress) for folder, manifest in _sealed(path)]
    # A run that saves meanwhile removes older steps.
    found = [one for one in found if one.path.is_dir()]
    if not found:
        raise UserError(f"{path} holds nothing that rt2 seals; name a bundle, a run, a dataset or prepared data")
    _show(found, path, time.perf_counter() - began, console)
    damaged = [one for one in found if one.damage]
    if damaged:
        more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        raise UserError(f"{damaged[0].path} is damaged: {damaged[0].damage}{more}; copy or make it again")
    return found


def _sealed(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, Manifest | str | None]]:
    """Folders at or below a path with their manifest, what is wrong with it, or None where one should be."""
    for parent, folders, files in os.walk(path):
        folders.sort()
        folder = pathlib.Path(parent)
        if MANIFEST_NAME in files:
            try:
                yield folder, read_manifest(folder)
            except UserError as error:
                yield folder, str(error)
            folders.clear()
        elif _is_step(folder):
            yield folder, None
            folders.clear()
        elif _SIGNS.keys() & set(files) or listed_steps(folder / CHECKPOINTS_DIR):
            yield folder, None
            folders[:] = [name for name in folders if name != PARAMS_DIR]


def _check(folder: pathlib.Path, manifest: Manifest | str | None, progress: Progress) -> Checked:
    if isinstance(manifest, str):
        return Checked(folder, "unknown", damage=manifest)
    if manifest is None:
        return _check_unsealed(folder)
    bar = progress.add_task(folder.name, total=manifest.num_bytes)
    damage = find_damage(folder, manifest, advance=lambda count: progress.advance(bar, count))
    progress.remove_task(bar)
    if damage is None and manifest.kind == STEP_KIND:
        damage = why_damaged(folder, verify=False)
    if damage is None and manifest.kind in (BUNDLE_KIND, PRETRAINED_KIND):
        damage = _fault(folder)
    return Checked(folder, told(manifest), manifest.num_bytes, manifest.identity, damage)


def _check_unsealed(folder: pathlib.Path) -> Checked:
    if _is_step(folder):
        return Checked(folder, STEP_KIND, damage=why_damaged(folder), unsealed=True)
    if (folder / CHECKPOINTS_DIR).is_dir():
        # The run's own files are held to its newest whole step.
        return Checked(folder, "run", damage=_fault(folder))
    kind = next(kind for name, kind in _SIGNS.items() if (folder / name).is_file())
    damage = _fault(folder) if kind == BUNDLE_KIND else None
    if kind == "prepared split":
        damage = f"{MANIFEST_NAME} is missing"
    return Checked(folder, kind, damage=damage, unsealed=True)


def _is_step(folder: pathlib.Path) -> bool:
    return folder.parent.name == CHECKPOINTS_DIR and folder.name.isdigit()


def _fault(folder: pathlib.Path) -> str | None:
    """Why a bundle or run cannot be read, its weights aside."""
    try:
        opened = open_folder(folder, verify=False)
        if opened.spec.vocabulary is not None:
            read_meaning(opened)
        if opened.step is not None:
            _check_config(folder, read_progress(folder / CHECKPOINTS_DIR / str(opened.step)))
    except UserError as error:
        return str(error)
    return None


def _check_config(run: pathlib.Path, progress: Mapping[str, Any]) -> None:
    """Raises a UserError when config.json, which is for people, is neither the step's config nor a later start's."""
    path, saved, starts = run / "config.json", progress.get("config"), read_history(run)
    if saved is None or (starts and starts[-1].get("changes")):
        read_json(path, fix="go on with the run, which writes it anew")
    elif not path.is_file() or path.read_bytes() != config_text(saved).encode():
        raise UserError(f"{path} is not the config that its steps were trained with; put it back")


def _show(found: list[Checked], path: pathlib.Path, seconds: float, console: Console) -> None:
    table = Table(box=rich.box.SIMPLE_HEAD)
    for name in ("folder", "kind"):
        table.add_column(name, overflow="fold")
    table.add_column("MB", justify="right")
    table.add_column("identity")
    table.add_column("state", overflow="fold")
    for one in found:
        state = "[red]DAMAGED[/]" if one.damage else "no hashes" if one.unsealed else "whole"
        below = one.path.relative_to(path).as_posix()
        size = f"{one.num_bytes / 1e6:,.1f}" if one.num_bytes else "-"
        table.add_row(below, one.what, size, one.identity[:12] or "-", state)
    console.print(table)
    gigabytes = sum(one.num_bytes for one in found) / 1e9
    unsealed = sum(one.unsealed and not one.damage for one in found)
    note = f"; {unsealed} without hashes, taken on trust" if unsealed else ""
    rate = gigabytes / max(seconds, 1e-9)
    console.print(f"{len(found)} folders, {gigabytes:.3f} GB in {seconds:.2f} s ({rate:.2f} GB/s){note}")
