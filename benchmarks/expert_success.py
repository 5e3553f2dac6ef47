"""How often the scripted expert succeeds, and how long it takes: `python benchmarks/expert_success.py --episodes 200`."""

import argparse
import time

import numpy as np

from rt2_jax.sim import skills
from rt2_jax.sim.catalog import SKILLS
from rt2_jax.sim.env import MAX_STEPS
from rt2_jax.sim.rollout import run_expert
from rt2_jax.sim.splits import sample_task
from rt2_jax.sim.world import World


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200, help="seeds per skill")
    parser.add_argument("--first-seed", type=int, default=1_000_000)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--split", default="train")
    options = parser.parse_args()
