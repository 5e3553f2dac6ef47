"""The artifact acts as the policy does, token for token, in a process that has jax and numpy alone."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from rt2_jax.actions import ActionBins, ActionSpace
from rt2_jax.bundle.spec import GrammarSpec, grammar_of
from rt2_jax.bundle.store import LoadedBundle, quantize_bundle
from rt2_jax.errors import UserError
from rt2_jax.export import loader
from rt2_jax.export.artifact import ARTIFACT_KIND, save_artifact
from rt2_jax.files.manifest import check_sealed
from rt2_jax.models.backbone import make_backbone
from rt2_jax.policy.load import make_policy

COUNT = 8  # benchmarks/export_agreement.py compares 200


@pytest.fixture(scope="module")
def artifact(shipped, tmp_path_factory):
    out = tmp_path_factory.mktemp("artifact") / "out"
    save_artifact(out, shipped, batch_sizes=(1, 8), platforms=("cpu", "tpu", "cuda"), texts={"model_card.md": "# it\n"})
    return out


# Runs where nothing but jax, numpy and what these two need can be imported, from the folder of the artifact itself.
ALONE = """
import importlib.machinery, sys

ALLOWED = {allowed!r}

class Alone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in (*sys.stdlib_module_names, *ALLOWED):
            return
        found = importlib.machinery.PathFinder.find_spec(name, path)
        if found and "site-packages" in str(found.origin or found.submodule_search_locations):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Alone())
sys.path.insert(0, {folder!r})
sys.dont_write_bytecode = True
import numpy as np
from load import load

policy = load({folder!r})
data = np.load({inputs!r})
words = "sentencepiece" in ALLOWED
for mode in ("action", "plan") if words else ("action",):
    if words:
        output = policy.act(data["frames"], list(data["instructions"]), mode)
    else:
        output = policy.act_on_ids(data["frames"], data["ids_" + mode], mode)
        assert output.text is None
    np.savez({folder!r} + f"/../{{mode}}.npz", tokens=output.tokens, bins=output.chunk_bins, actions=output.actions)
