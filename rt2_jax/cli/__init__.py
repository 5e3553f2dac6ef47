"""The command ``rt2``: data, convert, train, eval, sample, serve, export, sizes.

``entry`` is what the shell starts, ``main`` what a program or a test calls. This module imports next to nothing, so
that `entry` answers to Ctrl-C from its first moment, the imports of a verb included.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `entry` answers to Ctrl-C before anything else is imported
    import argparse

# Exit codes: the shell's 128 + a signal's number, and sysexits' EX_SOFTWARE for a defect of ours.
WRONG = 2
INTERNAL = 70
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143


def main(argv: list[str] | None = None) -> int:
    """Runs one command line (a list of words; None: this process's own).

    Returns:
        The exit code: 0 on success, 2 for what the user can fix, 130 when interrupted, 141 when the reader of its
        output went away, 143 after SIGTERM.

    Raises:
        SystemExit: help was asked for (0) or an argument is wrong (2).
        Exception: a defect of ours.
    """
    from rt2_jax.cli import door

    return door.main(argv)


def entry() -> int:
    """The console script: `main`, with Ctrl-C and SIGTERM told in one line, and a log file for a defect of ours."""
    try:
        from rt2_jax.cli import door

        return door.entry()
    except KeyboardInterrupt:  # before the door's own handler stood
        os.write(2, b"rt2: interrupted\n")
        os._exit(INTERRUPTED)


def build_parser() -> "argparse.ArgumentParser":
    """The whole command line as an ``argparse.ArgumentParser``, its help included."""
    from rt2_jax.cli.command_line import build_parser

    return build_parser()
