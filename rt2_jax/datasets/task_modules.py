"""A user's own modules that register tasks: whatever they do wrong is told in one line."""

import importlib
import pathlib

from rt2_jax.errors import UserError, first_line
from rt2_jax.tokens.vocabulary import Vocabulary


def registered_by(module: str, data_dir: pathlib.Path, vocabulary: Vocabulary) -> list[str]:
    """The names of the tasks that the module's ``register(data_dir, vocabulary)`` registers; None counts as none.

    Raises:
        UserError: it cannot be imported, has no such function, or either raises anything or returns no names.
    """
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"task module {module!r} cannot be imported ({error}); put it on PYTHONPATH") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"task module {module!r} cannot be imported ({_told(error)}); fix it") from error
    if not callable(getattr(imported, "register", None)):
        raise UserError(f"task module {module!r} has no register(data_dir, vocabulary); define it")
    try:
        names = imported.register(data_dir, vocabulary)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"task module {module!r}: register raised {_told(error)}; fix it") from error
    names = [] if names is None else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"task module {module!r}: register returned {str(names)[:80]!r}, needs a list of task names; fix it"
        )
    return list(names)


def _told(error: BaseException) -> str:
    """The type and first line of an error, and the line of the user's code that it came from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = "" if trace is None else trace.tb_frame.f_code.co_filename
    where = f" at {name}:{trace.tb_lineno}" if name and not name.startswith("<") else ""
    return f"{type(error).__name__}: {first_line(error)}{where}"
