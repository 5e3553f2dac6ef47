"""What every verb's parser is made with."""

import argparse
import os
import pathlib
from collections.abc import Callable
from typing import Any


def add_verb(verbs: Any, name: str, run: Callable, help_line: str, description: str) -> argparse.ArgumentParser:
    """A verb whose `run` takes the parsed arguments; its help opens with the line that its parent shows."""
    parser = verbs.add_parser(
        name,
        help=help_line,
        description=f"{help_line[0].upper()}{help_line[1:]}.\n\n{description}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def path(text: str) -> pathlib.Path:
    """A path, with ~ for the home directory."""
    return pathlib.Path(text).expanduser()


def names(text: str) -> list[str]:
    """The names of a comma-separated list."""
    return [name for name in text.split(",") if name]


def quiet_tensorflow() -> None:
    """Data work is the CPU's: TensorFlow must neither take an accelerator nor tell us that it found none."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
