"""Modules of a user's own, named on the command line: whatever they do wrong is told in one line."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from rt2_jax.errors import UserError, first_line


def import_user_module(module: str, what: str) -> ModuleType:
    """The module of that name.

    Args:
        module: its dotted name.
        what: what it is, for messages: "task module".

    Raises:
        UserError: it is not there, or importing it raises anything.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"{what} {module!r} cannot be imported ({error}); put it on PYTHONPATH") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{what} {module!r} cannot be imported ({told(error)}); fix it") from error


def call_user_code(where: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function(*arguments)`` returns; `where` says in messages what it is.

    Raises:
        UserError: what it raises, whatever that is.
    """
    try:
        return function(*arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{where} raised {told(error)}; fix it") from error


def told(error: BaseException) -> str:
    """The type and first line of an error, and the line of the user's code that it came from."""
    said = first_line(error) if str(error).strip() else "no message"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        name = trace.tb_frame.f_code.co_filename
        where = f" at {name}:{trace.tb_lineno}" if name and not name.startswith("<") else ""
    return f"{type(error).__name__}: {said}{where}"
