import pathlib
import re

import numpy as np
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rt2_jax.actions import ActionBins, Embodiment, arm_space, load_card
from rt2_jax.data.reader import PreparedSplit, make_reader
from rt2_jax.data.records import read_index
from rt2_jax.datasets import tasks
from rt2_jax.datasets.prepare import prepare
from rt2_jax.datasets.seqio_vocabulary import SeqioVocabulary
from rt2_jax.datasets.tabletop import tasks as tabletop
from rt2_jax.datasets.tabletop.mixtures import MIXTURES, ROBOT, WEB
from rt2_jax.datasets.tfds_folder import FolderSpec, finish, make_ready, write_shard
from rt2_jax.errors import UserError
from rt2_jax.inputs.images import decode_image
from rt2_jax.tokens import Vocabulary, action_text

DOC = pathlib.Path(__file__).resolve().parents[2] / "docs" / "data.md"
WORDS = Vocabulary.load()
SEQIO_WORDS = SeqioVocabulary(WORDS)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40))
@example("Q: what action should the robot take to pick red cube? A:")
@example("1 128 91 241 5 101 127 217")
@example("Generate the alt-text in en at 7: a <extra_id_0>")
@example("  two  spaces \n")
def test_the_seqio_vocabulary_gives_the_same_ids(text):
    ids = WORDS.encode(text)
    assert list(SEQIO_WORDS.encode(text)) == ids
    in_graph = SEQIO_WORDS.encode_tf(tf.constant(text.encode("utf-8")))
    assert in_graph.dtype == tf.int32 and in_graph.numpy().tolist() == ids


def test_the_seqio_vocabulary_decodes_and_compares_as_ours():
    ids = WORDS.encode("Plan: pick red cube. Action: 1 128")
    padded = [*ids, WORDS.eos_id, 0, 0]
    assert SEQIO_WORDS.decode(padded) == WORDS.decode(padded)
    assert SEQIO_WORDS.decode_tf(tf.constant(ids)).numpy().decode() == WORDS.decode(ids)
    assert SEQIO_WORDS.vocab_size == WORDS.size and SeqioVocabulary(Vocabulary.load()) == SEQIO_WORDS
    assert len({SEQIO_WORDS, SeqioVocabulary(WORDS)}) == 1


@pytest.fixture
def registered(built):
    return tabletop.register(built)


def take(name, split="train"):
    task = seqio.get_mixture_or_task(name)
    return list(task.get_dataset(split=split, shuffle=False, try_in_mem_cache=False).as_numpy_iterator())


def raw(built, name):
    decoders = {"steps" if name == "tabletop_robot" else "image": tfds.decode.SkipDecoding()}
    builder = tfds.builder_from_directory(built / name / "1.0.0")
    return list(builder.as_dataset(split="train", decoders=decoders).as_numpy_iterator())


def test_registering_again_replaces_and_names_every_task(built, registered):
    assert set(registered) == {*ROBOT, *WEB} == set(tabletop.register(built))
    assert set(MIXTURES) <= set(seqio.MixtureRegistry.names())
    for name in registered:
        assert set(seqio.TaskRegistry.get(name).splits) == {"train", "validation"}


def test_action_examples_are_every_step_with_its_bins(built, registered):
    examples = take("tabletop_robot_action")
    bins = ActionBins(load_card(built / "tabletop_robot/1.0.0/card.json").space)
    rows = []
    for episode in raw(built, "tabletop_robot"):
        seen, fields = episode["steps"]["observation"], episode["steps"]["action"]
        terminate = fields["terminate_episode"][:, :1].astype(np.float32)
        moves = [fields[name] for name in ("world_vector", "rotation_delta", "gripper_closedness_action")]
        actions = np.concatenate([terminate, *moves], axis=1)
        rows += zip(seen["image"], seen["natural_language_instruction"], actions, strict=True)
    for found, (image, instruction, action) in zip(examples, rows, strict=True):
        assert found["image"] == image
        assert WORDS.decode(found["inputs"]) == f"Q: what action should the robot take to {instruction.decode()}? A:"
        assert WORDS.decode(found["targets"]) == action_text(WORDS, bins.encode(action))
        assert found["targets"][-1] == WORDS.eos_id and len(found["targets"]) == 9
    # The last step of an episode terminates and is trained on.
    assert WORDS.decode(examples[-1]["targets"]).startswith("0 ")


