import json
import shutil
import signal

import numpy as np
import pytest
import tensorflow_datasets as tfds

from rt2_jax.actions import ActionBins, load_card
from rt2_jax.datasets import tfds_folder
from rt2_jax.datasets.tabletop import demonstrations
from rt2_jax.datasets.tabletop import write as datasets
from rt2_jax.datasets.tabletop.build import build
from rt2_jax.datasets.tabletop.demonstrations import MOST_ATTEMPTS, RobotJob, render_web, simulator_pool, stream_seed
from rt2_jax.datasets.tfds_folder import make_ready
from rt2_jax.errors import UserError
from rt2_jax.inputs.images import decode_image
from rt2_jax.sim.language import describe

ROBOT, WEB = "tabletop_robot/1.0.0", "tabletop_web/1.0.0"


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def short_shards(monkeypatch):
    monkeypatch.setattr(datasets, "EPISODES_PER_SHARD", 2)
    monkeypatch.setattr(datasets, "IMAGES_PER_SHARD", 4)


def episodes(folder, split):
    builder = tfds.builder_from_directory(folder / ROBOT)
    return list(builder.as_dataset(split=split, decoders={"steps": tfds.decode.SkipDecoding()}).as_numpy_iterator())


def test_demonstrations_are_rlds_that_tfds_reads(built):
    builder = tfds.builder_from_directory(built / ROBOT)
    assert builder.info.full_name == "tabletop_robot/1.0.0"
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 5, "validation": 1}
    episode = next(iter(builder.as_dataset(split="train")))
    steps = list(episode["steps"].as_numpy_iterator())
    assert steps[0]["observation"]["image"].shape == (32, 32, 3)
    shapes = {name: (value.shape, value.dtype) for name, value in steps[0]["action"].items()}
    assert shapes == {
        "world_vector": ((3,), np.float32),
        "rotation_delta": ((3,), np.float32),
        "gripper_closedness_action": ((1,), np.float32),
        "terminate_episode": ((3,), np.int32),
    }
    last = len(steps) - 1
    for number, step in enumerate(steps):
        assert step["is_first"] == (number == 0)
        assert step["is_last"] == step["is_terminal"] == step["reward"] == (number == last)
        assert step["action"]["terminate_episode"].tolist() == ([1, 0, 0] if number == last else [0, 1, 0])
    assert len({step["observation"]["natural_language_instruction"] for step in steps}) == 1


def test_episodes_are_successes_of_each_skill_in_turn_and_splits_share_no_seed(built):
    found = [episode["episode_metadata"] for split in ("train", "validation") for episode in episodes(built, split)]
    assert [one["skill"].decode() for one in found] == ["reach", "push", "reach", "push", "reach", "reach"]
    assert all(one["success"] for one in found)
    assert len({int(one["seed"]) for one in found}) == 6
    assert {one["split"].decode() for one in found[:5]} == {"train"} and found[5]["split"] == b"validation"
    scene = json.loads(found[0]["scene"])
    assert len(scene["objects"]) >= 4 and scene["gripper"]


def test_the_card_measures_the_training_split_alone(built):
    card = load_card(built / ROBOT / "card.json")
    steps = [episode["steps"] for episode in episodes(built, "train")]
    moves = np.concatenate([step["action"]["world_vector"] for step in steps])
    assert (card.num_episodes, card.num_steps) == (5, len(moves))
    np.testing.assert_allclose(card.statistics.mean[1:4], moves.mean(0), atol=1e-7)
    np.testing.assert_allclose(card.statistics.max[1:4], moves.max(0), atol=1e-7)
    assert card.statistics.mean[0] == pytest.approx(5 / len(moves))
    assert card.image_size == (32, 32)
    assert card.instructions[0] == steps[0]["observation"]["natural_language_instruction"][0].decode()
    actions = np.concatenate([np.zeros((len(moves), 1)), moves, np.zeros((len(moves), 4))], 1, dtype=np.float32)
    assert not ActionBins(card.space).clipped(actions).any()


def test_web_images_carry_every_kind_of_annotation(built):
    builder = tfds.builder_from_directory(built / WEB)
    dataset = builder.as_dataset(split="train", decoders={"image": tfds.decode.SkipDecoding()})
    examples = list(dataset.as_numpy_iterator())
    assert len(examples) == 6
    for example in examples:
        assert decode_image(example["image"]).shape == (32, 32, 3)
        assert json.loads(example["scene"])["objects"]
    kinds = {kind.decode() for example in examples for kind in example["annotations"]["kind"]}
    assert kinds == set(describe.KINDS)
    assert len({example["image"] for example in examples}) == 6


def test_an_interrupted_build_goes_on_to_the_same_bytes(tmp_path, monkeypatch, short_shards, arguments):
    build(tmp_path / "whole", **arguments)
    write = tfds_folder.write_shard
    written = []

    def stop_at_the_third(spec, shard, examples):
        written.append(spec.path(shard).name)
        if len(written) == 3:
            next(iter(examples))
            raise KeyboardInterrupt
        write(spec, shard, examples)

    monkeypatch.setattr(datasets, "write_shard", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "broken", **arguments)
    robot = tmp_path / "broken" / ROBOT
    kept = {path: path.stat().st_mtime_ns for path in robot.glob("*tfrecord*")}
    assert sorted(path.name for path in kept) == sorted(written[:2])
    with pytest.raises(Exception, match="dataset_info|Could not load|does not exist"):
        tfds.builder_from_directory(robot)

    monkeypatch.setattr(datasets, "write_shard", write)
    build(tmp_path / "broken", **arguments)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(robot.glob("*train*"))) == 3


