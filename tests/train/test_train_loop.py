"""Whole runs: they learn, stop cleanly, and go on exactly where they stopped."""

from rt2_jax.train.config import make_config
from rt2_jax.train.loop import train
from rt2_jax.train.metrics import read_metrics


def test_a(fields, tmp_path):
    print(train(make_config({**fields, "eval_every": 6}), tmp_path))
    for line in read_metrics(tmp_path / "metrics.jsonl"):
        print(line["step"], line["split"], line["loss"])
