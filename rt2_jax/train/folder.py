"""A run's folder: checked before any work, owned by one run at a time, and gone again when nothing came of it."""

import contextlib
import os
import pathlib
from types import TracebackType

from rt2_jax.errors import UserError
from rt2_jax.files.owner import Owner
from rt2_jax.files.writing import check_not_inside_sealed, home_folder, write_error
from rt2_jax.train.hosts import agree, is_first
from rt2_jax.typed import shown_path

OWNER_FILE = ".rt2-owner"


def find_folder(workdir: str | pathlib.Path) -> pathlib.Path:
    """The absolute path of a run's folder, links followed.

    Raises:
        UserError: it is a file, lies below one, is the home or the root, is or lies in a sealed folder, or has a name
            that no file can have.
    """
    where = f"workdir {shown_path(workdir)}"
    try:
        path = pathlib.Path(workdir).resolve()
        blocked = next((part for part in (path, *path.parents) if os.path.lexists(part) and not part.is_dir()), None)
        if blocked == path:
            raise UserError(f"{where} is no folder; name one, or one that does not exist yet")
        if blocked:
            raise UserError(f"{where} lies below {blocked}, which is no folder; name another")
        if path in (home_folder(), pathlib.Path(path.anchor)):
            raise UserError(f"{where} is the {'root' if path == path.parent else 'home'}; name a folder of its own")
        check_not_inside_sealed(path / OWNER_FILE, where)
        path.exists()  # raises for a name that no file can have
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
        raise write_error(pathlib.Path(shown_path(workdir)), error) from error
    return path


class RunFolder:
    """Makes a run's folder and owns it; use it in a ``with`` statement, on all hosts.

    Args:
        path: of `find_folder`.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._owner: Owner | None = None
        self._made: list[pathlib.Path] = []

    def __enter__(self) -> "RunFolder":
        """Takes the folder.

        Raises:
            UserError: another run has it, or it cannot be written; on all hosts alike.
        """
        problem = self._take() if is_first() else None
        problem = agree(problem)
        if problem is not None:
            self.release()
            raise UserError(problem)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def check(self) -> None:
        """Raises a UserError, on all hosts alike, when another run has taken the folder over."""
        problem = None
        try:
            if self._owner:
                self._owner.check()
        except UserError as error:
            problem = str(error)
        problem = agree(problem)
        if problem is not None:
            raise UserError(problem)

    def release(self) -> None:
        """Gives the folder up, and removes it and its parents where they are new and empty."""
        owner, self._owner = self._owner, None
        if owner:
            owner.__exit__(None, None, None)
        with contextlib.suppress(OSError):
            for path in self._made:
                path.rmdir()

    def _take(self) -> str | None:
        """What went wrong, for the other hosts to be told."""
        try:
            self._made = [path for path in (self.path, *self.path.parents) if not path.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            owner = Owner(self.path / OWNER_FILE, f"run {self.path}")
            owner.__enter__()
            self._owner = owner
        except OSError as error:
            return str(write_error(self.path, error))
        except UserError as error:
            return str(error)
        return None
