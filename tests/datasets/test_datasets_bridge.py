"""docs/data.md and docs/embodiments.md, followed with datasets of others: what was recorded is what a robot does."""

import dataclasses
import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.actions import load_card
from rt2_jax.bundle.store import load_bundle
from rt2_jax.cli import main
from rt2_jax.data.reader import PreparedSplit
from rt2_jax.data.records import read_embodiments, read_index
from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.policy.load import make_policy
from rt2_jax.train.config import make_config
from rt2_jax.train.loop import train
from tests.datasets.other_robots import as_language_table, language_table_features, write_tfds

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
HEIGHT, WIDTH = 24, 32
EPISODES, STEPS = 3, 5


def features():
    """bridge 0.1.0, with smaller frames."""
    tensor, scalar, text = tfds.features.Tensor, tfds.features.Scalar, tfds.features.Text
    image = tfds.features.Image(shape=(HEIGHT, WIDTH, 3), dtype=np.uint8, encoding_format="jpeg")
    observation = {
        "image": image,
        "natural_language_instruction": text(),
        "natural_language_embedding": tensor(shape=(512,), dtype=np.float32),
        "state": tensor(shape=(7,), dtype=np.float32),
    }
    action = {
        "world_vector": tensor(shape=(3,), dtype=np.float32),
        "rotation_delta": tensor(shape=(3,), dtype=np.float32),
        "open_gripper": scalar(dtype=np.bool_),
        "terminate_episode": scalar(dtype=np.float32),
    }
    flags = {name: scalar(dtype=np.bool_) for name in ("is_first", "is_last", "is_terminal")}
    step = {"observation": observation, "action": action, "reward": scalar(dtype=np.float32), **flags}
    return tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step)})


def episode(rng, number):
    frame = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    steps = []
    for step in range(STEPS):
        # The first action of an episode is all zero; some others pass the bounds of the card.
        move = rng.uniform(-0.055, 0.055, 3) if step else np.zeros(3)
        turn = rng.uniform(-0.28, 0.28, 3) if step else np.zeros(3)
        steps.append(
            {
                "observation": {
                    "image": frame,
                    "natural_language_instruction": f"put carrot on plate {number}",
                    "natural_language_embedding": np.zeros(512, np.float32),
                    "state": np.zeros(7, np.float32),
                },
                "action": {
                    "world_vector": move.astype(np.float32),
                    "rotation_delta": turn.astype(np.float32),
                    "open_gripper": bool(step % 2),
                    "terminate_episode": np.float32(step == STEPS - 2),
                },
                "reward": np.float32(0),
                "is_first": step == 0,
                "is_last": step == STEPS - 1,
                "is_terminal": step == STEPS - 1,
            }
        )
    return {"steps": steps}


def pusher_episode(rng, number):
    frames = rng.integers(0, 256, (STEPS, HEIGHT, WIDTH, 3), dtype=np.uint8)
    return as_language_table(f"push the moon to the star {number}", frames, rng.uniform(-0.11, 0.11, (STEPS, 2)))


@pytest.fixture
def bridge(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [episode(rng, number) for number in range(EPISODES)]
    write_tfds(tmp_path / "bridge" / "0.1.0", "bridge", {"train": episodes}, features())
    pushes = [pusher_episode(rng, number) for number in range(EPISODES)]
    write_tfds(
        tmp_path / "language_table" / "0.0.1",
        "language_table",
        {"train": pushes},
        language_table_features(HEIGHT, WIDTH),
    )
    photos = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "captions": tfds.features.Sequence({"text": tfds.features.Text()}),
        }
    )
    frame = encode_jpeg(np.zeros((20, 10, 3), np.uint8))
    write_tfds(
        tmp_path / "photos" / "1.0.0",
        "photos",
        {"train": [{"image": tf.io.decode_jpeg(frame).numpy(), "captions": [{"text": "a dog"}]}]},
        photos,
    )
    return tmp_path, episodes, pushes


def recorded(episodes):
    """float32[N, 8]: the actions as the arm was sent them, without each episode's last, which is undefined."""
    rows = []
    for one in episodes:
        for step in one["steps"][:-1]:
            action = step["action"]
            gripper = [-1.0 if action["open_gripper"] else 1.0]
            rows.append(
                np.concatenate(
                    [[action["terminate_episode"]], action["world_vector"], action["rotation_delta"], gripper]
                )
            )
    return np.array(rows, np.float32)


class Scripted:
    """A model that says the tokens which it is given for parameters, a row each."""

    def __init__(self, config):
        self.config = config

    def prefill(self, params, images, prompt, max_len, *, ids):
        return self._logits(params, 0, ids), ()

    def decode_step(self, params, cache, token, index, *, ids):
        return self._logits(params, index + 1, ids), cache

    def _logits(self, params, index, ids):
        wanted = params[:, jnp.minimum(index, params.shape[1] - 1)]
        logits = jax.nn.one_hot(wanted, self.config.vocab_size)
        return logits if ids is None else logits[:, ids]


