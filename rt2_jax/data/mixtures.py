"""Mixtures as training reads them: task -> weight, recorded beside the prepared data. No TensorFlow.

Layout: ``<data_dir>/prepared/mixtures/<name>/`` holds ``mixture.json`` and the ``manifest.json`` that seals it.
"""

import contextlib
import dataclasses
import json
import pathlib
import re
import shlex
from typing import Annotated

import msgspec

from rt2_jax.data.schedule import MAX_WEIGHT
from rt2_jax.data.sealed import is_there, read_sealed
from rt2_jax.errors import UserError
from rt2_jax.files.writing import clear_leftovers, whole_folder
from rt2_jax.typed import build, check_fields, shown

FORMAT = 1
KIND = "mixture"
FILE_NAME = "mixture.json"
# The folder below ``prepared``; no task may have this name.
FOLDER = "mixtures"
Weight = Annotated[float, msgspec.Meta(gt=0.0, le=MAX_WEIGHT)]
# What seqio allows in names, and a file system in one of a folder.
_NAME = re.compile(r"[\w.:#]{1,200}")


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What ``mixture.json`` says.

    Attributes:
        name: of the mixture.
        weights: task -> weight, in the order that gives tasks their ids; the sum is not one in general.

    Raises:
        UserError: no task, or a weight that is not above 0.
    """

    name: str
    weights: dict[str, Weight]

    def __post_init__(self) -> None:
        check_fields(self, f"mixture {shown(self.name)}")
        if not self.weights:
            raise UserError(f"mixture {shown(self.name)} has no task; give it one")


def record_mixture(data_dir: str | pathlib.Path, mixture: Mixture) -> None:
    """Writes a mixture's weights beside the data, whole or not at all, in the place of what was recorded by its name.

    Raises:
        UserError: a name that no folder can have, or what `whole_folder` refuses.
    """
    if not _is_name(mixture.name):
        raise UserError(f"mixture {shown(mixture.name)}: a name has letters, digits, '_', '.', ':' or '#'; rename it")
    folder = _folder(data_dir, mixture.name)
    if _is_recorded(data_dir, mixture.name):
        # One that is damaged is written anew.
        with contextlib.suppress(UserError):
            if list(read_mixture(data_dir, mixture.name).items()) == list(mixture.weights.items()):
                clear_leftovers(folder, KIND)
                return
    tree = {"format": FORMAT, **dataclasses.asdict(mixture)}
    with whole_folder(folder, KIND, overwrite=True) as partial:
        (partial / FILE_NAME).write_text(json.dumps(tree, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_mixture(data_dir: str | pathlib.Path, name: str) -> dict[str, float]:
    """Task -> weight of a mixture that `rt2 data prepare` recorded.

    Raises:
        UserError: it is not recorded, or its record is damaged; names the recorded ones and the command.
    """
    command = shlex.join(["rt2", "data", "prepare", "--data", str(data_dir), "--mixture", name[:200]])
    fix = f"run `{command}`, with the --task-modules that register it, if any"
    if not _is_recorded(data_dir, name):
        known = ", ".join(recorded_mixtures(data_dir)) or "none"
        raise UserError(f"mixture {shown(name)} is not recorded in {data_dir} (recorded: {known}); {fix}")
    folder = _folder(data_dir, name)
    fields = read_sealed(folder, KIND, FILE_NAME, FORMAT, fix)
    try:
        mixture = build(Mixture, fields, str(folder / FILE_NAME))
    except UserError as error:
        raise UserError(f"{error}; {fix}") from error
    if mixture.name != name:
        raise UserError(f"{folder / FILE_NAME} describes mixture {shown(mixture.name)}; {fix}")
    return mixture.weights


def recorded_mixtures(data_dir: str | pathlib.Path) -> tuple[str, ...]:
    """Names of the mixtures that are recorded beside the data, sorted."""
    found = [path.parent.name for path in (pathlib.Path(data_dir) / "prepared" / FOLDER).glob(f"*/{FILE_NAME}")]
    return tuple(sorted(name for name in found if not name.startswith(".")))


def _is_recorded(data_dir: str | pathlib.Path, name: str) -> bool:
    return _is_name(name) and is_there(_folder(data_dir, name), FILE_NAME)


def _is_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and not name.startswith(".")


def _folder(data_dir: str | pathlib.Path, name: str) -> pathlib.Path:
    return pathlib.Path(data_dir) / "prepared" / FOLDER / name
