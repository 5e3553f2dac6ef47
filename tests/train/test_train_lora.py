"""LoRA in a run: adapters train alone, from any start that fits, and go on bit for bit; a bundle can merge them."""

import json

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.bundle.store import load_bundle
from rt2_jax.cli import main
from rt2_jax.errors import UserError
from rt2_jax.models.backbone import make_backbone
from rt2_jax.parallel.mesh import make_mesh
from rt2_jax.parallel.rules import partitioned
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.train.config import OptimizerConfig, make_config
from rt2_jax.train.loop import train
from rt2_jax.train.metrics import read_metrics
from rt2_jax.train.optimizer import make_optimizer
from rt2_jax.train.resolve import model_config
from rt2_jax.train.step import make_program

LORA = {"pattern": "(encoder|decoder)/blocks/.*(query|value|out)", "rank": 2, "alpha": 4.0}
KERNEL = "decoder/blocks/self_attention/query"


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


def losses(workdir):
    return [line["loss"] for line in read_metrics(workdir / "metrics.jsonl") if line["split"] == "train"]


@pytest.fixture(scope="module")
def base(small_fields, tmp_path_factory):
    """A run without adapters."""
    workdir = tmp_path_factory.mktemp("base")
    assert train(make_config(small_fields), workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def lora_fields(small_fields, base):
    optimizer = {**small_fields["optimizer"], "learning_rate": 3e-2}
    return {**small_fields, "init_from": str(base), "lora": LORA, "steps": 6, "optimizer": optimizer}


@pytest.fixture(scope="module")
def tuned(lora_fields, tmp_path_factory):
    """Six steps of adapters on `base`."""
    workdir = tmp_path_factory.mktemp("tuned")
    assert train(make_config(lora_fields), workdir) == 0
    return workdir


def test_adapters_alone_train_and_take_optimizer_state(tuned, base):
    before, after = flat(load_bundle(base).params), flat(load_bundle(tuned).params)
    adapters = {path: leaf for path, leaf in after.items() if "lora_" in path}
    assert {path.rsplit("/", 1)[0] for path in adapters} == {
        f"{block}/{name}"
        for block in ("encoder/blocks/attention", "decoder/blocks/self_attention", "decoder/blocks/cross_attention")
        for name in ("query", "value", "out")
    }
    assert all(leaf.any() for leaf in adapters.values())
    for path, leaf in before.items():
        np.testing.assert_array_equal(leaf, after.pop(path), err_msg=path)
    assert after.keys() == adapters.keys()


def test_a_killed_run_goes_on_bit_for_bit(tuned, lora_fields, run_child, tmp_path):
    killed = run_child(lora_fields, tmp_path, 4, "SIGKILL")
    assert len(losses(tmp_path)) == 4, killed.stderr[-2000:]
    assert train(make_config(lora_fields), tmp_path) == 0
    assert losses(tmp_path) == losses(tuned)
    jax.tree.map(np.testing.assert_array_equal, load_bundle(tmp_path).params, load_bundle(tuned).params)


def test_a_run_starts_from_one_with_the_same_adapters(tuned, lora_fields, tmp_path):
    fields = {**lora_fields, "init_from": str(tuned), "steps": 1}
    assert train(make_config(fields), tmp_path) == 0
    # The same batch as the first of `tuned`: what its adapters have learnt since shows.
    assert losses(tmp_path)[0] < losses(tuned)[0] - 0.1


@pytest.mark.parametrize(
    ("lora", "told"),
    [({**LORA, "rank": 3}, "LoRA .* rank 3, alpha 4"), ({**LORA, "alpha": 8.0}, "LoRA .* alpha 8"), (None, "no LoRA")],
)
def test_other_adapters_are_refused(tuned, lora_fields, tmp_path, lora, told):
    fields = {**lora_fields, "init_from": str(tuned), "lora": lora}
    message = f"has LoRA '.*' of rank 2, alpha 4, this run has {told}; .* rt2 export --merge-lora --checkpoint {tuned}"
    with pytest.raises(UserError, match=message):
        train(make_config(fields), tmp_path)


def logits(bundle):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 1, 32, 32, 3), dtype=np.uint8)
    tokens = (rng.integers(1, 100, (2, length)).astype(np.int32) for length in (8, 12))
    return jax.jit(bundle.backbone.logits)(bundle.params, images, *tokens)


