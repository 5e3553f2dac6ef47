"""A full disk told in one line: which errors come from one, and Orbax's own reports of it kept quiet."""

import errno
import logging
import os
import pathlib

from rt2_jax.errors import UserError

# No space, over quota, over the limit on a file's size.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: BaseException) -> bool:
    """Whether `error`, or what caused it, comes from a full disk; Orbax reports it in several guises."""
    cause: BaseException | None = error
    while cause is not None:
        number, text = getattr(cause, "errno", None), str(cause)
        if number in DISK_FULL or any(os.strerror(known) in text for known in DISK_FULL):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def raise_if_disk_full(error: BaseException, directory: pathlib.Path) -> None:
    """Raises a UserError when `error` comes from a full disk."""
    if is_disk_full(error):
        raise UserError(f"no space left for {directory}; free some, then run the same command again") from error


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and record.exc_info[1] and is_disk_full(record.exc_info[1]))


# Orbax's threads log the traceback of a failed write, each its own, before the error reaches `raise_if_disk_full`.
logging.getLogger("absl").addFilter(_is_news)
