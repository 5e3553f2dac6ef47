"""Frames are stored once for all tasks of a dataset; cameras and history; what does not fit is one line."""

import re
import shlex

import numpy as np
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.actions import ActionBins, Embodiment, arm_space
from rt2_jax.cli import main
from rt2_jax.data.reader import PreparedSplit, make_reader
from rt2_jax.data.records import read_index
from rt2_jax.datasets.prepare import prepare
from rt2_jax.datasets.seqio_vocabulary import SeqioVocabulary
from rt2_jax.datasets.tabletop import tasks as tabletop
from rt2_jax.datasets.task_spec import TaskFeature, TaskSpec
from rt2_jax.datasets.tasks import register_image_text_task, register_robot_task
from rt2_jax.datasets.tfds_folder import FolderSpec, finish, make_ready, write_shard
from rt2_jax.errors import UserError
from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.tokens import Vocabulary
from rt2_jax.train.verify import verify

BINS = ActionBins(arm_space(0.1, 0.3))
LENGTHS = (3, 1)  # steps of the episodes; each step has frames of its own
SIZES = {"front": (16, 16), "wrist": (12, 20)}


def level(camera, episode, step):
    return 20 + 60 * episode + 20 * step + (100 if camera == "wrist" else 0)


@pytest.fixture(scope="module")
def cameras(tmp_path_factory):
    """A folder with the dataset two_cameras: plain greys, told by `level`."""
    folder = tmp_path_factory.mktemp("cameras")
    images = {name: tfds.features.Image(shape=(*size, 3), encoding_format="png") for name, size in SIZES.items()}
    step = {"observation": images, "action": tfds.features.Tensor(shape=(8,), dtype=np.float32)}
    features = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step), "text": tfds.features.Text()})
    examples = []
    for episode, length in enumerate(LENGTHS):
        steps = []
        for number in range(length):
            frames = {name: np.full((*size, 3), level(name, episode, number), np.uint8) for name, size in SIZES.items()}
            steps.append({"observation": frames, "action": np.zeros(8, np.float32)})
        examples.append({"steps": steps, "text": f"go {episode}"})
    spec = FolderSpec(folder, "two_cameras", "1.0.0", "", features, {"train": len(examples)}, 10, {})
    for shard in make_ready(spec, overwrite=False).shards:
        write_shard(spec, shard, examples)
    finish(spec)
    return folder


@pytest.fixture
def data(tmp_path, cameras):
    (tmp_path / "two_cameras").symlink_to(cameras / "two_cameras")
    return tmp_path


def steps(episode):
    rows = episode["steps"]
    instruction = tf.fill([tf.shape(rows["action"])[0]], episode["text"])
    return {"image": dict(rows["observation"]), "action": rows["action"], "instruction": instruction}


def register(data, name="mine", function=steps, *, cameras=("wrist", "front"), history=2, **options):
    card = Embodiment("two_cameras", BINS, cameras=cameras, history=history)
    register_robot_task(name, data / "two_cameras/1.0.0", card, function, use_last_step=True, **options)


def once(data, *names, **options):
    return prepare(data, names or ["mine"], ("train",), show_progress=False, **options)


def test_three_tasks_of_a_dataset_hold_its_frames_once(tmp_path, built):
    (tmp_path / "tabletop_robot").symlink_to(built / "tabletop_robot")
    card = Embodiment("mine", ActionBins(arm_space(0.04, 0.3)))
    register_robot_task("third", tmp_path / "tabletop_robot/1.0.0", card, tabletop.tabletop_steps)
    names = ("tabletop_robot_action", "tabletop_robot_plan", "third")
    indices = prepare(tmp_path, names, ("train",), show_progress=False)
    builder = tfds.builder_from_directory(built / "tabletop_robot/1.0.0")
    skip = {"steps": tfds.decode.SkipDecoding()}
    distinct = {
        image
        for episode in builder.as_dataset(split="train", decoders=skip).as_numpy_iterator()
        for image in episode["steps"]["observation"]["image"]
    }
    assert {index.frames for index in indices} == {indices[0].frames}
    files = sorted((tmp_path / "prepared/frames").rglob("*.array_record"))
    assert len(files) == 1
    bytes_of_frames = files[0].stat().st_size
    everything = sum(path.stat().st_size for path in (tmp_path / "prepared").rglob("*") if path.is_file())
    # Frames once, as they were encoded; the examples of three tasks add some 200 bytes each.
    examples = sum(index.num_examples for index in indices)
    assert sum(map(len, distinct)) <= bytes_of_frames <= sum(map(len, distinct)) * 1.02 + 2**17
    assert sum(index.num_bytes for index in indices) < 250 * examples
    assert everything < bytes_of_frames + 3 * 2**17 + 300 * examples
    for one, other in zip(*(PreparedSplit(tmp_path, name, "train").read([0, 7]) for name in names[:2]), strict=True):
        assert np.array_equal(one[1], other[1]) and one[0].instruction == other[0].instruction
    assert {checked.what for checked in verify(tmp_path / "prepared")} == {"prepared frames", "prepared split"}