def test_a_bundle_keeps_its_adapters_or_has_them_merged(tuned, tmp_path, capsys):
    kept, merged = tmp_path / "kept", tmp_path / "merged"
    assert main(["export", "--checkpoint", str(tuned), "--out", str(kept)]) == 0
    assert main(["export", "--checkpoint", str(kept), "--out", str(merged), "--merge-lora"]) == 0
    expected = logits(load_bundle(tuned))
    np.testing.assert_array_equal(logits(load_bundle(kept)), expected)
    np.testing.assert_allclose(logits(load_bundle(merged)), expected, atol=1e-5, rtol=1e-5)
    assert "lora" not in json.loads((merged / "bundle.json").read_text())["model"]
    assert not [path for path in flat(load_bundle(merged).params) if "lora_" in path]

    capsys.readouterr()
    assert main(["export", "--checkpoint", str(merged), "--out", str(tmp_path / "again"), "--merge-lora"]) == 2
    assert "has no LoRA adapters to merge" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def program_and_batch(fields, **model_changes):
    """A run's program over one device, and a batch of noise."""
    config = make_config(fields)
    backbone = make_backbone(model_config(config, Vocabulary.load()).replace(**model_changes))
    mesh = make_mesh(None, jax.devices()[:1])
    program = make_program(config, backbone, 2, mesh)
    rng = np.random.default_rng(0)
    batch = {
        name: jax.device_put(rng.integers(0, 2, leaf.shape).astype(leaf.dtype), leaf.sharding)
        for name, leaf in program.batch.items()
    }
    return program, batch


def test_a_freeze_list_decides_before_the_adapters_do(lora_fields):
    def trained(freeze):
        """Paths of the parameters that the optimizer has a state for."""
        program, _ = program_and_batch({**lora_fields, "freeze": freeze})
        paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(program.state.opt_state))
        return {"/".join(entry.key for entry in path if hasattr(entry, "key")) for path in paths} - {""}

    adapters = trained(())
    assert adapters and all("lora_" in path for path in adapters)
    with_norms = trained([[".*norm.*", "train"], ["encoder/.*", "frozen"]])
    assert with_norms - adapters and all("norm" in path for path in with_norms - adapters)
    assert adapters - with_norms == {path for path in adapters if path.startswith("encoder/")}
    with pytest.raises(UserError, match="'absent/.*' decides over no parameter"):
        trained([["absent/.*", "train"]])


