"""The checkpoints in data/ belong to this release: they load, and act and answer with its vocabulary."""

import json
import pathlib

import numpy as np
import pytest

from rt2_jax.bundle.store import load_bundle
from rt2_jax.inputs.images import decode_image
from rt2_jax.policy.load import make_policy
from rt2_jax.tokens.vocabulary import Vocabulary

CHECKPOINTS = pathlib.Path(__file__).parent.parent / "data" / "checkpoints"
SHIPPED = sorted(path.parent for path in CHECKPOINTS.glob("*/bundle.json"))
MOST_BYTES = 25e6
FIXTURES = pathlib.Path(__file__).parent / "fixtures"


def test_the_vlm_and_both_policies_ship():
    assert [path.name for path in SHIPPED] == ["tabletop_palm_e", "tabletop_rt2", "tabletop_vlm"]


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_it_is_small_and_says_what_it_said_when_its_tokens_were_recorded(folder):
    """Word for word and integer for integer, on four frames of the tabletop: recorded before embodiments came."""
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < MOST_BYTES
    bundle = load_bundle(folder)
    assert bundle.vocabulary.sha256 == Vocabulary.load().sha256
    policy = make_policy(bundle)
    recorded = json.loads((FIXTURES / "shipped_tokens.json").read_text())
    strip = decode_image((FIXTURES / "shipped_frames.png").read_bytes())
    frames = np.stack(np.split(strip, len(recorded["instructions"]), axis=1))
    for mode in ("action", "plan"):
        output = policy.act(frames, recorded["instructions"], mode=mode)
        assert output.text == recorded[folder.name][mode]
        assert output.bins.tolist() == [[int(word) for word in text.split()[-8:]] for text in output.text]
        assert output.actions.shape == (len(frames), 8)
    # Weights that have learnt nothing fail here: an action is valid all the same, numbers for a place are not.
    assert policy.answer(frames[:1], ["Locate the yellow ball"], 8)[0].replace(" ", "").isdigit()
