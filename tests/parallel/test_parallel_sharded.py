"""Eight fake devices in a process of their own: the same numbers as on one, with constraints in the program."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

SCRIPT = """
import json, re, sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
import jax.numpy as jnp, numpy as np
from rt2_jax.models import EncoderDecoderConfig, ModelConfig, PrefixLmConfig, VitConfig, make_backbone
from rt2_jax.parallel import batch_sharding, constrain, make_mesh, partitioned, shardings

config = ModelConfig(
    name="test", image_size=24, vocab_size=128,
    vision=VitConfig(patch_size=12, width=32, layers=2, heads=2, head_dim=8, mlp=48),
    text={
        "pali": EncoderDecoderConfig(width=24, encoder_layers=2, decoder_layers=2, heads=2, head_dim=8, mlp=40),
        "palm_e": PrefixLmConfig(width=24, layers=2, heads=2, kv_heads=1, head_dim=8, mlp=40, sliding_window=4),
    }[sys.argv[1]],
)
backbone = make_backbone(config)
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (8, 1, 24, 24, 3), dtype=np.uint8)
prompt, target = (rng.integers(0, 128, (8, length)).astype(np.int32) for length in (5, 7))
report = {"devices": len(jax.devices())}

def decode(params, images, prompt, target):
    logits, cache = backbone.prefill(params, images, prompt, 7)
    rows = [logits]
    for index in range(2):
        logits, cache = backbone.decode_step(params, cache, target[:, index], index)
        rows.append(logits)
    return jnp.stack(rows, 1)

params = backbone.init(jax.random.key(0))
expected = jax.jit(backbone.logits)(params, images, prompt, target)
expected_grad = jax.jit(jax.grad(lambda p: backbone.logits(p, images, prompt, target).var()))(params)

mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
places = shardings(backbone.logical_axes(), mesh, jax.eval_shape(backbone.init, jax.random.key(0)))
with partitioned(mesh):
    sharded = jax.jit(backbone.init, out_shardings=places)(jax.random.key(0))
    batch = jax.device_put((images, prompt, target), batch_sharding(mesh))
    lowered = jax.jit(backbone.logits).lower(sharded, *batch)
    report["constraints"] = lowered.as_text().count("sharding_constraint")
    compiled = lowered.compile()
    logits = compiled(sharded, *batch)
    report["out"] = [str(part) for part in logits.sharding.spec]
    report["collectives"] = len(re.findall(r"all-(?:gather|reduce)", compiled.as_text()))
    gradient = jax.jit(jax.grad(lambda p, *b: backbone.logits(p, *b).var()), out_shardings=places)(sharded, *batch)
    decoded = jax.jit(decode)(sharded, *batch)
    single = jax.jit(decode)(sharded, images[:1], prompt[:1], target[:1])
    x = jnp.zeros((6, 4))
    odd = jax.jit(lambda x: constrain(x, "activation_batch", "activation_embed"))(x)
    report["six_rows"] = list(odd.sharding.spec)[:1]

def gap(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()), a, b)))

report["init_gap"] = gap(sharded, params)
report["gap"] = gap(logits, expected)
report["grad_gap"] = gap(gradient, expected_grad)
report["decode_gap"] = gap(decoded, expected[:, :3])
report["single_gap"] = gap(single, expected[:1, :3])
attention = sharded["encoder" if sys.argv[1] == "pali" else "decoder"]["blocks"]["attention"]
for name in ("query", "key"):
    kernel = attention[name]["kernel"]
    report[name + "_shard"] = [kernel.shape, kernel.addressable_shards[0].data.shape]
slices = make_mesh({"slice": 2, "fsdp": 4})
report["slices"] = [[device.id for device in row.ravel()] for row in slices.devices]
print(json.dumps(report))
"""


@pytest.fixture(scope="module", params=["pali", "palm_e"])
def report(request):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, request.param], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_program_holds_constraints_and_collectives(report):
    assert report["devices"] == 8
    assert report["constraints"] > 15
    assert report["collectives"] > 0


def test_sharded_numbers_equal_one_device(report):
    for name in ("gap", "grad_gap", "decode_gap", "single_gap"):
        assert report[name] < 1e-5, (name, report[name])
    assert report["init_gap"] < 1e-6


def test_parameters_and_logits_are_cut(report):
    whole, part = report["query_shard"]
    assert part == [whole[0], whole[1] // 2, whole[2] // 2, whole[3]]
    # One head of keys cannot be cut over two devices, and stays whole.
    whole, part = report["key_shard"]
    assert part == [whole[0], whole[1] // 2, max(1, whole[2] // 2), whole[3]]
    assert "data" in report["out"][0] and report["out"][-1] == "tensor"


def test_a_batch_that_does_not_divide_keeps_what_does(report):
    assert report["six_rows"] == ["data"]


def test_slices_are_runs_of_devices(report):
    assert report["slices"] == [[0, 1, 2, 3], [4, 5, 6, 7]]
