"""Files that are either whole or not there: written beside their place, then renamed."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from rt2_jax.errors import UserError


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary path to write to, and renames it to `path` when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives an empty temporary folder, and puts it in the place of `folder` when the block ends without an error."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in partial.iterdir():
            sync(path)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sync(path: pathlib.Path) -> None:
    """Has the operating system put a file's bytes on the disk, so that a rename never outlives its content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_error(path: pathlib.Path, error: Exception) -> UserError:
    """What to tell a user whose disk refused a write."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return UserError(f"cannot write {path}: {reason}; free space or choose another folder, then run the same command")
