"""Mesh sizes and the rule table, on one device."""

import math

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from rt2_jax.errors import UserError
from rt2_jax.parallel import MESH_AXES, constrain, make_mesh, partitioned, shardings
from rt2_jax.parallel.mesh import mesh_sizes
from rt2_jax.parallel.rules import partition_spec


def abstract(**sizes):
    return AbstractMesh(tuple(sizes.get(axis, 1) for axis in MESH_AXES), MESH_AXES)


@given(st.tuples(*[st.integers(1, 4)] * 4), st.integers(0, 3))
def test_a_free_axis_takes_what_is_left(sizes, free):
    shape = dict(zip(MESH_AXES, sizes, strict=True))
    assert mesh_sizes(shape, math.prod(sizes)) == sizes
    assert mesh_sizes({**shape, MESH_AXES[free]: -1}, math.prod(sizes)) == sizes


def test_default_is_fsdp_over_all():
    assert mesh_sizes(None, 6) == (1, 1, 6, 1)
    mesh = make_mesh()
    assert mesh.axis_names == MESH_AXES
    assert mesh.axis_types == (AxisType.Auto,) * 4
    assert mesh.size == len(jax.devices())


@pytest.mark.parametrize(
    "shape, message",
    [
        ({"data": 3}, "data=3 needs 3 devices and there are 8"),
        ({"data": 3, "fsdp": -1}, "3 does not divide the 8 devices"),
        ({"model": 8}, "mesh axis 'model' is unknown; the axes are slice, data, fsdp, tensor"),
        ({"data": 0}, "every size must be a positive integer"),
        ({"data": -1, "fsdp": -1}, "one may be -1"),
        ({"data": 2.0}, "every size must be a positive integer"),
    ],
)
def test_bad_meshes_are_refused_with_the_numbers(shape, message):
    with pytest.raises(UserError, match=message):
        mesh_sizes(shape, 8)


def test_partition_specs_follow_the_table():
    mesh = abstract(slice=2, data=2, fsdp=2, tensor=2)
    assert partition_spec(("layers", "embed", "heads", "head_dim"), mesh) == PartitionSpec(None, "fsdp", "tensor", None)
    assert partition_spec(("activation_batch", None), mesh) == PartitionSpec(("slice", "data", "fsdp"), None)
    assert partition_spec(("embed", "mlp"), abstract(data=8)) == PartitionSpec(None, None)
    with pytest.raises(KeyError):
        partition_spec(("width",), mesh)


def test_uneven_cut_names_the_parameter():
    axes = {"attention": {"kernel": ("embed", "heads")}}
    shapes = {"attention": {"kernel": jax.ShapeDtypeStruct((8, 4), "float32")}}
    with pytest.raises(UserError, match="attention/kernel: axis heads has size 4.*tensor of size 8"):
        shardings(axes, abstract(tensor=8), shapes)
    placed = shardings(axes, abstract(tensor=4, fsdp=2), shapes)
    assert placed["attention"]["kernel"].spec == PartitionSpec("fsdp", "tensor")


def test_without_a_mesh_nothing_is_constrained():
    def count(x):
        return str(jax.make_jaxpr(lambda x: constrain(x, "activation_batch", "activation_embed"))(x)).count(
            "sharding_constr"
        )

    x = jax.numpy.zeros((8, 4))
    assert count(x) == 0
    with partitioned(make_mesh()):
        assert count(x) == (1 if len(jax.devices()) > 1 else 0)
