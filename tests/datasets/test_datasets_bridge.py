"""docs/data.md, followed to the letter with a dataset that others wrote: what was recorded is what a robot would do."""

import pathlib
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.actions import ActionBins
from rt2_jax.cli import main
from rt2_jax.data.reader import PreparedSplit
from rt2_jax.data.records import action_meaning, read_index
from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.tokens import Vocabulary
from rt2_jax.tokens.action_text import parse_action_text

DOC = pathlib.Path(__file__).resolve().parents[2] / "docs" / "data.md"
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


def write_tfds(folder, name, split_examples, wanted):
    """A dataset as TFDS itself writes it: nothing of this package."""
    folder.mkdir(parents=True)
    serializer = tfds.core.example_serializer.ExampleSerializer(wanted.get_serialized_info())
    infos = []
    for split, examples in split_examples.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, split=split, filetype_suffix="tfrecord"
        )
        rows = [serializer.serialize_example(wanted.encode_example(example)) for example in examples]
        with tf.io.TFRecordWriter(str(folder / f"{name}-{split}.tfrecord-00000-of-00001")) as writer:
            for row in rows:
                writer.write(row)
        infos.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[len(rows)], num_bytes=sum(map(len, rows)), filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(data_dir=folder, features=wanted, split_infos=infos, description="")


@pytest.fixture
def bridge(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [episode(rng, number) for number in range(EPISODES)]
    write_tfds(tmp_path / "bridge" / "0.1.0", "bridge", {"train": episodes}, features())
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
    return tmp_path, episodes


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


def test_what_the_documentation_says_gives_back_the_recorded_actions(bridge, monkeypatch):
    data, episodes = bridge
    text = DOC.read_text(encoding="utf-8")
    (data / "my_tasks.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)))
    monkeypatch.syspath_prepend(data)
    monkeypatch.delitem(sys.modules, "my_tasks", raising=False)
    command = re.search(r"`rt2 (data prepare --data DATA --task-modules my_tasks [^`]*)`", text).group(1)
    assert main([str(data) if word == "DATA" else word for word in command.split()]) == 0

    card = sys.modules["my_tasks"].CARD
    assert action_meaning(data, ["bridge_action", "photos_caption"]) == (card, ActionBins(card.space))
    assert read_index(data, "photos_caption", "train").card is None
    assert card.space.high[1:7] == (0.05,) * 3 + (0.25,) * 3

    # What a policy does with the integers it decodes, with the bins that stand in the data.
    bins, words = action_meaning(data, ["bridge_action"])[1], Vocabulary.load()
    split = PreparedSplit(data, "bridge_action", "train")
    targets = [words.decode(record.target) for record, _ in split.read(range(len(split)))]
    decoded = bins.decode(np.stack([parse_action_text(words, target, bins.width) for target in targets]))
    actions = recorded(episodes)
    assert decoded.shape == actions.shape and len(actions) == EPISODES * (STEPS - 1)
    low, high = np.asarray(card.space.low), np.asarray(card.space.high)
    outside = (actions < low) | (actions > high)
    assert 0 < outside.sum() < outside.size / 2
    np.testing.assert_array_equal(decoded[:, 0], actions[:, 0])
    error = np.abs(decoded - np.clip(actions, low, high))[:, 1:]
    assert (error <= bins.bin_size[1:] / 2 + 1e-6).all()
