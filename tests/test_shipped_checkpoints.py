"""The checkpoints in data/ belong to this release: they load, and act and answer with its vocabulary."""

import pathlib

import numpy as np
import pytest

from rt2_jax.bundle.store import load_bundle
from rt2_jax.policy.load import make_policy
from rt2_jax.tokens.vocabulary import Vocabulary

CHECKPOINTS = pathlib.Path(__file__).parent.parent / "data" / "checkpoints"
SHIPPED = sorted(path.parent for path in CHECKPOINTS.glob("*/bundle.json"))
MOST_BYTES = 25e6


def test_the_vlm_and_both_policies_ship():
    assert [path.name for path in SHIPPED] == ["tabletop_palm_e", "tabletop_rt2", "tabletop_vlm"]


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_it_is_small_and_acts_with_this_vocabulary(folder):
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < MOST_BYTES
    bundle = load_bundle(folder)
    assert bundle.vocabulary.sha256 == Vocabulary.load().sha256
    policy = make_policy(bundle)
    frame = np.full((1, 96, 96, 3), 128, np.uint8)
    output = policy.act(frame, ["pick up the red cube"], mode="plan")
    assert output.actions.shape == (1, 8)
    # Weights that have learnt nothing fail here: an action is valid all the same, its plan and numbers for a place not.
    assert output.text[0].startswith("Plan: pick red cube at ") or folder.name == "tabletop_vlm"
    assert policy.answer(frame, ["Locate the red cube"], 8)[0].replace(" ", "").isdigit()
