"""Freezes the names, shapes and logical axes of a checkpoint.

After a change that is meant, and that the converters and `docs` follow, write the file anew:

    python tests/models/test_models_golden.py
"""

import json
import pathlib

import jax

from rt2_jax.models import get_config, make_backbone
from rt2_jax.parallel import LOGICAL_RULES
from rt2_jax.parallel.rules import is_axes

GOLDEN = pathlib.Path(__file__).with_name("golden_tiny.json")


def describe() -> dict[str, list]:
    backbone = make_backbone(get_config("tiny"))
    shapes = jax.tree_util.tree_leaves_with_path(jax.eval_shape(backbone.init, jax.random.key(0)))
    axes = jax.tree_util.tree_leaves_with_path(backbone.logical_axes(), is_leaf=is_axes)
    tree = {}
    for (path, array), (axes_path, names) in zip(shapes, axes, strict=True):
        assert path == axes_path
        tree[jax.tree_util.keystr(path, simple=True, separator="/")] = [
            str(array.dtype),
            list(array.shape),
            list(names),
        ]
    return tree


def test_checkpoint_names_are_frozen():
    assert describe() == json.loads(GOLDEN.read_text())


def test_every_axis_is_named_by_the_table():
    for path, (_, shape, names) in describe().items():
        assert len(names) == len(shape), path
        assert all(name in LOGICAL_RULES for name in names), path
        assert ("layers" in names) == ("/blocks/" in path), path


if __name__ == "__main__":
    rows = (f"{json.dumps(path)}: {json.dumps(value)}" for path, value in describe().items())
    GOLDEN.write_text("{\n" + ",\n".join(rows) + "\n}\n")
