"""Parameters in Orbax's folders: their shapes, their bytes, and reading them where they are wanted."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from rt2_jax.errors import UserError, first_line


def restore_params(path: pathlib.Path, abstract: Any) -> Any:
    """The parameters of an Orbax folder.

    Args:
        path: the folder.
        abstract: tree of ShapeDtypeStructs with shardings; what is stored in another dtype is converted.

    Raises:
        UserError: other names or shapes than `abstract`'s, or unreadable data.
    """
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.metadata(path.resolve()).item_metadata.tree
            check_shapes(stored, abstract, str(path), "model")
            return checkpointer.restore(path.resolve(), abstract)
    except UserError:
        raise
    except Exception as error:  # Orbax raises the bare class for data that does not decode.
        raise UserError(f"weights in {path} cannot be read ({first_line(error)}); copy or export them again") from error


def check_shapes(stored: Any, wanted: Any, where: str, what: str) -> None:
    """Compares two trees of shapes; `where` the first lies, and `what` of the config decides over the second.

    Raises:
        UserError: names the first parameter that is missing, left over or of another shape.
    """
    stored, wanted = _shapes(stored), _shapes(wanted)
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise UserError(
                f"{where}: {name} has shape {stored.get(name, 'none')}, this {what} needs {wanted.get(name, 'none')}; "
                f"use the {what} that it was trained with"
            )


def tree_bytes(arrays: Any) -> int:
    """Bytes of a tree's arrays, whole and once: several hosts write their shards to one folder."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
    # Orbax stores a marker without a shape for an empty node.
    return {name: tuple(leaf.shape) for name, leaf in named if hasattr(leaf, "shape")}
