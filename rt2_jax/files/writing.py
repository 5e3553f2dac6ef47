"""Files and folders that are either whole or not there: written beside their place, then renamed.

A folder takes the place of nothing but an empty one, or one of its own kind that was written here and that nobody has
added to; `check_target` has the rules.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

from rt2_jax.errors import UserError, first_line
from rt2_jax.files.manifest import MANIFEST_NAME, check_sealed, list_files, make_manifest, read_manifest, told
from rt2_jax.files.owner import Owner

_SHOWN = 4  # entries of a folder that a message names


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary path to write to, and renames it to `path` when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a UTF-8 file, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def whole_folder(
    target: str | pathlib.Path,
    kind: str,
    *,
    sources: Sequence[str | pathlib.Path] = (),
    overwrite: bool = False,
    facts: Mapping[str, int | str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[pathlib.Path]:
    """Gives an empty temporary folder; when the block ends without an error it is sealed and put in the target's place.

    Every byte is read back before that. One process at a time writes a target. What a killed one left behind is cleared
    away by the next.

    Args:
        target: the folder to make; see `check_target` for what it may replace.
        kind: what it will be, such as "bundle".
        sources: folders that are read for it, which it must not replace.
        overwrite: replace a folder that holds something else.
        facts: see `Manifest`.
        tell: called with the identity once all is done.

    Raises:
        UserError: a target that must not be replaced, one that another process is writing, or bytes that were read back
            are not those written.
    """
    path = check_target(target, kind, sources=sources, overwrite=overwrite)
    partial, old = (path.with_name(f".{path.name}.rt2-{name}") for name in ("partial", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    with Owner(path.with_name(f".{path.name}.rt2-owner"), f"{kind} {path}"):
        if old.is_dir() and not path.exists():
            os.rename(old, path)  # a process was killed between the two renames below
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        # Whoever had it until now may have put something there.
        check_target(target, kind, sources=sources, overwrite=overwrite)
        try:
            partial.mkdir()
            yield partial
            identity = seal(partial, kind, facts)
            check_sealed(partial, kind, facts)
            if path.exists():
                os.rename(path, old)
            os.rename(partial, path)
            sync(path.parent)
            if tell:
                tell(identity)
        finally:
            if old.is_dir() and not path.exists():
                os.rename(old, path)  # interrupted between the two renames above
            for leftover in (partial, old):
                shutil.rmtree(leftover, ignore_errors=True)


def seal(
    folder: pathlib.Path,
    kind: str,
    facts: Mapping[str, int | str] | None = None,
    paths: Sequence[str] | None = None,
) -> str:
    """Puts every byte of a finished folder on the disk and writes its manifest, last; its identity.

    `paths` are the files that belong to it, where others may lie beside them; None takes every file below it.
    """
    for path in list_files(folder) if paths is None else paths:
        sync(folder / path)
    manifest = make_manifest(folder, kind, facts, paths)
    write_text(folder / MANIFEST_NAME, manifest.to_text())
    return manifest.identity


def check_target(
    target: str | pathlib.Path, kind: str, *, sources: Sequence[str | pathlib.Path] = (), overwrite: bool = False
) -> pathlib.Path:
    """The folder that `target` names, links followed, if a new one of `kind` may take its place.

    It may be absent, empty, or of the same kind with nothing in it that was not written with it. With `overwrite` it
    may hold anything else. It is never a file, a source or what holds one, a home, the working directory, a mount,
    what holds one of these, or inside a sealed folder.

    Raises:
        UserError: names what is there, and what to do.
    """
    try:
        path = pathlib.Path(target).resolve()
        exists = os.path.lexists(path)
        if exists and not path.is_dir():
            raise UserError(f"{target} is not a folder; name a folder that is absent or empty")
        check_not_inside_sealed(path, target)
        if not exists:
            return path
        what = _protected(path, sources)
        if what:
            raise UserError(f"{target} {what}; choose another folder")
        entries = sorted(entry.name for entry in path.iterdir())
        if not entries or overwrite:
            return path
        found = _what_it_holds(path, kind, entries)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise write_error(pathlib.Path(target), error) from error
    if found:
        raise UserError(f"{target} {found}; choose another folder, or give --overwrite to replace all of it")
    return path


def check_not_inside_sealed(path: pathlib.Path, named: str | pathlib.Path) -> None:
    """Raises a UserError when a resolved path, which the user named so, lies below a sealed folder."""
    outer = next((parent for parent in path.parents if (parent / MANIFEST_NAME).is_file()), None)
    if outer is not None:
        raise UserError(f"{named} lies inside {outer}, which is sealed; choose a place elsewhere")


def _protected(path: pathlib.Path, sources: Sequence[str | pathlib.Path]) -> str | None:
    """Why a folder is never replaced, or None."""
    for source in map(pathlib.Path, sources):
        real = source.resolve()
        if real == path or path in real.parents:
            return "is what is read" if real == path else f"holds {source}, which is read"
    for name, place in (("home", home_folder()), ("working directory", pathlib.Path.cwd())):
        if place == path or path in place.parents:
            return f"is the {name}" if place == path else f"holds the {name}"
    if path.parent == path or os.path.ismount(path):
        return "is a mount"
    return None


def home_folder() -> pathlib.Path:
    """The user's home, links followed; the root where there is none."""
    try:
        return pathlib.Path.home().resolve()
    except RuntimeError:  # a user without one
        return pathlib.Path("/")


def _what_it_holds(path: pathlib.Path, kind: str, entries: Sequence[str]) -> str | None:
    """What a folder holds that is not a `kind` written here, or None."""
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    shown = ", ".join(entries[:_SHOWN]) + more
    try:
        manifest = read_manifest(path)
    except UserError:
        return f"holds {shown}, with a damaged {MANIFEST_NAME}"
    if manifest is None:
        return f"holds {shown}, and no {MANIFEST_NAME} says that it is a {kind} written by rt2"
    if manifest.kind != kind:
        return f"holds a {told(manifest)}, not a {kind}"
    added = sorted(set(list_files(path)) - manifest.files.keys() - {MANIFEST_NAME})
    return f"holds {added[0]}, which was not written with its {kind}" if added else None


def sync(path: pathlib.Path) -> None:
    """Has the operating system put a file's bytes (a folder's entries) on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_error(path: pathlib.Path, error: Exception) -> UserError:
    """What to tell a user whose disk refused a write."""
    reason = getattr(error, "strerror", None) or first_line(error)
    return UserError(f"cannot write {path}: {reason}; free space or choose another folder, then run the same command")
