"""A full disk told in one line: looked for before arrays are written, and recognised where it comes all the same."""

import errno
import os
import pathlib
import shutil

from rt2_jax.errors import UserError

# No space, over quota, over the limit on a file's size.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_space(directory: pathlib.Path, needed: int) -> None:
    """Raises a UserError when the disk under `directory` has less room than `needed` bytes.

    Orbax finds out in the middle of writing, and its threads then print tracebacks of their own.
    """
    parent = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise UserError(
            f"no space left for {directory}: {needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free; "
            "free some, then run the same command again"
        )


def raise_if_disk_full(error: BaseException, directory: pathlib.Path) -> None:
    """Raises a UserError when `error`, or what caused it, comes from a full disk; Orbax has several guises for it."""
    cause: BaseException | None = error
    while cause is not None:
        number, text = getattr(cause, "errno", None), str(cause)
        if number in DISK_FULL or any(os.strerror(known) in text for known in DISK_FULL):
            raise UserError(f"no space left for {directory}; free some, then run the same command again") from error
        cause = cause.__cause__ or cause.__context__
