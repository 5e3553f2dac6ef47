"""``rt2 sizes``: what it measures, how it writes numbers, and that the documentation shows what it prints."""

import math
import pathlib

import jax
import pytest

from rt2_jax.cli import main
from rt2_jax.errors import UserError
from rt2_jax.fit.flops import action_flops, train_flops
from rt2_jax.fit.footprint import footprint
from rt2_jax.fit.sizes_table import BYTE_UNITS, COUNT_UNITS, breakdown, overview, scaled
from rt2_jax.models import SIZES, get_config, make_backbone, param_count
from rt2_jax.parallel.mesh import make_mesh
from rt2_jax.train.config import OptimizerConfig, make_config
from rt2_jax.train.optimizer import make_optimizer
from rt2_jax.train.step import make_program

ROOT = pathlib.Path(__file__).parents[2]


def test_the_documentation_shows_what_the_command_prints(capsys):
    """To mend it: rt2 sizes --markdown, into the end of docs/models.md."""
    assert main(["sizes", "--markdown"]) == 0
    printed = capsys.readouterr().out.strip()
    assert printed.count("\n| ") == 3 * (len(SIZES) + 2)
    assert (ROOT / "docs" / "models.md").read_text(encoding="utf-8").strip().endswith(printed)


def test_memory_at_rest_is_that_of_real_arrays():
    config = get_config("tiny_palm_e")
    backbone = make_backbone(config)
    params = jax.jit(backbone.init)(jax.random.key(0))
    optimizer, _ = make_optimizer(OptimizerConfig(), 1, backbone.logical_axes())
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    statistics = sum(leaf.nbytes for leaf in jax.tree.leaves(optimizer.init(params)))
    found = footprint(config, prompt_len=10)
    assert (found.float32, found.bfloat16) == (weights, weights // 2)
    assert found.train_state == weights + statistics + 4  # the step
    text, places = config.text, config.tokens_per_image + 10
    assert found.cache == 2 * 4 * text.layers * text.kv_heads * text.head_dim * (places + 9) + places
    assert found.serving == found.bfloat16 + found.cache


def test_a_cache_is_in_the_models_dtype():
    """PaLI-X-55B: bfloat16 keys and values of 384 tokens and of 9 more, in 50 layers, and a mask of 384."""
    assert footprint(get_config("pali_x_55b"), 128).cache == 2 * 2 * 50 * 16 * 256 * (384 + 9) + 384


@pytest.mark.parametrize(
    "value, units, base, words",
    [
        (0, COUNT_UNITS, 1000, "-"),
        (7, COUNT_UNITS, 1000, "7.00"),
        (999, COUNT_UNITS, 1000, "999"),
        (1000, COUNT_UNITS, 1000, "1.00 K"),
        (9_999, COUNT_UNITS, 1000, "10.0 K"),
        (10**6, COUNT_UNITS, 1000, "1.00 M"),
        (54_024_651_776, COUNT_UNITS, 1000, "54.0 B"),
        (5 * 10**13, COUNT_UNITS, 1000, "50000 B"),
        (1023, BYTE_UNITS, 1024, "1023 B"),
        (2**30, BYTE_UNITS, 1024, "1.00 GiB"),
    ],
)
def test_three_digits(value, units, base, words):
    assert scaled(value, units, base) == words


def test_a_breakdown_sums_to_the_overview(capsys):
    config = get_config("tiny")
    sheet = breakdown(config, 32, 16)[0]
    total = next(row for row in sheet.rows if row[0] == "total")
    example, action = train_flops(config, 32, 16).total, action_flops(config, 32).total
    assert total[1:3] == (scaled(param_count(config)["total"], COUNT_UNITS), f"{example / 1e6:.0f} M")
    assert total[5] == f"{action / 1e6:.0f} M"
    assert main(["sizes", "--size", "tiny", "--prompt-len", "32", "--target-len", "16"]) == 0
    printed = capsys.readouterr().out
    assert "tiny. FLOPs, with prompts of 32 tokens and targets of 16" in printed
    assert all(cell in printed for cell in total)


def test_lengths_below_one_are_refused():
    with pytest.raises(UserError, match="prompt-len is 0; choose 1 or more"):
        overview(0, 64)
    with pytest.raises(UserError, match="target-len is -1"):
        breakdown(get_config("tiny"), 1, -1)


def test_what_the_documentation_says_of_narrow_heads():
    """docs/models.md: at 128, Adafactor keeps the statistics of a 5B's narrow heads whole; at 64 it factors them."""
    backbone = make_backbone(get_config("pali_x_5b"))
    params = jax.eval_shape(backbone.init, jax.random.key(0))
    ratios = {}
    for limit in (128, 64):
        config = OptimizerConfig(min_dim_size_to_factor=limit)
        optimizer, _ = make_optimizer(config, steps=1, axes=backbone.logical_axes())
        ratios[limit] = numbers(jax.eval_shape(optimizer.init, params)) / numbers(params)
    assert ratios[128] > 0.25 and ratios[64] < 0.01


def test_what_the_documentation_says_lora_takes():
    """The rows of docs/training.md, from the shapes and dtypes of the states of real programs."""
    base = get_config("pali_x_5b")
    fields = {"data_dir": "", "mixture": {"a": 1.0}, "steps": 1, "batch_size": 1, "optimizer": {"name": "adamw"}}
    every = {"pattern": ".*/blocks/.*", "rank": 16, "alpha": 16.0}
    some = {**every, "pattern": "(encoder|decoder)/blocks/.*(query|value)"}
    half = {"frozen_dtype": "bfloat16"}
    rows = []
    for change in ({}, {"lora": every}, {"lora": every, **half}, {"lora": some, **half}):
        change = {**change, "init_from": "base"} if change else {}
        config = make_config({**fields, **change})
        program = make_program(config, make_backbone(base.replace(lora=config.lora)), 1, make_mesh())
        parts = (size(program.state.params), 4 * program.num_trainable, size(program.state.opt_state))
        shown = [f"{part / 1e9:.{2 if part < 5e7 else 1}f} GB" for part in (*parts, sum(parts))]
        rows.append(" | ".join([f"{program.num_trainable / 1e6:,.0f} M", *shown]) + " |")
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert [row for row in rows if row not in page] == []


def numbers(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def size(tree):
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