def test_cameras_and_history_go_from_steps_to_batches(data):
    register(data)
    index = once(data, image_size=16)[0]
    assert (index.num_images, index.history, index.kind) == (4, 2, "action")
    assert [ref.camera for ref in index.frames] == ["wrist", "front"]
    found = PreparedSplit(data, "mine", "train").read(range(sum(LENGTHS)))
    moments = [(episode, step) for episode, length in enumerate(LENGTHS) for step in range(length)]
    for (record, frames), (episode, step) in zip(found, moments, strict=True):
        assert record.instruction == f"go {episode}" and frames.shape == (4, 16, 16, 3)
        shown = [(camera, at) for at in (step - 1, step) for camera in ("wrist", "front")]
        wanted = [level(camera, episode, at) if at >= 0 else 0 for camera, at in shown]
        assert np.abs(frames.reshape(4, -1).mean(1) - wanted).max() <= 1
        assert (record.frames < 0).tolist() == [step == 0] * 2 + [False] * 2
    with make_reader(data, {"mine": 1.0}, "train", 4, 0, 32, 16) as reader:
        assert next(reader).images.shape == (4, 4, 16, 16, 3)


def test_a_task_with_fewer_cameras_shares_the_frames(data):
    register(data)
    register(data, "other", cameras=("front",), history=1)
    first, second = once(data, "mine", "other", image_size=16)
    assert second.frames == first.frames[1:]
    assert len(list((data / "prepared/frames").rglob("index.json"))) == 2


def test_an_image_text_task_shares_the_frames_of_the_camera_that_it_names(data):
    def last(episode):
        images = episode["steps"]["observation"]["wrist"]
        return {"image": images, "frame": tf.size(images)[None] - 1, "target": episode["text"][None]}

    register(data)
    folder = data / "two_cameras/1.0.0"
    register_image_text_task("said", folder, last, lambda row: "what?", camera="wrist")
    first, second = once(data, "mine", "said", image_size=16)
    assert second.frames == first.frames[:1] and second.frames[0].camera == "wrist"
    assert len(list((data / "prepared/frames").rglob("index.json"))) == 2
    shown = [frames.mean() for _, frames in PreparedSplit(data, "said", "train").read(range(2))]
    assert np.abs(np.subtract(shown, [level("wrist", 0, 2), level("wrist", 1, 0)])).max() <= 1
    # Those of the wrist under the name of the front: noticed, as with the tasks of robots.
    register_image_text_task("wrong", folder, last, lambda row: "what?", camera="front")
    with pytest.raises(UserError, match="wrong: an image of camera front is not among .*name this one's camera"):
        once(data, "wrong", image_size=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cameras": ("back",)}, r"task mine: camera 'back' is not among those that its function gives \(front, wrist"),
        ({"history": 4}, "mine/train: history is 4 frames, its longest episode has 3; lower history"),
        ({"history": 0}, "card: history is 0"),
        ({"cameras": ()}, "card two_cameras: cameras are .*name at least one"),
        ({"cameras": ("front", "front")}, "card two_cameras: cameras are .*each once"),
    ],
)
def test_cameras_and_histories_that_are_not_there_are_one_line(data, options, message):
    with pytest.raises(UserError, match=message) as caught:
        register(data, **options)
        once(data, image_size=16)
    assert "\n" not in str(caught.value)
    assert not list((data / "prepared").glob("mine/*"))


def test_frames_that_are_not_square_or_differ_need_a_size(data):
    register(data, cameras=("front", "wrist"))
    with pytest.raises(UserError, match=r"mine: frames are 20 x 12 pixels; give an image size \(--image-size\)"):
        once(data)
    register(data, cameras=("front",))
    assert once(data)[0].image_size == 16


def test_tasks_of_different_frame_sizes_are_not_mixed(data, built):
    (data / "tabletop_robot").symlink_to(built / "tabletop_robot")
    register(data, cameras=("front",), history=1)
    once(data, "mine", "tabletop_robot_action")
    with pytest.raises(UserError, match=r"tabletop_robot_action/train was prepared with image size 32, this run"):
        make_reader(data, {"mine": 1.0, "tabletop_robot_action": 1.0}, "train", 4, 0, 32, 16)


def test_another_size_for_a_second_task_is_refused_and_overwritten(data):
    register(data)
    register(data, "other")
    once(data, image_size=16)
    with pytest.raises(UserError, match=r"wrist was prepared from another image size \(16, now 8\); run .*--tasks"):
        once(data, "other", image_size=8)
    once(data, "other", image_size=8, overwrite=True)
    with pytest.raises(UserError, match="its frames were made anew since mine was prepared with them; .*--tasks mine"):
        make_reader(data, {"mine": 1.0}, "train", 4, 0, 32, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history": 1}, "when the card's history was 2, now 1"),
        ({"mode": "plan"}, "with kind action, now plan"),
        (
            {"cameras": ("front", "wrist")},
            r"when the card's cameras was \['wrist', 'front'\], now \['front', 'wrist'\]",
        ),
        ({"splits": {"train": "train[:1]"}}, r"with the dataset's split train, now train\[:1\]"),
    ],
)
def test_a_split_that_shows_other_frames_than_its_task_is_refused(data, change, message):
    register(data)
    once(data, image_size=16)
    assert once(data, image_size=16)[0].history == 2
    register(data, **change)
    with pytest.raises(UserError, match=f"mine/train was prepared {message}.*; run .*--tasks mine --overwrite"):
        once(data, image_size=16)