def test_plan_examples_state_the_plan_and_then_the_same_action(registered):
    for plan, action in zip(take("tabletop_robot_plan"), take("tabletop_robot_action"), strict=True):
        text = WORDS.decode(plan["targets"])
        assert re.fullmatch(r"Plan: (reach|push) .*\. Action: " + WORDS.decode(action["targets"]), text)
        assert WORDS.decode(plan["inputs"]).startswith("Instruction: ")


PROMPTS = {
    "caption": r"Generate caption in (en|de|fr|es)",
    "vqa": r"Answer in (en|de|fr|es): .+",
    "alt_text": r"Generate the alt-text in (en|de|fr|es) at \d+: .+ <extra_id_0>",
    "detect": "Detect all objects",
    "locate": "Locate the .+",
    "detect_from_gripper": "Detect all objects from the robot gripper",
    "locate_from_gripper": "Locate the .+ from the robot gripper",
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_each_annotation_of_a_kind_is_one_example(built, registered, kind):
    examples = take(f"tabletop_web_{kind}")
    wanted = [
        (one["image"], target.decode())
        for one in raw(built, "tabletop_web")
        for found, target in zip(one["annotations"]["kind"], one["annotations"]["target"], strict=True)
        if found.decode() == kind
    ]
    assert [(one["image"], WORDS.decode(one["targets"])) for one in examples] == wanted
    for one in examples:
        assert re.fullmatch(PROMPTS[kind], WORDS.decode(one["inputs"]))


def test_mixtures_stream_through_seqio_too(registered):
    mixture = seqio.MixtureRegistry.get("tabletop_cofinetune_50")
    lengths = {"image": None, "inputs": 64, "targets": 64}
    dataset = mixture.get_dataset(lengths, split="train", shuffle=False, num_epochs=None)
    for found in dataset.take(5).as_numpy_iterator():
        assert found["image"][:2] == b"\xff\xd8"


def test_nothing_built_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="holds neither tabletop_robot nor tabletop_web; run `rt2 data build`"):
        tabletop.register(tmp_path)
    with pytest.raises(UserError, match="task mine: no dataset in .*dataset_info.json is missing"):
        tasks.register_robot_task("mine", tmp_path, load_card("tabletop"), tabletop.tabletop_steps)
    with pytest.raises(UserError, match="mode 'talk' is unknown; choose one of action, plan"):
        tasks.register_robot_task("mine", tmp_path, load_card("tabletop"), tabletop.tabletop_steps, mode="talk")


# --- preparing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path, built):
    for name in ("tabletop_robot", "tabletop_web"):
        (tmp_path / name).symlink_to(built / name)
    return tmp_path


def test_prepared_records_are_the_examples_of_the_task(data):
    names = ("tabletop_robot_plan", "tabletop_web_vqa")
    found = prepare(data, names, show_progress=False)
    wanted = [(task, split) for task in names for split in ("train", "validation")]
    assert [(index.task, index.split) for index in found] == wanted
    for name in names:
        opened = PreparedSplit(data, name, "train")
        examples = take(name)
        assert opened.index.longest_target == max(len(one["targets"]) for one in examples)
        assert (opened.index.vocabulary, opened.index.image_size) == (WORDS.sha256, 32)
        for (record, frames), one in zip(opened.read(range(len(opened))), examples, strict=True):
            assert record.task == name and np.array_equal(frames, decode_image(one["image"])[None])
            assert record.instruction.encode() == one["instruction"]
            assert record.prompt.tolist() == one["inputs"].tolist()
            assert record.target.tolist() == one["targets"].tolist()
    with make_reader(data, dict.fromkeys(names, 0.5), "train", 16, 0, 64, 64) as reader:
        assert next(reader).images.shape == (16, 1, 32, 32, 3)