@pytest.fixture
def prepared(bridge, monkeypatch):
    """(the folder, the datasets, a mixture of all), once the documentation has been followed."""
    data, *datasets = bridge
    monkeypatch.syspath_prepend(data)
    (data / "cards").mkdir()
    mixture = {}
    for page, module in (("data.md", "my_tasks"), ("embodiments.md", "pusher_tasks")):
        text = (DOCS / page).read_text(encoding="utf-8")
        (data / f"{module}.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)))
        for card in re.findall(r"```json\n(.*?)```", text, re.DOTALL):
            (data / "cards" / "pusher.json").write_text(card)
        monkeypatch.delitem(sys.modules, module, raising=False)
        command = re.search(rf"`rt2 (data prepare --data DATA --task-modules {module} [^`]*)`", text).group(1)
        assert main([str(data) if word == "DATA" else word for word in command.split()]) == 0
        found = re.search(r"`({[^`]*})`\s+as the mixture", text)
        mixture |= json.loads(found.group(1)) if found else {}
    return data, *datasets, mixture | {"pusher_action": 0.5}


MODEL = {
    "size": "tiny",
    "scan_unroll": False,
    "vision": {"width": 8, "layers": 1, "heads": 1, "head_dim": 8, "mlp": 8, "patch_size": 48, "stem_widths": ()},
    "text": {"width": 8, "encoder_layers": 1, "decoder_layers": 1, "heads": 1, "head_dim": 8, "mlp": 8},
}


def act_as_recorded(run, data, task, embodiment):
    """(the policy's bins, its actions): what the run's policy does where its model says what the task's targets say."""
    bundle, split = load_bundle(run), PreparedSplit(data, task, "train")
    read = list(split.read(range(len(split))))
    width = max(len(record.target) for record, _ in read)
    script = np.stack([np.pad(record.target, (0, width - len(record.target))) for record, _ in read])
    told = {bundle.vocabulary.decode(record.prompt) for record, _ in read}
    fake = Scripted(bundle.backbone.config)
    rows = 1 << (len(read) - 1).bit_length()
    bundle = dataclasses.replace(bundle, backbone=fake, params=jnp.asarray(np.resize(script, (rows, width))))
    policy = make_policy(bundle)
    frames = np.stack([images for _, images in read])
    prompts = [bundle.vocabulary.decode(record.prompt) for record, _ in read]
    output = policy.act_on_prompts(frames, prompts, embodiment=embodiment)
    return policy.embodiment(embodiment).bins, output.actions, told


def check_within_half_a_bin(bins, decoded, actions):
    low, high = np.asarray(bins.space.low), np.asarray(bins.space.high)
    outside = (actions < low) | (actions > high)
    assert decoded.shape == actions.shape and 0 < outside.sum() < outside.size / 2
    two = np.asarray(bins.space.kinds) != "continuous"
    np.testing.assert_array_equal(decoded[:, two], actions[:, two])
    error = np.abs(decoded - np.clip(actions, low, high))[:, ~two]
    assert (error <= bins.bin_size[~two] / 2 + 1e-6).all()


def test_what_the_documentation_says_gives_back_the_recorded_actions(prepared, tmp_path):
    """From two datasets of other robots to one bundle whose policy does what was recorded, each in its own units."""
    data, episodes, pushes, mixture = prepared
    card, pusher = sys.modules["my_tasks"].BRIDGE, load_card(data / "cards" / "pusher.json")
    robots = {"bridge": card, "language_table": pusher}
    assert read_embodiments(data, mixture) == robots
    assert read_index(data, "photos_caption", "train").embodiment is None
    assert card.space.high[1:7] == (0.05,) * 3 + (0.25,) * 3 and pusher.space.width == 2

    config = {
        "data_dir": str(data), "mixture": mixture, "model": {**MODEL, "image_size": 96}, "steps": 1, "batch_size": 5,
        "prompt_len": 40, "target_len": 12, "eval_every": 0,
    }  # fmt: skip
    run = tmp_path / "run"
    assert train(make_config(config), run) == 0
    assert load_bundle(run).embodiments == robots
    logged = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {f"{task}/loss" for task in mixture} <= set(logged)

    bins, decoded, told = act_as_recorded(run, data, "bridge_action", "bridge")
    check_within_half_a_bin(bins, decoded, recorded(episodes))
    assert "Q: what action should the robot take to put carrot on plate 2? A:" in told
    bins, decoded, told = act_as_recorded(run, data, "pusher_action", "language_table")
    pushed = np.array([step["action"] for one in pushes for step in one["steps"][:-1]])
    check_within_half_a_bin(bins, decoded, pushed)
    assert "Q: what action should the planar pusher take to push the moon to the star 0? A:" in told


def test_a_card_that_changed_after_preparing_is_refused(prepared, capsys):
    data = prepared[0]
    path = data / "cards" / "pusher.json"
    path.write_text(path.read_text().replace('"num_bins": 21', '"num_bins": 41'))
    assert main(["data", "prepare", "--data", str(data), "--task-modules", "pusher_tasks", "--image-size", "96"]) != 0
    assert "was prepared when num_bins was 21, now 41; run `rt2 data prepare" in " ".join(
        capsys.readouterr().err.split()
    )
