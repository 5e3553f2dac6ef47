"""A user's own modules that register tasks: whatever they do wrong is told in one line."""

import pathlib

from rt2_jax.errors import UserError
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.user_modules import call_user_code, import_user_module


def registered_by(module: str, data_dir: pathlib.Path, vocabulary: Vocabulary) -> list[str]:
    """The names of the tasks that the module's ``register(data_dir, vocabulary)`` registers; None counts as none.

    Raises:
        UserError: it cannot be imported, has no such function, or either raises anything or returns no names.
    """
    imported = import_user_module(module, "task module")
    if not callable(getattr(imported, "register", None)):
        raise UserError(f"task module {module!r} has no register(data_dir, vocabulary); define it")
    names = call_user_code(f"task module {module!r}: register", imported.register, data_dir, vocabulary)
    names = [] if names is None else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"task module {module!r}: register returned {str(names)[:80]!r}, needs a list of task names; fix it"
        )
    return list(names)