@pytest.fixture
def quick_compilation():
    """For a program that runs a step or two: bfloat16 takes a CPU's compiler long."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_frozen_weights_in_bfloat16_change_no_number_of_a_model_that_computes_in_it(
    lora_fields, tuned, quick_compilation
):
    results, trained = {}, load_bundle(tuned).params
    for dtype in ("float32", "bfloat16"):
        program, batch = program_and_batch({**lora_fields, "frozen_dtype": dtype}, compute_dtype="bfloat16")
        with partitioned(program.mesh):
            held = jax.tree.map(lambda leaf: leaf.dtype, program.state.params)
            assert held == jax.tree.map(lambda leaf: leaf.dtype, jax.eval_shape(program.init, jax.random.key(0)).params)
            params = jax.tree.map(jnp.asarray, trained, held)
            results[dtype] = flat(params), program.eval_step(params, batch)
    (wide, sums), (half, same_sums) = results["float32"], results["bfloat16"]
    jax.tree.map(np.testing.assert_array_equal, sums, same_sums)
    for path, leaf in half.items():
        if path.endswith(("/kernel", "/embedding")):
            assert leaf.dtype == jnp.bfloat16
            np.testing.assert_array_equal(leaf, wide[path].astype(jnp.bfloat16))
        else:
            assert leaf.dtype == jnp.float32
            np.testing.assert_array_equal(leaf, wide[path])


def test_a_run_with_frozen_weights_in_bfloat16_resumes_and_loads(lora_fields, tmp_path):
    fields = {**lora_fields, "frozen_dtype": "bfloat16"}
    for workdir, stops in ((tmp_path / "whole", (4,)), (tmp_path / "resumed", (3, 4))):
        for steps in stops:
            assert train(make_config({**fields, "steps": steps}), workdir) == 0
    whole, resumed = load_bundle(tmp_path / "whole"), load_bundle(tmp_path / "resumed")
    assert losses(tmp_path / "whole") == losses(tmp_path / "resumed")
    jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(whole.params)} == {np.dtype("float32")}
    kernel = flat(whole.params)[f"{KERNEL}/kernel"]
    np.testing.assert_array_equal(kernel, kernel.astype(jnp.bfloat16).astype(np.float32))


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_adapters_move_at_once_whatever_the_rule(name):
    """Muon leaves them to Adam; Adafactor's steps are not in proportion to a B that is zero."""
    axes = {"lora_a": ("layers", "embed", "lora_rank"), "lora_b": ("layers", "lora_rank", "heads", "head_dim")}
    rng = np.random.default_rng(0)
    shapes = {"lora_a": (2, 6, 3), "lora_b": (2, 3, 2, 4)}
    gradients = {key: jnp.asarray(rng.normal(size=shape), jnp.float32) for key, shape in shapes.items()}
    params = {"lora_a": jnp.ones(shapes["lora_a"]), "lora_b": jnp.zeros(shapes["lora_b"])}
    config = OptimizerConfig(name=name, learning_rate=0.1, schedule="constant", warmup_steps=0)
    optimizer = make_optimizer(config, 10, axes)[0]
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    for key, update in updates.items():
        np.testing.assert_allclose(update, -0.1 * np.sign(gradients[key]), rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora": {**LORA, "rnk": 2}}, "unknown key lora.rnk = 2; did you mean lora.rank"),
        ({"lora": {"rank": 2, "alpha": 2.0}}, "lora.pattern is missing; set it"),
        ({"lora": {**LORA, "rank": 0}}, r"lora.rank is 0, allowed: 1 to"),
        ({"lora": {**LORA, "rank": 1.5}}, r"lora.rank is 1.5 \(float\), needs int"),
        ({"lora": LORA, "init_from": ""}, "init_from is empty and they would be random; name a bundle or run"),
        ({"frozen_dtype": "float16"}, "frozen_dtype is 'float16'; allowed: float32, bfloat16"),
    ],
)
def test_a_config_that_cannot_be_is_refused(lora_fields, change, message):
    with pytest.raises(UserError, match=message):
        make_config({**lora_fields, **change})


def test_a_program_that_cannot_be_is_refused(lora_fields):
    for change, message in (
        ({"lora": {**LORA, "pattern": "encoder/query"}}, "lora pattern 'encoder/query' matches none of the 2. kernels"),
        ({"lora": {**LORA, "rank": 99}}, "lora rank 99 is not below both sides of kernel .*, 16 x 16; lower the rank"),
        ({"lora": None, "frozen_dtype": "bfloat16"}, "frozen_dtype is 'bfloat16', but nothing is frozen"),
        ({"lora": None, "model": {"size": "tiny", "lora": LORA}}, "set the config's own lora instead"),
    ):
        with pytest.raises(UserError, match=message):
            program_and_batch({**lora_fields, **change})


def test_a_config_comes_back_from_json(lora_fields):
    config = make_config(lora_fields)
    assert config.lora.rank == 2 and make_config(json.loads(config.to_json())) == config
