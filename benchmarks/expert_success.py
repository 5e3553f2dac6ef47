"""How often the scripted expert succeeds, how long it takes, and how fast the world runs.

    python benchmarks/expert_success.py --episodes 200

`--noise` disturbs the actions as in recorded demonstrations; `--jitter` adds Gaussian noise (metres) to every executed
move, as an imprecise cloned policy does.
"""

import argparse
import time

import numpy as np

from rt2_jax.sim.tasks import skills
from rt2_jax.sim.tasks.env import MAX_STEPS
from rt2_jax.sim.tasks.expert import expert_action
from rt2_jax.sim.tasks.rollout import Disturbance
from rt2_jax.sim.tasks.splits import SPLITS, sample_task
from rt2_jax.sim.world.catalog import SKILLS
from rt2_jax.sim.world.world import World


def run_episode(world: World, split: str, skill: str, seed: int, noise: float, jitter: float) -> tuple[bool, bool, int]:
    """(success at the end, ended by the expert's own terminate, steps) of one episode without frames."""
    scene, task = sample_task(split, skill, seed)
    world.reset(scene)
    start = skills.read_state(world)
    disturbance = Disturbance(np.random.default_rng(seed), noise)
    rng = np.random.default_rng(seed)
    for step in range(MAX_STEPS):
        action = expert_action(world, task)
        if action[0] >= 0.5:
            return skills.success(scene, task, start, skills.read_state(world)), True, step + 1
        executed = disturbance.apply(action)
        executed[1:4] += rng.normal(0.0, jitter, 3)
        world.step(executed)
    return skills.success(scene, task, start, skills.read_state(world)), False, MAX_STEPS


def main() -> None:
    """Prints a table, one row a skill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=200, help="seeds per skill")
    parser.add_argument("--first-seed", type=int, default=1_000_000)
    parser.add_argument("--noise", type=float, default=0.0, help="chance per step of a disturbance")
    parser.add_argument("--jitter", type=float, default=0.0, help="metres, standard deviation")
    parser.add_argument("--split", default="seen")
    options = parser.parse_args()
    world = World(sample_task(options.split, None, 0)[0])
    print(f"split {options.split}, noise {options.noise}, jitter {options.jitter} m")
    print("skill       success   stopped   steps: mean / p95 / max   ms a step   seeds that failed")
    for skill in SKILLS:
        if skill not in SPLITS[options.split].skills:
            continue
        seeds = range(options.first_seed, options.first_seed + options.episodes)
        began = time.perf_counter()
        runs = [run_episode(world, options.split, skill, seed, options.noise, options.jitter) for seed in seeds]
        wall = time.perf_counter() - began
        steps = np.array([run[2] for run in runs])
        failed = [seed for seed, run in zip(seeds, runs, strict=True) if not run[0]]
        rate, stopped = np.mean([run[0] for run in runs]), np.mean([run[1] for run in runs])
        length = f"{steps.mean():5.1f} / {np.percentile(steps, 95):3.0f} / {steps.max():2d}"
        cost = wall / steps.sum() * 1e3
        print(f"{skill:10s}  {rate:7.1%}   {stopped:7.1%}   {length:>23s}   {cost:9.2f}   {failed[:8]}")
    world.close()


if __name__ == "__main__":
    main()
