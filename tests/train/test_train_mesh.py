"""On eight devices the same steps give the same numbers as on one."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json
import jax, numpy as np
from rt2_jax.errors import UserError
from rt2_jax.models.backbone import make_backbone
from rt2_jax.models.sizes import get_config
from rt2_jax.parallel.mesh import make_mesh
from rt2_jax.parallel.rules import partitioned
from rt2_jax.train.config import make_config
from rt2_jax.train.step import check_constrained, make_program

model = get_config("tiny").replace(
    image_size=24, vocab_size=64, scan_unroll=False,
    vision=dict(patch_size=12, stem_widths=(8,), width=16, layers=1, heads=2, head_dim=8, mlp=32),
    text=dict(width=16, encoder_layers=1, decoder_layers=2, heads=2, head_dim=8, mlp=32),
)
backbone = make_backbone(model)

def batch(number):
    rng = np.random.default_rng(number)
    length = rng.integers(1, 8, 16)
    weights = (np.arange(8) < length[:, None]).astype(np.float32)
    return dict(
        images=rng.integers(0, 256, (16, 1, 24, 24, 3), dtype=np.uint8),
        prompt=rng.integers(1, 64, (16, 6)).astype(np.int32),
        target=rng.integers(1, 64, (16, 8)).astype(np.int32) * weights.astype(np.int32),
        weights=weights, task=rng.integers(0, 2, 16).astype(np.int32),
    )

def run(optimizer, mesh, microbatches, lora=None):
    config = make_config(dict(
        data_dir="", mixture={"a": 1, "b": 1}, steps=10, batch_size=16, prompt_len=6, target_len=8,
        microbatches=microbatches, lora=lora, init_from="elsewhere" if lora else "",
        optimizer=dict(name=optimizer, warmup_steps=2, learning_rate=0.01, clip_norm=1.0, weight_decay=0.01,
                       min_dim_size_to_factor=16),
    ))
    backbone = make_backbone(model.replace(lora=config.lora))
    program = make_program(config, backbone, 2, mesh)
    with partitioned(mesh):
        check_constrained(program, backbone)
        state = program.init(jax.random.key(0))
        specs = {str(leaf.sharding.spec) for leaf in jax.tree.leaves(state.opt_state)}
        rows = []
        for number in range(4):
            put = {name: jax.device_put(x, program.batch[name].sharding) for name, x in batch(number).items()}
            state, metrics = program.train_step(state, put)
            rows.append([float(metrics["loss"]), float(metrics["grad_norm"]), *map(float, metrics["sums"]["loss"])])
        sums = program.eval_step(state.params, put)
    return dict(rows=rows, specs=sorted(specs), evaluated=[float(x) for x in sums["loss"]])

lora = dict(pattern="decoder/.*|logits", rank=3, alpha=30.0)
one, eight = make_mesh(None, jax.devices()[:1]), make_mesh(dict(data=2, fsdp=2, tensor=2))
results = {
    "adamw": dict(one=run("adamw", one, 1), eight=run("adamw", eight, 2)),
    "adafactor": dict(one=run("adafactor", one, 4), eight=run("adafactor", eight, 1)),
    "muon": dict(one=run("muon", one, 1), eight=run("muon", eight, 2)),
    "lora": dict(one=run("adamw", one, 1, lora), eight=run("adamw", eight, 2, lora)),
}

# Traced outside `partitioned` the program holds no constraint, and the check must say so.
config = make_config(dict(data_dir="", mixture={"a": 1}, steps=1, batch_size=16, prompt_len=6, target_len=8))
try:
    check_constrained(make_program(config, backbone, 1, eight), backbone)
    results["unconstrained"] = "passed"
except RuntimeError as error:
    results["unconstrained"] = str(error)
try:
    make_program(make_config(dict(data_dir="", mixture={"a": 1}, steps=1, batch_size=6)), backbone, 1, eight)
except UserError as error:
    results["indivisible"] = str(error)
print(json.dumps(results))
"""


RUNS = ("adamw", "adafactor", "muon", "lora")


@pytest.fixture(scope="module")
def results():
    # Compile time is nearly all of this test's; the numbers do not depend on LLVM's effort.
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8", "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def close(rows, others):
    pairs = zip(rows, others, strict=True)
    return all(row == pytest.approx(other, rel=1e-5, abs=1e-5) for row, other in pairs)


@pytest.mark.parametrize("name", RUNS)
def test_eight_devices_equal_one_whatever_the_microbatches(results, name):
    one, eight = results[name]["one"], results[name]["eight"]
    assert close(one["rows"], eight["rows"])
    assert close([one["evaluated"]], [eight["evaluated"]])
    assert one["rows"][0] != one["rows"][1]


@pytest.mark.parametrize("name", RUNS)
def test_optimizer_state_is_sharded_as_its_parameters(results, name):
    specs = " ".join(results[name]["eight"]["specs"])
    assert "fsdp" in specs and "tensor" in specs
    assert "fsdp" not in " ".join(results[name]["one"]["specs"])


def test_muons_momentum_of_stacked_layers_is_sharded(results):
    assert any("(None, 'fsdp', 'tensor'" in spec for spec in results["muon"]["eight"]["specs"])


def test_a_program_without_constraints_is_refused(results):
    assert "no sharding constraint" in results["unconstrained"]


def test_a_batch_that_does_not_divide_is_refused(results):
    assert "batch_size 6 does not divide over 4" in results["indivisible"]
