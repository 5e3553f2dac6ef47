"""One model, several robots: trained on all of them, it answers each with actions of its own."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

import rt2_jax
from rt2_jax.actions import ActionBins, ActionSpace, Embodiment, load_card
from rt2_jax.cli import main
from rt2_jax.errors import UserError
from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.train.config import make_config
from rt2_jax.train.loop import train

SPACE = ActionSpace(("dx", "dy"), (-0.105, -0.105), (0.105, 0.105), ("m", "m"))
PUSHER = Embodiment("pusher", ActionBins(SPACE, num_bins=21, first=100), robot="planar pusher", chunk=2)
ARM = load_card("tabletop")
WIRINGS = {
    "pali": {},
    "palm_e": {
        "size": "tiny_palm_e",
        "text": {"width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp": 32},
    },
}


@pytest.fixture(scope="module")
def two_robots(prepared, tmp_path_factory):
    """Data of both, and of a task of words."""
    path = tmp_path_factory.mktemp("two")
    for seed, (task, robot) in enumerate({"reach": ARM, "push": PUSHER, "name": None}.items()):
        for number, split in enumerate(("train", "validation")):
            prepared.write_split(path, task, split, 24, 10 * seed + number, embodiment=robot)
    return path


@pytest.fixture(scope="module", params=WIRINGS)
def run(request, two_robots, prepared, tmp_path_factory):
    """(fields, workdir) of a run of four steps over both robots and words."""
    fields = {
        **prepared.FIELDS, "data_dir": str(two_robots), "mixture": {"reach": 2.0, "push": 1.0, "name": 1.0},
        "model": {**prepared.MODEL, **WIRINGS[request.param]}, "steps": 4, "checkpoint_every": 4, "eval_every": 4,
        "prompt_len": 24, "target_len": 16,
    }  # fmt: skip
    workdir = tmp_path_factory.mktemp(request.param) / "run"
    assert train(make_config(fields), workdir) == 0
    return fields, workdir


def test_the_loss_of_each_task_is_logged(run):
    rows = [json.loads(line) for line in (run[1] / "metrics.jsonl").read_text().splitlines()]
    for split in ("train", "validation"):
        last = [row for row in rows if row["split"] == split][-1]
        assert all(np.isfinite(last[f"{task}/loss"]) for task in ("reach", "push", "name"))


def test_one_bundle_acts_for_both_and_only_validly(run):
    assert rt2_jax.load_bundle(run[1]).embodiments == {"tabletop": ARM, "pusher": PUSHER}
    # Nearly every token is as likely as every other: what keeps actions valid is the grammar alone.
    policy = rt2_jax.load_policy(run[1], temperature=100.0)
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    seen = {}
    for robot, width, steps in ((ARM, 8, 1), (PUSHER, 2, 2)):
        rows = [policy.act(frames, ["7"] * 8, "plan", jax.random.key(seed), embodiment=robot.name) for seed in range(6)]
        bins = np.concatenate([output.chunk_bins for output in rows])
        assert bins.shape == (48, steps, width)
        assert robot.bins.allowed[np.arange(width), bins].all()
        np.testing.assert_array_equal(robot.bins.decode(bins), np.concatenate([output.chunk for output in rows]))
        seen[robot.name] = bins
    assert len(np.unique(seen["pusher"])) > 12 and len(np.unique(seen["tabletop"][..., 1:])) > 100
    with pytest.raises(UserError, match="acts for 2 embodiments; name one of: tabletop, pusher"):
        policy.act(frames, ["7"] * 8, rng=jax.random.key(0))


def test_the_command_line_names_who_acts(run, tmp_path, capsys):
    (tmp_path / "frame.jpg").write_bytes(encode_jpeg(np.zeros((32, 32, 3), np.uint8)))
    asked = ["sample", "--checkpoint", str(run[1]), "--image", str(tmp_path / "frame.jpg"), "--instruction", "7"]
    assert main(asked) != 0
    assert "acts for 2 embodiments; name one of: tabletop, pusher" in capsys.readouterr().err
    assert main([*asked, "--embodiment", "pusher", "--state", "1"]) != 0
    assert "pusher has no proprioception, and states are given" in capsys.readouterr().err
    assert main([*asked, "--embodiment", "pusher"]) == 0
    said = capsys.readouterr().out
    # Two actions of two numbers: the integers, then metres, step by step.
    integers = np.array(said.splitlines()[0].split(), int)
    numbers = np.array([float(found) for found in re.findall(r"d[xy] +([+-][\d.]+) m", said)])
    np.testing.assert_allclose(numbers, PUSHER.bins.decode(integers.reshape(2, 2)).ravel(), atol=1e-4)
    assert "step 1" in said


def test_a_run_goes_on_with_both_and_refuses_another_meaning_of_one(run, two_robots, prepared, tmp_path):
    shutil.copytree(two_robots, tmp_path / "data")
    fields, workdir = run[0] | {"data_dir": str(tmp_path / "data")}, run[1]
    assert train(make_config(fields), workdir) == 0
    wider = ActionBins(ActionSpace(("dx", "dy"), (-0.2, -0.2), (0.2, 0.2), ("m", "m")), num_bins=21, first=100)
    other = Embodiment("pusher", wider, robot="planar pusher", chunk=2)
    for number, split in enumerate(("train", "validation")):
        shutil.rmtree(tmp_path / "data" / "prepared" / "push" / split)
        prepared.write_split(tmp_path / "data", "push", split, 24, 10 + number, embodiment=other)
    with pytest.raises(
        UserError, match="trained with actions of pusher of which the lower bound of dx is -0.105, in .* -0.2"
    ):
        train(make_config(fields), workdir)
