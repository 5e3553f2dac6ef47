"""One attempt: a command on damaged input, in this process, judged by what is left of it."""

import contextlib
import dataclasses
import os
import pathlib
import signal

from rt2_jax.cli import main

LIMIT = 180  # seconds; whatever takes longer waits for something that never comes


@dataclasses.dataclass(frozen=True)
class Ran:
    """How a command ended; `raised` is an exception that left it, which a user would see as a traceback."""

    code: int
    out: str
    err: str
    raised: str = ""


def run_main(arguments, capfd):
    """Runs ``rt2 ARGUMENTS`` here."""
    capfd.readouterr()
    code, raised = -1, ""
    with time_limit():
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else -1
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"[:300]
    out, err = capfd.readouterr()
    return Ran(code, out, err, raised)


@contextlib.contextmanager
def time_limit():
    """Ends what waits for ever: a pipe that nobody writes to, a run of 2**31 steps."""

    def late(*_):
        raise AssertionError(f"nothing came of it in {LIMIT} s")

    usual = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, usual)


def snapshot(root):
    """Everything below a folder: path -> size and time of a file, the target of a link, None for a folder.

    What Python keeps of a config that it has run is its own.
    """
    found = {}
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in [*folders, *files]:
            path = pathlib.Path(parent, name)
            status = path.lstat()
            if path.is_symlink():
                found[path] = os.readlink(path)
            else:
                found[path] = None if path.is_dir() else (status.st_size, status.st_mtime_ns)
    return found


def fault_of(ran, before, after, may_pass=False):
    """What is wrong with the end of a command on wrong input, or None.

    Args:
        ran: how it ended.
        before, after: `snapshot` of all that it could reach.
        may_pass: the input may be right all the same.
    """
    if ran.raised:
        return f"raised {ran.raised}"
    if "Traceback" in ran.out + ran.err:
        return "a traceback"
    if ran.code == 0 and may_pass:
        return None
    if ran.code != 2:
        return f"code {ran.code}"
    # A bar that stands where the work broke off is none of the error's lines.
    lines = [line for line in ran.err.strip().split("\n") if "\u2501" not in line]
    if len(lines) != 1 or "error: " not in lines[0]:
        return f"{len(lines)} lines: {ran.err[:300]!r}"
    changed = sorted(str(path) for path in {*before, *after} if before.get(path, 0) != after.get(path, 0))
    return f"changed or left behind: {changed[:3]}" if changed else None
