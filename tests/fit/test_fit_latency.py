"""What ``rt2 bench latency`` reckons with, and that it runs with little installed. Times are not asserted."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.errors import UserError
from rt2_jax.fit.floor import Peaks, Work, measured_peaks, prefill_work, step_work, tree_bytes
from rt2_jax.fit.flops import decode_step_flops, prefill_flops
from rt2_jax.fit.latency import measure_latency
from rt2_jax.fit.random_weights import random_weights
from rt2_jax.models import get_config, make_backbone
from rt2_jax.models.stack import lay_apart

ROOT = pathlib.Path(__file__).parents[2]
ROWS, PROMPT, MAX_LEN = 256, 64, 9

# Everything that a machine with an accelerator may lack, however it would be imported.
SCRIPT = """
import sys
for name in ("tensorflow", "seqio", "optax", "orbax", "grain", "ml_collections", "mujoco", "torch"):
    sys.modules[name] = None
from rt2_jax.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("size", ["tiny", "tiny_palm_e"])
def test_the_work_of_a_step_is_what_it_reads_and_multiplies(size):
    """By hand: the decoder without the kernels that the cache stands for, the cache, the rows that can be sampled."""
    config = get_config(size)
    backbone = make_backbone(config)
    params = jax.eval_shape(backbone.init, jax.random.key(0))
    frames = jax.ShapeDtypeStruct((2, 1, config.image_size, config.image_size, 3), jnp.uint8)
    prompt = jax.ShapeDtypeStruct((2, PROMPT), jnp.int32)
    cache = jax.eval_shape(lambda *given: backbone.prefill(*given, MAX_LEN), params, frames, prompt)[1]
    work = step_work(backbone, params, cache, 2, PROMPT, MAX_LEN, ROWS)

    width, decoder = config.text.width, tree_bytes(params["decoder"])
    unread = 0
    if size == "tiny":
        cross = params["decoder"]["blocks"]["cross_attention"]
        unread = tree_bytes(cross["key"]) + tree_bytes(cross["value"])
        assert unread == 2 * 4 * config.text.decoder_layers * width * config.text.heads * config.text.head_dim
    rows = ROWS * width * 4
    assert work.bytes == decoder - unread + tree_bytes(cache) + rows
    skipped = 2 * width * (config.vocab_size - ROWS)
    assert work.flops == 2 * (decode_step_flops(config, PROMPT, MAX_LEN).total - skipped)
    prefill = prefill_work(backbone, params, 2, PROMPT, MAX_LEN, ROWS)
    assert prefill.bytes == tree_bytes(params) - (config.vocab_size - ROWS) * width * 4
    assert prefill.flops == 2 * (prefill_flops(config, PROMPT, MAX_LEN).total - skipped)

    whole = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params)
    apart = lay_apart(whole)
    assert step_work(make_backbone(config, apart=True), apart, cache, 2, PROMPT, MAX_LEN, ROWS) == work


def test_a_floor_is_the_slower_of_arithmetic_and_memory():
    peaks = Peaks(flops=100.0, bytes=10.0)
    assert peaks.floor(Work(1000, 10)) == 10.0 and peaks.floor(Work(100, 70)) == 7.0


def test_peaks_are_those_of_a_machine():
    peaks = measured_peaks("float32", jax.local_devices()[0])
    assert 1e8 < peaks.flops < 1e15 and 1e8 < peaks.bytes < 1e13


def test_random_weights_are_drawn_in_the_dtype_and_keep_a_model_finite():
    config = get_config("tiny").replace(compute_dtype="bfloat16")
    backbone = make_backbone(config)
    params = random_weights(backbone, "bfloat16")
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    kernel = np.asarray(params["encoder"]["blocks"]["mlp"]["down"]["kernel"], np.float32)
    np.testing.assert_allclose(kernel.std(), config.text.mlp**-0.5, rtol=0.02)
    assert abs(kernel.mean()) < 0.001 and np.abs(kernel[0] - kernel[1]).max() > 0.05
    frames, prompt = np.zeros((1, 1, 96, 96, 3), np.uint8), np.ones((1, 8), np.int32)
    logits, _ = jax.jit(lambda *given: backbone.prefill(*given, MAX_LEN))(params, frames, prompt)
    assert np.isfinite(logits).all() and np.std(logits) > 0


def test_wrong_arguments_are_named():
    for arguments, named in (
        ({"size": "huge"}, "model size 'huge' is unknown"),
        ({"dtype": "int4"}, "dtype 'int4' is unknown"),
        ({"batch": 0}, "batch is 0"),
    ):
        with pytest.raises(UserError, match=named):
            measure_latency(**{"size": "tiny", "dtype": "float32", **arguments})


def test_the_command_runs_with_little_installed_and_writes_its_figures(tmp_path):
    command = ["bench", "latency", "--size", "tiny", "--dtype", "bfloat16", "--seconds", "0.1", "--batch", "2"]
    command += ["--out", str(tmp_path / "latency.json")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((tmp_path / "latency.json").read_text())
    assert told == json.loads(done.stdout)
    assert list(told["stages_ms"]) == ["preprocess", "prefill", "token", "detokenise", "sampler", "action"]
    for stage in told["stages_ms"].values():
        assert 0 < stage["p50"] <= stage["p95"] <= stage["p99"] and stage["calls"] >= 1
    sampler, config = told["stages_ms"]["sampler"], get_config("tiny")
    assert sampler["times_floor_measured"] == pytest.approx(sampler["p50"] / sampler["floor_measured"])
    assert (
        told["memory_bytes"]["weights"]
        == 2 * told["parameters"]
        == 2 * sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(make_backbone(config).init, jax.random.key(0))))
    )
    assert told["actions_per_second"] == pytest.approx(2 * told["hz"])
