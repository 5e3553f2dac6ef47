"""Run by `make test-interop-libero`: `vla-eval run` drives LIBERO through `rt2 serve`, by a policy that nobody trained.

What it shows is the plumbing: LIBERO's two cameras and state go in, seven numbers in the controller's units come out.

python tests/interop/drive_libero.py VLA_EVAL_BIN_FOLDER
"""

import pathlib
import sys
import tempfile

sys.path[:0] = [str(folder) for folder in pathlib.Path(__file__).resolve().parents[:3:2]]  # this folder, the checkout

import drive
import jax

from rt2_jax.actions import ActionBins, ActionSpace, Embodiment
from rt2_jax.bundle.spec import bundle_spec
from rt2_jax.bundle.store import save_bundle
from rt2_jax.models.backbone import make_backbone
from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig, VitConfig
from rt2_jax.tokens import Vocabulary

STEPS = 8
# The end effector's position in metres, its rotation as an axis times an angle, and the two fingers.
STATE = ("x", "y", "z", "rx", "ry", "rz", "left_finger", "right_finger")
LIBERO = Embodiment(
    name="libero",
    bins=ActionBins(
        ActionSpace(
            names=("dx", "dy", "dz", "drx", "dry", "drz", "gripper"),
            low=(-1.0,) * 7,
            high=(1.0,) * 7,
            units=(*["0.05 m"] * 3, *["0.5 rad"] * 3, "opening"),
            kinds=(*["continuous"] * 6, "binary"),
        )
    ),
    gripper="-1 opens, +1 closes",
    control_hz=20.0,
    cameras=("agentview", "wrist"),
    proprioception=ActionBins(
        ActionSpace(STATE, (-1.0,) * 3 + (-4.0,) * 3 + (-0.05,) * 2, (2.0,) * 3 + (4.0,) * 3 + (0.05,) * 2, ("",) * 8)
    ),
)


def save_untrained(folder):
    """A bundle of a model of a few thousand random numbers that acts for LIBERO's arm."""
    vocabulary = Vocabulary.load()
    config = ModelConfig(
        name="speck",
        vision=VitConfig(patch_size=32, width=8, layers=1, heads=1, head_dim=8, mlp=8),
        text=EncoderDecoderConfig(width=8, encoder_layers=1, decoder_layers=1, heads=1, head_dim=8, mlp=8),
        image_size=64,
        num_images=2,
        vocab_size=vocabulary.size,
    )
    spec = bundle_spec(config, vocabulary, {LIBERO.name: LIBERO}, prompt_len=96, target_len=24)
    save_bundle(folder, make_backbone(config).init(jax.random.key(0)), spec, vocabulary)


def main(vla_eval_folder):
    with tempfile.TemporaryDirectory() as folder:
        bundle = pathlib.Path(folder) / "untrained"
        save_untrained(bundle)
        with drive.served(bundle, "--mode", "action", "--max-batch", "1") as port:
            benchmark = {
                "benchmark": "libero_benchmark:LIBEROBenchmark",
                "episodes_per_task": 1,
                "max_tasks": 2,
                "max_steps": STEPS,
                "params": {"suite": "libero_spatial", "seed": 7},
            }
            result = drive.by_vla_eval(vla_eval_folder, port, benchmark)
    episodes = [episode for task in result["tasks"] for episode in task["episodes"]]
    assert result["num_errors"] == 0, result
    assert [episode["steps"] for episode in episodes] == [STEPS] * 2, episodes
    print(f"libero: {len(episodes)} episodes of {STEPS} steps by an untrained policy, no error")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).absolute())