"""


def run_alone(folder, inputs, more):
    allowed = ("load", "jax", "jaxlib", "numpy", "ml_dtypes", "scipy", "opt_einsum", "flatbuffers", *more)
    code = ALONE.format(folder=str(folder), inputs=str(inputs), allowed=allowed)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modes = ("action", "plan") if more else ("action",)
    return {mode: np.load(folder.parent / f"{mode}.npz") for mode in modes}


@pytest.mark.parametrize("more", [("sentencepiece",), ()], ids=["texts", "ids"])
def test_it_acts_as_the_policy_without_this_package(artifact, shipped, many_frames, instructions, acted, more):
    from rt2_jax.inputs.batch import prompt_tokens
    from rt2_jax.policy.policy import PROMPTS

    frames, told = many_frames(COUNT), instructions(COUNT)
    ids = {
        f"ids_{mode}": np.stack(
            [prompt_tokens(shipped.vocabulary, PROMPTS[mode](text), shipped.spec.prompt_len) for text in told]
        )
        for mode in ("action", "plan")
    }
    inputs = artifact.parent / "inputs.npz"
    np.savez(inputs, frames=frames, instructions=told, **ids)
    for mode, found in run_alone(artifact, inputs, more).items():
        output = acted(mode)
        np.testing.assert_array_equal(found["bins"], output.chunk_bins)
        np.testing.assert_array_equal(found["actions"], output.actions)
        texts = [shipped.vocabulary.decode(row) for row in found["tokens"]]
        assert texts == output.text
        assert len(set(texts)) > 3


def test_the_folder_is_sealed_and_says_what_it_is(artifact, shipped):
    check_sealed(artifact, ARTIFACT_KIND)
    description = json.loads((artifact / "artifact.json").read_text())
    assert description["platforms"] == ["cpu", "tpu", "cuda"] and description["batch_sizes"] == [1, 8]
    assert description["bundle_identity"] == shipped.identity
    assert len(description["programs"]) == 4 and all(
        (artifact / one["file"]).is_file() for one in description["programs"]
    )
    assert (artifact / "model_card.md").read_text() == "# it\n"


def test_a_changed_byte_is_refused(artifact, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    data = bytearray((copy / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="has changed since it was written"):
        loader.load(copy)
    loader.load(copy, verify=False)
    with pytest.raises(ValueError, match=r"has no artifact\.json"):
        loader.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": np.zeros((1, 96, 96, 3), np.float32)}, "uint8"),
        ({"images": np.zeros((1, 2, 96, 96, 3), np.uint8)}, r"needs \[B, 1, H, W, 3\]"),
        ({"images": np.zeros((2, 96, 96, 3), np.uint8)}, "2 images for 1 prompts"),
        ({"images": {"wrist": np.zeros((1, 96, 96, 3), np.uint8)}}, "'wrist'"),
        ({"instructions": "pick"}, "one text"),
        ({"instructions": [" "]}, "empty"),
        ({"instructions": ["pick " * 100]}, "the limit is"),
        ({"mode": "text"}, "not in the artifact"),
        ({"embodiment": "other"}, "unknown"),
        ({"states": np.zeros((1, 3), np.float32)}, "of no use"),
    ],
)
def test_wrong_input_is_refused(artifact, change, match):
    policy = loader.load(artifact, verify=False)
    given = {"images": np.zeros((1, 96, 96, 3), np.uint8), "instructions": ["pick red cube"]} | change
    with pytest.raises(ValueError, match=match):
        policy.act(**given)


def test_several_robots_cameras_and_states(shipped, tmp_path, many_frames):
    """A model of two embodiments with a state and two images: each is asked and answers as the policy has it."""
    small = {"encoder_layers": 1, "decoder_layers": 1}
    model = shipped.spec.model.replace(num_images=2, vision={"layers": 1}, text=small, scan_unroll=False)
    backbone = make_backbone(model)
    params = backbone.init(jax.random.key(0))
    arm = next(iter(shipped.embodiments.values()))
    space = ActionSpace(("x", "open"), (-1.0, 0.0), (1.0, 1.0), ("m", "flag"), ("continuous", "binary"))
    robots = {
        "arm": dataclasses.replace(arm, name="arm", history=2),
        "hand": dataclasses.replace(
            arm, name="hand", bins=ActionBins(space), cameras=("left", "right"), chunk=2, robot="small hand",
            proprioception=ActionBins(space, num_bins=100),
        ),
    }  # fmt: skip
    grammar = GrammarSpec(grammar_of(shipped.vocabulary, robots).sha256)
    spec = dataclasses.replace(shipped.spec, model=model, embodiments=robots, grammar=grammar)
    bundle = dataclasses.replace(shipped, backbone=backbone, params=params, embodiments=robots, spec=spec)
    bundle = quantize_bundle(bundle)
    save_artifact(tmp_path / "out", bundle, modes=("action",), batch_sizes=(2,), platforms=("cpu",))
    artifact, policy = loader.load(tmp_path / "out"), make_policy(bundle)
    stack = many_frames(8).reshape(4, 2, 96, 96, 3)[:2]
    with pytest.raises(ValueError, match="name one of: arm, hand"):
        artifact.act(stack, ["go", "stop"])
    one, other = (
        artifact.act(stack, ["go", "stop"], embodiment="arm"),
        policy.act(stack, ["go", "stop"], embodiment="arm"),
    )
    np.testing.assert_array_equal(one.chunk_bins, other.chunk_bins)
    given = {
        "images": {"left": stack[:, 0], "right": stack[:, 1]}, "instructions": ["go", "stop"],
        "embodiment": "hand", "states": np.array([[0.3, 1.0], [-2.0, 0.2]], np.float32),
    }  # fmt: skip
    one, other = artifact.act(**given), policy.act(**given)
    assert one.chunk.shape == (2, 2, 2) and one.text == other.text
    np.testing.assert_array_equal(one.chunk, other.chunk)
    with pytest.raises(ValueError, match="states: needed"):
        artifact.act(given["images"], ["go", "stop"], embodiment="hand")


def test_a_model_that_knows_no_robot_has_no_actions(shipped, tmp_path):
    plain = dataclasses.replace(shipped, embodiments={})
    assert isinstance(plain, LoadedBundle)
    with pytest.raises(UserError, match="was shown no robot"):
        save_artifact(tmp_path / "out", plain)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="batch sizes are"):
        save_artifact(tmp_path / "out", shipped, batch_sizes=(0,))
    with pytest.raises(UserError, match="mode 'fly' is unknown"):
        save_artifact(tmp_path / "out", shipped, modes=("fly",))
