"""Whether a place can be written, found out before the work whose result goes there."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Collection

from rt2_jax.errors import UserError
from rt2_jax.files.manifest import MANIFEST_NAME, read_manifest
from rt2_jax.files.writing import check_not_inside_sealed, write_error


def check_folder(folder: str | pathlib.Path) -> None:
    """Writes to `folder` and takes it back: folders that had to be made for it go again.

    Raises:
        UserError: it is not a folder, or nothing can be written to it.
    """
    folder = pathlib.Path(folder)
    made: list[pathlib.Path] = []
    try:
        missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
        for path in reversed(missing):
            path.mkdir()
            made.append(path)
        with tempfile.TemporaryFile(dir=folder, prefix=".rt2-probe-") as probe:
            probe.write(b"1")
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        for path in reversed(made):
            with contextlib.suppress(OSError):  # another process has put something there
                path.rmdir()


def check_file(path: str | pathlib.Path) -> None:
    """The same for one file, which may be there already.

    Raises:
        UserError: it is a folder or a device, it or its folder cannot be written, or it is sealed with its folder.
            A new file beside a manifest is nobody's concern.
    """
    path = pathlib.Path(path)
    try:
        check_not_inside_sealed(path.parent.resolve(), path)
        if path.name == MANIFEST_NAME or path.name in _sealed_files(path.parent):
            raise UserError(f"cannot write {path}: it belongs to {path.parent}, which is sealed; choose another name")
        # `lexists`: a link to nowhere is no file either.
        if os.path.lexists(path) and not path.is_file():
            raise UserError(f"cannot write {path}: it is no file; choose another name")
        if path.is_file() and not os.access(path, os.W_OK):
            raise UserError(f"cannot write {path}: it may not be changed; allow it or choose another name")
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise write_error(path, error) from error
    check_folder(path.parent)


def _sealed_files(folder: pathlib.Path) -> Collection[str]:
    """Names of the files that a folder is sealed with; of one whose manifest is not ours, none."""
    try:
        manifest = read_manifest(folder)
    except UserError:
        return ()
    return manifest.files if manifest else ()