def test_prepared_splits_are_kept_until_something_differs(data, tmp_path):
    task = ["tabletop_web_detect"]
    first = prepare(data, task, ("train",), show_progress=False)
    folder = data / "prepared/tabletop_web_detect/train"
    stamp = (folder / "index.json").stat().st_mtime_ns
    assert prepare(data, task, ("train",), show_progress=False) == first
    assert (folder / "index.json").stat().st_mtime_ns == stamp
    other = tmp_path / "other.model"
    other.write_bytes(WORDS.path.read_bytes() + _unknown_field())
    with pytest.raises(UserError, match="was prepared from another vocabulary.*--tasks tabletop_web_detect --over"):
        prepare(data, task, vocabulary=other, show_progress=False)
    with pytest.raises(UserError, match=r"was prepared from another image size \(32, now 16\)"):
        prepare(data, task, image_size=16, show_progress=False)
    again = prepare(data, task, ("train",), image_size=16, overwrite=True, show_progress=False)
    assert again[0].image_size == 16 and PreparedSplit(data, task[0], "train").read([0])[0][1].shape == (1, 16, 16, 3)


def test_a_split_prepared_with_another_card_is_refused(data):
    def register(translation):
        card = Embodiment("mine", ActionBins(arm_space(translation, 0.3)))
        tasks.register_robot_task("mine", data / "tabletop_robot/1.0.0", card, tabletop.tabletop_steps)
        return card

    card = register(0.04)
    index = prepare(data, ["mine"], ("train",), show_progress=False)[0]
    assert index == read_index(data, "mine", "train")
    assert index.embodiment == card
    register(0.05)
    with pytest.raises(UserError, match=r"prepared when the lower bound of dx was -0.04, now -0.05; run .*--overwrite"):
        prepare(data, ["mine"], ("train",), show_progress=False)
    assert prepare(data, ["mine"], ("train",), overwrite=True, show_progress=False)[0].embodiment.space.high[1] == 0.05


def _unknown_field():
    """A protocol buffer field that SentencePiece ignores: the same model in other bytes."""
    return bytes([0xFA, 0x3F, 0x01, 0x00])


def test_longer_examples_are_left_out_and_counted(data):
    whole = prepare(data, ["tabletop_web_detect"], ("train",), show_progress=False)[0]
    limit = whole.longest_target - 1
    short = prepare(data, ["tabletop_web_detect"], ("train",), overwrite=True, target_len=limit, show_progress=False)[0]
    assert short.longest_target <= limit
    assert short.dropped >= 1 and short.dropped + short.num_examples == whole.num_examples


def test_unknown_tasks_and_modules_are_named(data):
    with pytest.raises(UserError, match="task 'tabletop_web_smell' is not registered; choose from: .*tabletop_web_vqa"):
        prepare(data, ["tabletop_web_smell"], show_progress=False)
    with pytest.raises(UserError, match="task module 'no_such_module' cannot be imported.*PYTHONPATH"):
        prepare(data, task_modules=["no_such_module"], show_progress=False)
    with pytest.raises(UserError, match="task module 'json' has no register"):
        prepare(data, task_modules=["json"], show_progress=False)


def test_a_task_of_another_vocabulary_is_refused(data, tmp_path):
    other = tmp_path / "other.model"
    other.write_bytes(WORDS.path.read_bytes() + _unknown_field())
    tasks.register_image_text_task(
        "mine", data / "tabletop_web/1.0.0", tabletop._annotations_of("vqa"), str, vocabulary=Vocabulary.load(other)
    )
    with pytest.raises(UserError, match="task mine is registered with vocabulary .*other.model, asked for"):
        prepare(data, ["mine"], show_progress=False)


# --- the documentation's example --------------------------------------------------------------------------------------


def _write_dataset(data_dir, name, version, features, examples):
    spec = FolderSpec(data_dir, name, version, "", features, {"train": len(examples)}, 10, {})
    for shard in make_ready(spec, overwrite=False).shards:
        write_shard(spec, shard, examples)
    finish(spec)


