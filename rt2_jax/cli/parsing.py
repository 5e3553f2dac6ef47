"""What every verb's parser is made with, and the types that refuse a wrong argument before any work."""

import argparse
import contextlib
import dataclasses
import math
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from rt2_jax.errors import UserError

# Linux: bytes of one name, and of a whole path with its closing zero.
MAX_NAME = 255
MAX_PATH = 4095
# jax.random.key keeps 32 bits: a larger seed would be a smaller one's double.
MAX_JAX_SEED = 2**32 - 1
# numpy's SeedSequence takes any; a report's readers take what 64 bits hold.
MAX_SEED = 2**63 - 1
_SHOWN = 60  # characters of a value in a message
_MESSAGE = 400


class Parser(argparse.ArgumentParser):
    """Tells a wrong argument in one line; an option must be written out, so that a new one never changes its sense."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Ends with code 2 and one line that names the fault and where help is."""
        message = " ".join(message.split())
        message = message if len(message) <= _MESSAGE else message[:_MESSAGE] + "..."
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def add_verb(verbs: Any, name: str, run: Callable, help_line: str, description: str) -> argparse.ArgumentParser:
    """A verb whose `run` takes the parsed arguments; its help opens with the line that its parent shows."""
    parser = verbs.add_parser(
        name,
        help=help_line,
        description=f"{help_line[0].upper()}{help_line[1:]}.\n\n{description}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_no_verify(parser: argparse.ArgumentParser) -> None:
    """For the impatient: a checkpoint's bytes taken on trust."""
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="compare names and sizes of the checkpoint's files, not their hashes",
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Replacing a folder that holds something else is asked for by name."""
    parser.add_argument(
        "--overwrite", action="store_true",
        help="replace what OUT holds, whatever it is (never a source, a home, a working directory or a mount)",
    )  # fmt: skip


def told_unverified(arguments: argparse.Namespace) -> None:
    """Says that the checkpoint is taken on trust, where that was asked for."""
    if arguments.no_verify:
        print(f"{arguments.checkpoint}: not verified (--no-verify); a damaged byte would go unnoticed", file=sys.stderr)


@contextlib.contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Import inside it what an extra brings: a package that is not there is told by the extra's name."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"{what} the package {error.name}; pip install 'rt2_jax[{extra}]'") from error


@dataclasses.dataclass(frozen=True)
class Range:
    """The argument type of numbers from `low` to `high`, both included; a help text shows it with ``%(type)s``."""

    kind: type[int] | type[float]
    low: float
    high: float

    def __call__(self, text: str) -> float:
        """The number; argparse tells the error."""
        try:
            value = self.kind(text)
        except (ValueError, OverflowError):
            value = math.nan
        if not self.low <= value <= self.high:
            noun = "whole number" if self.kind is int else "number"
            raise argparse.ArgumentTypeError(f"it is {_shown(text)}; give a {noun}, {self}")
        return value

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


def count(low: int, high: int) -> Range:
    """Whole numbers from `low` to `high`."""
    return Range(int, low, high)


def number(low: float, high: float) -> Range:
    """Finite numbers from `low` to `high`."""
    return Range(float, low, high)


def text(value: str) -> str:
    """Text of at least one word, in UTF-8."""
    if not _is_utf8(value):
        raise argparse.ArgumentTypeError(f"{_shown(value)} is not UTF-8; write it in UTF-8")
    if not value.strip():
        raise argparse.ArgumentTypeError("it is empty; give at least one word")
    return value


def path(value: str) -> pathlib.Path:
    """A path that a file system can hold, with ~ for the home directory."""
    if not value:
        raise argparse.ArgumentTypeError("it is empty; name a file or folder")
    if not _is_utf8(value) or "\0" in value:
        raise argparse.ArgumentTypeError(f"{_shown(value)} is not UTF-8 or holds a zero byte; give it another name")
    try:
        expanded = pathlib.Path(value).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(
            f"{_shown(value)}: nobody of that name has a home; write ./~ for a name that begins with ~"
        ) from error
    longest = max((len(os.fsencode(part)) for part in expanded.parts), default=0)
    if longest > MAX_NAME:
        raise argparse.ArgumentTypeError(f"{_shown(value)} has a name of {longest} bytes; at most {MAX_NAME}")
    whole = len(os.fsencode(expanded))
    if whole > MAX_PATH:
        raise argparse.ArgumentTypeError(f"{_shown(value)} has {whole} bytes; at most {MAX_PATH}")
    return expanded


def names(value: str) -> list[str]:
    """The names of a comma-separated list, each once."""
    found = [text(name).strip() for name in value.split(",") if name.strip()]
    if len(found) != value.count(",") + 1:
        raise argparse.ArgumentTypeError(f"{_shown(value)} holds an empty name; write names with a comma between them")
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise argparse.ArgumentTypeError(f"{_shown(twice[0])} is named twice; name it once")
    return found


def pattern(value: str) -> str:
    """A regular expression."""
    try:
        re.compile(text(value))
    except (re.error, RecursionError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{_shown(value)} is no regular expression ({error})") from error
    return value


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Import inside it what imports TensorFlow, which does the CPU's work here.

    It must neither take an accelerator nor tell us that it found none. What it logs while it is imported heeds no
    setting, so nothing that is written to standard error meanwhile, from C++ either, is seen.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # standard error is closed
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _is_utf8(value: str) -> bool:
    # Bytes of a command line that are not UTF-8 arrive as surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
