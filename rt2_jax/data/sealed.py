"""A sealed folder that one JSON file describes: prepared splits, their frames, recorded mixtures. No TensorFlow."""

import pathlib
from typing import Any

from rt2_jax.errors import UserError
from rt2_jax.files.manifest import MANIFEST_NAME, find_damage, read_manifest, told
from rt2_jax.typed import read_json, shown


def is_there(folder: pathlib.Path, name: str) -> bool:
    """Whether a folder is of the kind that the file `name` describes, whole or damaged."""
    return (folder / name).is_file() or (folder / MANIFEST_NAME).is_file()


def read_sealed(folder: pathlib.Path, kind: str, name: str, version: int, fix: str) -> dict[str, Any]:
    """The fields of a sealed folder's describing file, without its format, once its bytes are those that were sealed.

    Of the folder's other files names and sizes are compared.

    Args:
        folder: of `kind`.
        kind: what it is sealed as.
        name: the file that describes it.
        version: its format in this release.
        fix: what makes the folder anew, for the message.

    Raises:
        UserError: it is not whole, damaged, or of another format.
    """
    damage = _why_damaged(folder, kind, name)
    if damage:
        raise UserError(f"{folder}: {damage}; {fix}")
    fields = read_json(folder / name, fix=fix)
    found = fields.pop("format", None)
    if type(found) is not int or found != version:
        raise UserError(f"{folder / name}: format {shown(found)}, this release reads {version}; {fix}")
    return fields


def _why_damaged(folder: pathlib.Path, kind: str, name: str) -> str | None:
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            return f"prepared by an earlier release or damaged (no {MANIFEST_NAME})"
        if manifest.kind != kind or name not in manifest.files:
            return f"it is sealed as {told(manifest)}, not as {kind}"
        return find_damage(folder, manifest, [name])
    except UserError:
        return f"{MANIFEST_NAME} is damaged"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