def _write_bridge(data_dir, first_move=0.0):
    """Two episodes of three steps in the layout of bridge 0.1.0, with frames of 24 x 32 pixels."""
    tensor, scalar = tfds.features.Tensor, tfds.features.Scalar
    step = {
        "observation": {
            "image": tfds.features.Image(shape=(24, 32, 3), encoding_format="jpeg"),
            "natural_language_instruction": tfds.features.Text(),
        },
        "action": {
            "world_vector": tensor(shape=(3,), dtype=np.float32),
            "rotation_delta": tensor(shape=(3,), dtype=np.float32),
            "open_gripper": scalar(dtype=np.bool_),
            "terminate_episode": scalar(dtype=np.float32),
        },
        **{name: scalar(dtype=np.bool_) for name in ("is_first", "is_last", "is_terminal")},
    }

    def one(episode, number):
        return {
            "observation": {
                "image": np.full((24, 32, 3), 40 * number, np.uint8),
                "natural_language_instruction": f"put carrot on plate {episode}",
            },
            "action": {
                "world_vector": np.array([first_move, 0.05, -0.05], np.float32),
                "rotation_delta": np.zeros(3, np.float32),
                "open_gripper": number == 0,
                "terminate_episode": np.float32(number == 2),
            },
            "is_first": number == 0,
            "is_last": number == 2,
            "is_terminal": number == 2,
        }

    features = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step)})
    examples = [{"steps": [one(episode, number) for number in range(3)]} for episode in range(2)]
    _write_dataset(data_dir, "bridge", "0.1.0", features, examples)


def _write_photos(data_dir):
    """One PNG with three captions."""
    image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
    captions = tfds.features.Sequence({"text": tfds.features.Text()})
    features = tfds.features.FeaturesDict({"image": image, "captions": captions})
    example = {"image": np.zeros((20, 10, 3), np.uint8), "captions": [{"text": f"a dog {k}"} for k in range(3)]}
    _write_dataset(data_dir, "photos", "1.0.0", features, [example])


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """The code blocks of docs/data.md as a module on the path."""
    blocks = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4 and all(len([line for line in b.splitlines() if line.strip()]) <= 20 for b in blocks)
    name = f"documented_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("\n".join(blocks))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_the_documented_datasets_are_added_prepared_and_read(tmp_path, documented):
    _write_bridge(tmp_path)
    _write_photos(tmp_path)
    indices = prepare(tmp_path, task_modules=[documented], image_size=16, show_progress=False)
    # Two steps of each episode: the last one's action is undefined and left out. Two captions of three.
    counts = {"bridge_done": 4, "bridge_action": 4, "photos_caption": 2}
    assert {index.task: index.num_examples for index in indices} == counts
    by_name = {index.task: index for index in indices}
    assert by_name["bridge_done"].frames == by_name["bridge_action"].frames and by_name["bridge_done"].kind == "vqa"
    for number, (record, frames) in enumerate(PreparedSplit(tmp_path, "bridge_done", "train").read(range(4))):
        assert WORDS.decode(record.prompt) == "Answer in en: is the task done?"
        assert WORDS.decode(record.target) == ("yes" if number % 2 else "no")
        assert np.abs(frames.astype(int) - (80 if number % 2 else 0)).max() <= 2
    records = [record for record, _ in PreparedSplit(tmp_path, "bridge_action", "train").read(range(4))]
    texts = [(WORDS.decode(record.prompt), WORDS.decode(record.target)) for record in records]
    assert texts[0][0] == "Q: what action should the robot take to put carrot on plate 0? A:"
    assert texts[0][1] == "1 128 255 0 128 128 128 0"
    assert texts[1][1] == "1 128 255 0 128 128 128 255"
    with make_reader(tmp_path, {"bridge_action": 0.5, "photos_caption": 0.5}, "train", 4, 0, 32, 16) as reader:
        batch = next(reader)
    assert batch.images.shape == (4, 1, 16, 16, 3)
    assert sorted(WORDS.decode(row) for row in batch.target[batch.task == 1]) == ["a dog 0", "a dog 1"]


def test_frames_that_are_not_square_need_a_size(tmp_path, documented):
    _write_bridge(tmp_path)
    _write_photos(tmp_path)
    with pytest.raises(UserError, match="bridge_action: frames are 32 x 24 pixels; give an image size"):
        prepare(tmp_path, ["bridge_action"], task_modules=[documented], show_progress=False)
    assert not (tmp_path / "prepared/bridge_action/train").exists()
    with pytest.raises(UserError, match="not a prepared split"):
        read_index(tmp_path, "bridge_action", "train")


def test_a_bad_action_is_named_without_tensorflow_s_traceback(tmp_path, documented):
    _write_bridge(tmp_path, first_move=float("nan"))
    _write_photos(tmp_path)
    with pytest.raises(UserError, match=r"bridge_action/train: action: nan in dimension 'dx' at \(0, 1\)") as caught:
        prepare(tmp_path, ["bridge_action"], task_modules=[documented], image_size=16, show_progress=False)
    assert "\n" not in str(caught.value)
