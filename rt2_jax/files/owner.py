"""One process at a time: a lock file that says who holds it, and that a dead process does not hold for ever.

The kernel's lock on the file goes with its process, however that ends, and reaches other hosts where the file system
shares it. Where it does not, the record in the file does: its holder counts a beat up every few seconds, and one whose
beat stands still for long enough is taken to be dead. Clocks are never compared.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from typing import Any

from rt2_jax.errors import UserError

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 30.0
_RECORD_BYTES = 512  # more than any host's name makes of it
_NO_KERNEL_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL)


@dataclasses.dataclass(frozen=True)
class _Record:
    """What the lock file says of its holder; `token` is drawn anew at each start."""

    host: str
    pid: int
    token: str
    beat: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.since})"


class Owner:
    """Holds a lock file for as long as its ``with`` block lasts.

    Args:
        path: the lock file; its folder exists.
        what: what is owned, for messages.
        beat_seconds: the time between two signs of life.
        patience_seconds: how long another host's beat must stand still before its holder counts as dead.

    Attributes:
        lost: another process has taken the file over, since this one gave no sign of life for too long; what is owned
            must not be written to any more.
    """

    def __init__(
        self,
        path: pathlib.Path,
        what: str,
        beat_seconds: float = BEAT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ):
        self._path, self._what = path, what
        self._beat_seconds, self._patience = beat_seconds, patience_seconds
        self._file = -1
        self._record = _Record(
            socket.gethostname(), os.getpid(), uuid.uuid4().hex, 0, time.strftime("%Y-%m-%d %H:%M:%S")
        )
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False

    def __enter__(self) -> "Owner":
        """Takes the file.

        Raises:
            UserError: a living process holds it, or it cannot be written.
        """
        try:
            self._file = self._lock()
            self._write()
        except OSError as error:
            self._close()
            raise UserError(f"cannot write {self._path}: {error.strerror}; choose another folder") from error
        self._thread = threading.Thread(target=self._keep_beating, name="rt2-owner", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        if not self.lost and self._is_ours():
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._close()

    def check(self) -> None:
        """Raises a UserError when another process has taken over."""
        if self.lost:
            raise UserError(f"{self._what} was taken over by {self._read()} while this process stood still; it stops")

    def _lock(self) -> int:
        """The open file, once nobody else holds it."""
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            shared = True
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    self._refuse(file)
                if error.errno not in _NO_KERNEL_LOCKS:
                    os.close(file)
                    raise
                shared = False
            # Its last holder may have removed the file between the two calls above: then another one has its name.
            if self._is_at_path(file):
                break
            os.close(file)
        try:
            self._outwait(shared)
        except BaseException:
            os.close(file)
            raise
        return file

    def _outwait(self, kernel_lock: bool) -> None:
        """Returns when the record's process is dead: at once on this host, else when its beat has stood still."""
        there = self._read()
        if there is None:
            return
        if there.host == self._record.host and (kernel_lock or not _is_alive(there.pid)):
            return
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            now = self._read()
            if now is None:
                return
            if now != there:
                raise self._in_use(now)
            self._stop.wait(min(1.0, self._beat_seconds))

    def _refuse(self, file: int) -> None:
        os.close(file)
        raise self._in_use(self._read())

    def _in_use(self, holder: _Record | None) -> UserError:
        return UserError(
            f"{self._what} is in use by {holder or 'another process'}; wait until it is done, or stop it first"
        )

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            if not self._is_ours():
                self.lost = True
                return
            self._record = dataclasses.replace(self._record, beat=self._record.beat + 1)
            # A beat that cannot be written (a full disk) is missed; the next one is tried all the same.
            with contextlib.suppress(OSError):
                self._write()

    def _is_ours(self) -> bool:
        there = self._read()
        return there is not None and there.token == self._record.token

    def _is_at_path(self, file: int) -> bool:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (os.fstat(file).st_dev, os.fstat(file).st_ino)

    def _write(self) -> None:
        # Written in one call and padded, so that nobody reads a mixture of two lengths.
        os.pwrite(self._file, json.dumps(dataclasses.asdict(self._record)).ljust(_RECORD_BYTES).encode(), 0)
        os.ftruncate(self._file, _RECORD_BYTES)

    def _read(self) -> _Record | None:
        """The record in the file; None where there is none that can be read."""
        try:
            fields: Any = json.loads(self._path.read_bytes())
            return _Record(**fields)
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
