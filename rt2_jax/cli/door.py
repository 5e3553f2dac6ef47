"""Every way out of a command: a result, one line and a code, or one line and the file that holds the traceback."""

import atexit
import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rt2_jax.cli import BROKEN_PIPE, INTERNAL, INTERRUPTED, TERMINATED, WRONG
from rt2_jax.errors import UserError, first_line

_LINE = 1000  # characters of a message


class _Interrupts:
    """The first Ctrl-C or SIGTERM raises KeyboardInterrupt, so that what was begun is tidied away; the second one ends
    the process.

    Attributes:
        came: the first one's number, or 0. It counts even where a library turned the exception into one of its own.
        told: the line is printed.
    """

    def __init__(self) -> None:
        self.came = 0
        self.told = False

    def __call__(self, number: int, frame: object) -> None:
        """The handler of both signals."""
        if self.came:
            self.end()
        self.came = number
        raise KeyboardInterrupt

    @property
    def code(self) -> int:
        """The exit code."""
        return TERMINATED if self.came == signal.SIGTERM else INTERRUPTED

    @property
    def line(self) -> str:
        """What is said."""
        return "rt2: terminated" if self.came == signal.SIGTERM else "rt2: interrupted"

    def tell(self) -> int:
        """Prints the line once; the exit code."""
        if not self.told:
            self.told = True
            _print(self.line)
        return self.code

    def end(self) -> None:
        """Ends the process here and now."""
        if not self.told:
            self.told = True
            with contextlib.suppress(OSError):
                os.write(2, f"{self.line}\n".encode())
        os._exit(self.code)


def main(argv: Sequence[str] | None = None, interrupts: _Interrupts | None = None) -> int:
    """See `rt2_jax.cli.main`."""
    interrupts = interrupts or _Interrupts()
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return interrupts.tell()
    except Exception as error:
        if interrupts.came:
            return interrupts.tell()
        if isinstance(error, BrokenPipeError):
            return BROKEN_PIPE
        line = _users_fault(error)
        if line is None:
            raise
        _print(f"rt2: error: {line}")
        return WRONG


def entry() -> int:
    """See `rt2_jax.cli.entry`."""
    code = 0

    def leave() -> None:
        if code:
            os._exit(code)

    # Registered first, so called last. What was cut short may still run on XLA's threads, under which Python must not
    # be taken apart (a segmentation fault); and a KeyboardInterrupt that was once inside an exec() of a string, as in
    # dataclasses, would have `python -m` end by SIGINT.
    atexit.register(leave)
    interrupts = _Interrupts()
    for number in (signal.SIGINT, signal.SIGTERM):
        # A shell's background job ignores Ctrl-C, and must go on doing so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupts)
    # Where Python cannot raise (in __del__, in a callback), it would print a traceback and go on.
    usual, shown = sys.unraisablehook, sys.excepthook

    def unraisable(what: Any) -> None:
        if what.exc_type is KeyboardInterrupt:
            interrupts.end()
        if not _is_echo(what.exc_value):
            usual(what)

    sys.unraisablehook = unraisable
    # numpy's C code prints what interrupts its import.
    sys.excepthook = lambda *error: interrupts.end() if interrupts.came else shown(*error)
    _say_notes_plainly()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 is no reason to fail
    try:
        code = main(None, interrupts)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        code = interrupts.tell()
    except BaseException as error:
        code = interrupts.tell() if interrupts.came else _internal_error(error)
    for number in (signal.SIGINT, signal.SIGTERM):  # all is done; leaving takes a while and says nothing
        signal.signal(number, signal.SIG_IGN)
    code = _flush(code)
    return code


def _is_echo(error: BaseException | None) -> bool:
    """Whether TensorStore found an event loop closed that Orbax had left at an earlier error."""
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def _say_notes_plainly() -> None:
    """Our warnings are told as the command's own notes, not with a logger's name before them."""
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("rt2: note: %(message)s"))
    ours = logging.getLogger("rt2_jax")
    ours.addHandler(handler)
    ours.propagate = False


def _run(argv: Sequence[str] | None) -> int:
    import logging
    import warnings

    from rt2_jax.cli.command_line import parse

    arguments = parse(argv)
    # Orbax warns of optional metadata that our params-only folders do not have, and logs the tracebacks of errors that
    # it raises as well, which are told in a line; asyncio those of its tasks that nobody awaited by then.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # What it had begun beside the write that failed.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    try:
        return arguments.run(arguments) or 0
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # rich's answer to it
            return BROKEN_PIPE
        # A config or a module of the user's.
        raise UserError(f"{_where(stop)} called exit({stop.code!r}) before the work was done; take that out") from stop


def _users_fault(error: Exception) -> str | None:
    """What to tell of an error that is the user's to fix; None for others."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        named = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        reason = error.strerror or os.strerror(error.errno)
        return f"{named or 'the system'}: {reason}; {_FIXES.get(error.errno, 'choose another path')}"
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in _EXTRAS.items() if name in packages), None)
        return extra and f"this needs {name}, which is not installed; pip install 'rt2_jax[{extra}]'"
    if isinstance(error, FloatingPointError):  # a model whose output means nothing
        return f"{error}; its weights are damaged or diverged: use another checkpoint"
    if isinstance(error, MemoryError):
        return f"no memory left ({error or 'MemoryError'}); ask for less at once, or take a larger machine"
    if isinstance(error, RecursionError):
        return f"{_where(error)}: nested too deeply ({error}); give something flatter"
    return None


_FIXES = {
    errno.EACCES: "allow it, or choose another path",
    errno.EPERM: "allow it, or choose another path",
    errno.ENOSPC: "free space, or choose another path",
    errno.EDQUOT: "free space, or choose another path",
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENOENT: "name one that exists",
}
# Which extra of setup.py brings a package; `rt2 convert` and TensorBoard name theirs themselves.
_EXTRAS = {
    "data": ("seqio", "tensorflow", "tensorflow_datasets"),
    "serve": ("aiohttp", "prometheus_client", "websockets"),
    "sim": ("gymnasium", "mujoco"),
}


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "something" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _internal_error(error: BaseException) -> int:
    import tempfile
    import traceback

    from rt2_jax import __version__

    try:
        handle, name = tempfile.mkstemp(prefix="rt2-error-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"rt2 {__version__}, Python {sys.version}\n{sys.argv}\n\n")
            traceback.print_exception(error, file=file)
        where = f"the traceback is in {name}"
    except OSError as refused:
        where = f"the traceback could not be written ({refused.strerror})"
    _print(f"rt2: internal error: {type(error).__name__}: {first_line(error, 300)}; {where}; please report it")
    return INTERNAL


def _flush(code: int) -> int:
    for stream in _streams():
        try:
            stream.flush()
        except OSError as error:
            if stream is sys.stdout and not isinstance(error, BrokenPipeError) and code == 0:
                _print(f"rt2: error: standard output: {error.strerror}; the output is not whole")
                code = WRONG
            elif stream is sys.stdout and code == 0:
                code = BROKEN_PIPE
            # The interpreter flushes once more when it ends, and would complain.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def _streams() -> Iterator:
    return (stream for stream in (sys.stdout, sys.stderr) if stream is not None)


def _print(line: str) -> None:
    line = " ".join(part.strip() for part in line.splitlines())
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(line if len(line) <= _LINE else line[:_LINE] + "...", file=sys.stderr, flush=True)