def test_a_whole_dataset_is_kept_and_other_arguments_are_refused(built, tmp_path, monkeypatch, arguments):
    shutil.copytree(built, tmp_path / "copy")
    before = contents(tmp_path / "copy")
    build(tmp_path / "copy", **arguments)
    assert contents(tmp_path / "copy") == before
    with pytest.raises(UserError, match=r"built with seed=1 and this build has seed=2; .*--overwrite"):
        build(tmp_path / "copy", **arguments | {"seed": 2})
    assert contents(tmp_path / "copy") == before


def test_overwrite_empties_the_folder_and_a_foreign_one_is_left_alone(tmp_path):
    source = datasets.web_source(tmp_path, 3, 32, 0)
    folder = source.spec.folder
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("somebody else's")
    with pytest.raises(UserError, match="something else than `rt2 data build`"):
        make_ready(source.spec, overwrite=False)
    assert (folder / "dataset_info.json").exists()
    assert len(make_ready(source.spec, overwrite=True).shards) == 2
    assert [path.name for path in folder.iterdir()] == ["build.json"]


def test_a_full_disk_is_one_clear_error_and_leaves_no_shard(tmp_path):
    source = datasets.web_source(tmp_path, 3, 32, 0)
    shard = make_ready(source.spec, overwrite=False).shards[0]
    path = source.spec.path(shard)
    path.with_name(f".{path.name}.partial").symlink_to("/dev/full")
    example = {"image": np.zeros((32, 32, 3), np.uint8), "annotations": [], "scene": ""}
    with pytest.raises(UserError, match="cannot write .*No space left on device; free space"):
        tfds_folder.write_shard(source.spec, shard, [example] * 3)
    assert [path.name for path in source.spec.folder.iterdir()] == ["build.json"]
    assert make_ready(source.spec, overwrite=False).shards[0] == shard


def test_rendering_processes_never_import_tensorflow():
    with simulator_pool(1) as pool:
        assert len(pool.submit(render_web, demonstrations.WebJob("train", 0, 1, 0, 32)).result()) == 1
        assert pool.submit(eval, "'tensorflow' in __import__('sys').modules").result() is False


def test_a_rendering_process_with_tensorflow_says_what_to_do():
    # This very process has imported it.
    with pytest.raises(UserError, match="rendering process imported TensorFlow.*under `if __name__"):
        render_web(demonstrations.WebJob("train", 0, 1, 0, 32))


def test_seeds_never_meet():
    seeds = {
        stream_seed(seed, split, number, attempt)
        for seed in (0, 1, 2**20 - 1)
        for split in ("train", "validation")
        for number in (0, 1, 2**37 - 1)
        for attempt in range(MOST_ATTEMPTS)
    }
    assert len(seeds) == 3 * 2 * 3 * MOST_ATTEMPTS
    assert max(seeds) < 2**63


def test_failed_demonstrations_are_replaced_by_the_next_seed(monkeypatch):
    tried = []

    class Result:
        def __init__(self, seed):
            tried.append(seed)
            self.success = len(tried) == 3
            self.actions = np.ones((2, 8), np.float32)
            self.images = np.zeros((2, 32, 32, 3), np.uint8)
            self.instruction, self.plans, self.skill = "reach it", ("reach it",) * len(self.actions), "reach"

    monkeypatch.setattr(demonstrations, "_check_process", lambda: None)
    monkeypatch.setattr(demonstrations, "_world", lambda size: None)
    monkeypatch.setattr(demonstrations, "record_episode", lambda scene, task, seed, *rest, **kwargs: Result(seed))
    job = RobotJob("train", 4, 5, 0, 32, ("reach",), 0.0)
    found = demonstrations.play_demonstrations(job)
    assert [one.metadata["seed"] for one in found] == [stream_seed(0, "train", 4, 2)]
    assert tried == [stream_seed(0, "train", 4, attempt) for attempt in range(3)]
    tried.extend(range(10))
    with pytest.raises(UserError, match=f"expert failed {MOST_ATTEMPTS} times in a row at 'reach'"):
        demonstrations.play_demonstrations(job)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"robot_episodes": -1}, "robot episodes is -1; choose 0"),
        ({"robot_episodes": 0, "web_images": 0}, "both 0"),
        ({"image_size": 4}, "image size is 4; choose 16 to 512"),
        ({"seed": 2**20}, "seed is 1048576; choose 0 to 1048575"),
        ({"noise": 2.0}, "noise is 2.0"),
        ({"skills": ("juggle",)}, "skills are.*juggle.*reach, pick"),
        ({"workers": 0}, "workers is 0; choose 1 to 1024"),
        ({"workers": 2000}, "workers is 2000; choose 1 to 1024"),
    ],
)
def test_arguments_out_of_their_limits_are_refused(tmp_path, change, message, arguments):
    with pytest.raises(UserError, match=message):
        build(tmp_path, **arguments | change)


def test_ctrl_c_does_not_reach_rendering_processes_not_even_their_imports():
    with simulator_pool(1) as pool:
        blocked = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result()
    assert signal.SIGINT in blocked and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
