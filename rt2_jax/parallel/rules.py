"""One table from logical axis names to mesh axes, and what follows from it: shardings and activation constraints.

A parameter's axes are named by what they are ("embed", "heads"), an activation's with the prefix "activation_", for one
dimension is laid out differently in the two: fsdp cuts parameters along "embed" and activations along the batch.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rt2_jax.errors import UserError

BATCH_AXES = ("slice", "data", "fsdp")

LOGICAL_RULES: dict[str, tuple[str, ...]] = {
    # parameters
    "layers": (),
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "norm": (),
    "patch": (),
    "stem": (),
    "position": (),
    "relative_buckets": (),
    "lora_rank": (),
    # activations
    "activation_batch": BATCH_AXES,
    "activation_length": (),
    "activation_embed": (),
    "activation_heads": ("tensor",),
    "activation_head_dim": (),
    "activation_mlp": ("tensor",),
    "activation_vocab": ("tensor",),
}

# Parameter axes that stay whole where the mesh does not divide them: a multi-query model has one head to cut.
WHOLE_IF_UNEVEN = frozenset({"kv_heads"})


def mesh_axes(name: str | None) -> tuple[str, ...]:
    """Mesh axes that the logical axis ``name`` is cut over; KeyError for a name the table lacks."""
    return () if name is None else LOGICAL_RULES[name]


def partition_spec(axes: tuple[str | None, ...], mesh: Any) -> PartitionSpec:
    """The PartitionSpec of an array whose dimensions carry the names ``axes``; mesh axes of size 1 are left out."""
    return PartitionSpec(*(_entry(a for a in mesh_axes(name) if mesh.shape.get(a, 1) > 1) for name in axes))


def shardings(logical_axes: Any, mesh: Mesh, shapes: Any = None) -> Any:
    """Tree of NamedSharding for a tree of tuples of logical axis names.

    Args:
      logical_axes: tree whose leaves are tuples of names, as `Backbone.logical_axes` gives it.
      mesh: the device mesh.
      shapes: tree of the same structure with `.shape` leaves. With it every cut is checked to be even, and the axes
        that may stay whole (`WHOLE_IF_UNEVEN`) do so where it is not.

    Raises:
      UserError: ``shapes`` holds a dimension that its mesh axes do not divide.
    """

    def one(path: tuple[Any, ...], axes: tuple[str | None, ...], array: Any = None) -> NamedSharding:
        spec = list(partition_spec(axes, mesh))
        for i, (size, name) in enumerate(zip(array.shape, axes, strict=True) if array is not None else ()):
            parts = _parts(spec[i], mesh)
            if size % parts and name in WHOLE_IF_UNEVEN:
                spec[i] = None
            elif size % parts:
                raise UserError(
                    f"parameter {jax.tree_util.keystr(path, simple=True, separator='/')}: axis {name} has size {size}, "
                    f"which mesh axes {spec[i]} of size {parts} do not divide; make them smaller"
                )
        return NamedSharding(mesh, PartitionSpec(*spec))

    trees = (logical_axes,) if shapes is None else (logical_axes, shapes)
    return jax.tree_util.tree_map_with_path(one, *trees, is_leaf=is_axes)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of anything whose first dimension is the global batch: over slice, data and fsdp."""
    return NamedSharding(mesh, partition_spec(("activation_batch",), mesh))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


@contextlib.contextmanager
def partitioned(mesh: Mesh) -> Iterator[Mesh]:
    """Makes ``mesh`` the one that `constrain` acts on; trace (first call) jitted functions inside it.

    A plain ``with mesh:`` would leave every constraint out of the program without a word, hence this one door.
    """
    with jax.set_mesh(mesh):
        yield mesh


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """``x`` with a sharding constraint by logical axis names; ``x`` itself when no mesh is set or nothing is cut.

    Activations have sizes that come with the request (one robot's frame on a mesh of eight): a dimension keeps only the
    leading mesh axes that divide it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    auto = {name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Auto}
    entries = []
    for size, name in zip(x.shape, axes, strict=True):
        kept, parts = [], 1
        for axis in mesh_axes(name):
            if axis not in auto or mesh.shape[axis] == 1:
                continue
            if size % (parts * mesh.shape[axis]):
                break
            kept.append(axis)
            parts *= mesh.shape[axis]
        entries.append(_entry(kept))
    if all(entry is None for entry in entries) and all(size == 1 for size in mesh.shape.values()):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*entries))


def kernel_sides(names: tuple[str | None, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The dimensions of a kernel that its input has, and those that its output has, by their places in ``names``.

    ("layers", "heads", "head_dim", "embed") gives (1, 2), (3,): every layer of a stack is a kernel of its own.
    """
    own = [axis for axis, name in enumerate(names) if name != "layers"]
    inputs = 2 if names[own[0]] == "heads" else 1
    return tuple(own[:inputs]), tuple(own[inputs:])


def is_axes(node: Any) -> bool:
    """True for a leaf of a tree of logical axes: a tuple of names."""
    return isinstance(node, tuple) and all(entry is None or isinstance(entry, str) for entry in node)


def _entry(axes: Iterable[str]) -> str | tuple[str, ...] | None:
    axes = tuple(axes)
    return None if not axes else axes[0] if len(axes) == 1 else axes


def _parts(entry: str | tuple[str, ...] | None, mesh: Mesh) -> int:
    return 1 if entry is None else math.prod(mesh.shape[a] for a in ((entry,) if isinstance(entry, str) else entry))
