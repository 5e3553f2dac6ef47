"""Device mesh and logical axis rules."""

from rt2_jax.parallel.mesh import MESH_AXES, make_mesh
from rt2_jax.parallel.rules import LOGICAL_RULES, batch_sharding, constrain, partitioned, replicated, shardings

__all__ = [
    "LOGICAL_RULES",
    "MESH_AXES",
    "batch_sharding",
    "constrain",
    "make_mesh",
    "partitioned",
    "replicated",
    "shardings",
]
