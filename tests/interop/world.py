"""What the clients of `make test-interop` share: one episode of the tabletop, driven by whatever acts.

Run in environments that have the simulator and a client, and neither JAX nor a model.
"""

import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from rt2_jax.evaluate.tabletop_env import CAMERA, TabletopEnvironment

SIZE, SPLIT, SKILL, STEPS = 96, "seen", "reach", 12


def drive(act, seed):
    """Actions of an episode, as `act(frame, instruction)` gives them; and whether it ended well."""
    env = TabletopEnvironment(SIZE, max_steps=STEPS)
    observation, actions = env.reset(SPLIT, SKILL, seed), []
    while True:
        action = np.asarray(act(observation.images[CAMERA].copy(), observation.instruction), np.float32)
        assert action.shape == (8,), action
        actions.append(action.tolist())
        after = env.step(action)
        observation = after.observation
        if after.done:
            env.close()
            return {"actions": actions, "success": bool(after.success)}


def main(make_act):
    """Prints the episodes of the seeds 0 and 1 as a line of JSON; `make_act(port)` connects to localhost."""
    act = make_act(int(sys.argv[1]))
    print(json.dumps([drive(act, seed) for seed in range(2)]))
