"""A bundle with int8 weights: a quarter of the bytes, loaded as int8, and it acts."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.bundle.store import cast_bundle, load_bundle, quantize_bundle, save_bundle
from rt2_jax.cli import main
from rt2_jax.errors import UserError
from rt2_jax.policy.load import make_policy

SHIPPED = pathlib.Path(__file__).parents[2] / "data" / "checkpoints" / "tabletop_rt2"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The shipped policy with int8 weights, by the command."""
    out = tmp_path_factory.mktemp("int8") / "bundle"
    assert main(["export", "--checkpoint", str(SHIPPED), "--quantize", "int8", "--out", str(out)]) == 0
    return out


def test_it_loads_as_it_was_quantised(exported):
    wanted, found = quantize_bundle(load_bundle(SHIPPED)), load_bundle(exported)
    assert found.spec.model == wanted.spec.model and found.spec.model.quantized == "int8"
    assert jax.tree.structure(found.params) == jax.tree.structure(wanted.params)
    for one, other in zip(jax.tree.leaves(found.params), jax.tree.leaves(wanted.params), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert sum(leaf.size for leaf in jax.tree.leaves(found.params) if leaf.dtype == jnp.int8) > 1.9e6
    size = sum(file.stat().st_size for file in (exported / "params").rglob("*") if file.is_file())
    before = sum(leaf.nbytes for leaf in jax.tree.leaves(load_bundle(SHIPPED).params))
    assert size < 0.33 * before
    assert {"model_card.json", "model_card.md"} <= {path.name for path in exported.iterdir()}


def test_it_acts(exported, fakes):
    policy = make_policy(load_bundle(exported))
    output = policy.act(np.full((1, 96, 96, 3), 128, np.uint8), ["pick red cube"])
    assert output.actions.shape == (1, 8) and np.isfinite(output.logprob).all()


def test_what_int8_weights_are_no_use_for_is_refused(exported, tmp_path, capsys):
    for arguments, said in (
        (["--quantize", "int8"], "int8 already"),
        (["--dtype", "bfloat16"], "have no other dtype"),
        (["--format", "t5x"], "has int8 weights"),
    ):
        assert main(["export", "--checkpoint", str(exported), "--out", str(tmp_path / "out"), *arguments]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(UserError, match="dtype 'int4' is unknown"):
        cast_bundle(load_bundle(SHIPPED), "int4")


def test_a_copy_keeps_its_bytes(exported, tmp_path):
    bundle = load_bundle(exported)
    save_bundle(tmp_path / "copy", bundle.params, bundle.spec, bundle.vocabulary)
    copied = load_bundle(tmp_path / "copy")
    assert all(map(np.array_equal, jax.tree.leaves(copied.params), jax.tree.leaves(bundle.params)))
