"""The device mesh: four named axes over the chips of one or several slices."""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from rt2_jax.errors import UserError

# Outermost first: the slow network between slices carries only "slice"; "tensor" has the nearest neighbours.
MESH_AXES = ("slice", "data", "fsdp", "tensor")


def mesh_sizes(shape: Mapping[str, int] | None, num_devices: int) -> tuple[int, ...]:
    """Sizes of MESH_AXES for ``num_devices`` devices.

    Args:
      shape: axis name to size; absent axes are 1 and one axis may be -1 (what is left). None puts every device on
        "fsdp", which holds the largest model and is the plain data parallelism's equal in arithmetic.
      num_devices: devices to cover, all of them.

    Raises:
      UserError: an unknown axis, a size that is no size, or a product that is not ``num_devices``.
    """
    shape = {"fsdp": -1} if shape is None else dict(shape)
    unknown = sorted(set(shape) - set(MESH_AXES))
    if unknown:
        raise UserError(f"mesh axis {unknown[0]!r} is unknown; the axes are {', '.join(MESH_AXES)}")
    sizes = [shape.get(axis, 1) for axis in MESH_AXES]
    if any(not isinstance(size, int) or (size < 1 and size != -1) for size in sizes) or sizes.count(-1) > 1:
        raise UserError(f"mesh {_show(shape)}: every size must be a positive integer, and one may be -1 (what is left)")
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if num_devices % known:
            raise UserError(
                f"mesh {_show(shape)}: {known} does not divide the {num_devices} devices; choose sizes that do"
            )
        sizes[sizes.index(-1)] = num_devices // known
    elif known != num_devices:
        raise UserError(
            f"mesh {_show(shape)} needs {known} devices and there are {num_devices}; "
            "change a size, or give one axis as -1"
        )
    return tuple(sizes)


def make_mesh(shape: Mapping[str, int] | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with axes MESH_AXES (Auto axis types) over ``devices`` (all devices when None).

    The "slice" axis follows the slices of a multi-slice TPU job; devices without slices (CPU, GPU, one TPU slice) are
    cut into equal runs in the order given. See `mesh_sizes` for ``shape`` and the errors.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = mesh_sizes(shape, len(devices))
    slices = {getattr(device, "slice_index", 0) for device in devices}
    if len(slices) > 1:
        if sizes[0] != len(slices):
            raise UserError(f"mesh axis slice is {sizes[0]} but the devices lie in {len(slices)} slices; make it that")
        grid = mesh_utils.create_hybrid_device_mesh((1, *sizes[1:]), (sizes[0], 1, 1, 1), devices)
    elif sizes[0] > 1:
        grid = np.asarray(devices).reshape(sizes)
    else:
        grid = mesh_utils.create_device_mesh(sizes, devices)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _show(shape: Mapping[str, int]) -> str:
    return "x".join(f"{axis}={size}" for axis, size in shape.items())