def test_another_function_behind_a_cameras_name_is_noticed(data):
    register(data, cameras=("front",), history=1)
    register(data, "other", lambda episode: steps(episode) | {"image": {"front": steps(episode)["image"]["wrist"]}},
             cameras=("front",), history=1)  # fmt: skip
    once(data, image_size=16)
    with pytest.raises(UserError, match="other: an image of camera front is not among .*name this one's camera"):
        once(data, "other", image_size=16)


def test_a_slice_has_frames_of_its_own(data):
    register(data, splits={"train": "train[:1]"}, cameras=("front",))
    index = once(data)[0]
    assert index.num_examples == LENGTHS[0] and index.frames[0].folder.split("/")[2] == "train[:1]"


@pytest.mark.parametrize("name", ["part-00000.array_record", "sources.bin", "manifest.json", None])
def test_the_command_that_a_message_names_repairs_the_frames(tmp_path, built, name):
    (tmp_path / "tabletop_web").symlink_to(built / "tabletop_web")
    tasks = ["tabletop_web_vqa", "tabletop_web_caption"]
    once(tmp_path, *tasks)
    before = {path: path.read_bytes() for path in (tmp_path / "prepared").rglob("*") if path.is_file()}
    folder = tmp_path / "prepared" / read_index(tmp_path, tasks[0], "train").frames[0].folder
    if name:
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    else:
        folder.rename(tmp_path / "gone")
    with pytest.raises(UserError) as caught:
        PreparedSplit(tmp_path, tasks[0], "train")
    with pytest.raises(UserError) as again:
        once(tmp_path, tasks[0])
    assert str(again.value) == str(caught.value)
    command = re.search(r"`rt2 (data prepare .*)`", str(caught.value)).group(1)
    assert main(shlex.split(command)) == 0
    after = {path: path.read_bytes() for path in before}
    assert after == before
    PreparedSplit(tmp_path, tasks[1], "train")


def _by_hand(name, image, spec=None):
    words = SeqioVocabulary(Vocabulary.load())
    rows = {"image": image, "inputs": ["one", "two", "three"], "targets": ["1", "2", "3"]}
    source = seqio.FunctionDataSource(
        lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(rows), splits=["train"]
    )
    seqio.TaskRegistry.remove(name)
    seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={
            "image": seqio.Feature(
                seqio.PassThroughVocabulary(0), add_eos=False, rank=int(isinstance(image[0], list)), dtype=tf.string
            ),
            "inputs": TaskFeature(words, add_eos=False, spec=spec) if spec else seqio.Feature(words, add_eos=False),
            "targets": seqio.Feature(words, add_eos=True),
        },
    )


def test_tasks_written_by_hand_have_frames_of_their_own(tmp_path):
    red, blue = (encode_jpeg(np.full((8, 8, 3), colour, np.uint8)) for colour in ((255, 0, 0), (0, 0, 255)))
    _by_hand("by_hand", [red, blue, red])
    index = once(tmp_path, "by_hand")[0]
    assert index.frames[0].folder == "frames/by_hand/train/image" and index.kind == "text"
    found = PreparedSplit(tmp_path, "by_hand", "train").read([0, 1, 2])
    assert [record.frames.tolist() for record, _ in found] == [[0], [1], [0]]
    _by_hand("of_two", [["", red], [red, blue], [blue, blue]], TaskSpec("of_two", history=2, kind="vqa"))
    index = once(tmp_path, "of_two")[0]
    assert (index.num_images, index.kind) == (2, "vqa")
    found = PreparedSplit(tmp_path, "of_two", "train").read([0, 1, 2])
    assert [record.frames.tolist() for record, _ in found] == [[-1, 0], [0, 1], [1, 1]]
    _by_hand("undeclared", [["", red], [red, blue], [blue, blue]])
    with pytest.raises(UserError, match="undeclared: an example has 2 images, another 1; give all as many"):
        once(tmp_path, "undeclared")


@pytest.mark.parametrize("name", ["frames", "mixtures"])
def test_a_task_with_the_name_of_a_folder_is_refused(tmp_path, built, name):
    web = built / "tabletop_web/1.0.0"
    register_image_text_task(name, web, lambda example: {"image": example["image"], "target": [example["scene"]]}, str)
    with pytest.raises(UserError, match=f"task '{name}' has the name of a folder of prepared data; give it another"):
        once(tmp_path, name)
    seqio.TaskRegistry.remove(name)
