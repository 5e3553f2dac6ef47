"""Run by `make test-core` where the wheel and the core's requirements are all there is: one training step, one action.

cd ELSEWHERE && .venv-core/bin/python -I CHECKOUT/tests/core/train_without_tensorflow.py
"""

import importlib.util
import pathlib
import sys
import tempfile

ABSENT = ("tensorflow", "tensorflow_datasets", "seqio", "mujoco")


def main() -> None:
    installed = [name for name in ABSENT if importlib.util.find_spec(name)]
    assert not installed, f"this environment is not the core alone: it holds {installed}"

    import numpy as np

    from rt2_jax.bundle.store import load_bundle
    from rt2_jax.policy.load import make_policy
    from rt2_jax.train.config import make_config
    from rt2_jax.train.loop import train

    sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "train"))
    from prepared import FIELDS, IMAGE_SIZE, TASKS, write_split

    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for seed, task in enumerate(TASKS):
            write_split(root, task, "train", 16, seed)
        config = make_config({**FIELDS, "data_dir": str(root), "steps": 1, "prompt_len": 24})
        assert train(config, root / "run") == 0
        policy = make_policy(load_bundle(root / "run"))
        frames = np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        assert policy.act(frames, ["7"]).bins.shape == (1, 8)
    loaded = [name for name in ABSENT if name in sys.modules]
    assert not loaded, f"the core imported {loaded}"
    print("core: 1 passed, 0 failed")


if __name__ == "__main__":
    main()
