"""SIGTERM and Ctrl-C in a run: an end at once while there is nothing to lose, after the step and its save from then on.

Python runs its handlers between two instructions of the main thread, which may sit in XLA's compiler for minutes. The
wakeup file descriptor is written to all the same, so a thread that reads it can end the process then. No JAX here: the
command line installs this before it imports any.
"""

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

EXIT_DONE = 0
EXIT_PREEMPTED = 42  # a JobSet restarts the job on this code
EXIT_INTERRUPTED = 130
_SHOW_CURSOR = b"\x1b[?25h"


class StopSignals:
    """Turns SIGTERM and SIGINT into a request to stop; use it in a ``with`` statement.

    Until `defer` is called the first signal ends the process at once, for there is nothing to save. After that it sets
    `received`, and the run stops where it can go on from. Further SIGTERMs change nothing; the second Ctrl-C is
    answered with a line, the third ends the process at once.

    Args:
        enabled: False leaves all signals alone; so does any thread but the main one.

    Attributes:
        received: the first signal's name, or None.
        coordinated: JAX listens for SIGTERM itself, so that all hosts stop at one step.
    """

    def __init__(self, enabled: bool = True):
        self.received: str | None = None
        self.coordinated = False
        self._enabled = enabled
        self._deferred = False
        self._interrupts = 0
        self._lock = threading.Lock()
        self._releases: list[Callable[[], None]] = []
        self._previous: dict[int, Any] = {}
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> "StopSignals":
        if self._enabled and threading.current_thread() is threading.main_thread():
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._watcher = threading.Thread(target=self._watch, name="rt2-signals", daemon=True)
            self._watcher.start()
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        if self._watcher:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._writer)
            self._watcher.join()
            self._watcher = None
            os.close(self._reader)

    def leave_to_jax(self) -> None:
        """Hands the signals over once jax.distributed runs: it has its own handler of SIGTERM, which must stay.

        Hosts that stop alone leave the others waiting, so Ctrl-C has its plain meaning there.
        """
        self.coordinated = True
        self._previous.pop(signal.SIGTERM, None)
        self.__exit__()

    def at_exit(self, release: Callable[[], None]) -> None:
        """Has `release` called before the process is ended at once."""
        self._releases.append(release)

    def defer(self) -> None:
        """From here on there is something to lose: signals wait for the end of the step."""
        with self._lock:
            self._deferred = True

    def _receive(self, number: int, _: Any) -> None:
        self.received = self.received or signal.Signals(number).name

    def _watch(self) -> None:
        """Reads the number of each signal, as a byte, until the other end is closed."""
        while data := os.read(self._reader, 1):
            if data[0] in (signal.SIGTERM, signal.SIGINT):
                with self._lock:
                    self._act(signal.Signals(data[0]))

    def _act(self, number: signal.Signals) -> None:
        interrupted = number == signal.SIGINT
        self._interrupts += interrupted
        if not self._deferred:
            code = EXIT_INTERRUPTED if interrupted else EXIT_PREEMPTED
            self._end(code, f"{number.name}: nothing new to save; run the same command to go on")
        elif interrupted and self._interrupts == 2:
            _say("SIGINT: still saving; a third Ctrl-C stops at once, and the last saved step is what there is")
        elif interrupted and self._interrupts > 2:
            self._end(EXIT_INTERRUPTED, "SIGINT: stopped at once; the same command goes on from the last saved step")

    def _end(self, code: int, text: str) -> None:
        _say(text)
        for release in reversed(self._releases):
            with contextlib.suppress(Exception):
                release()
        os._exit(code)


def ignore_signals_at_exit() -> None:
    """Keeps a signal from changing the exit code of a process that has nothing left to do but end."""
    atexit.register(_ignore)


def _ignore() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _say(text: str) -> None:
    """A line on stderr, without its buffer, whose lock the main thread may hold."""
    with contextlib.suppress(OSError):
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + f"{text}\n".encode())
