"""Image-text tasks on the frames of RLDS episodes, which they share with the robot's tasks."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.data.inspect import inspect
from rt2_jax.data.reader import PreparedSplit, make_reader
from rt2_jax.datasets.prepare import prepare
from rt2_jax.datasets.tasks import register_image_text_task
from rt2_jax.errors import UserError
from rt2_jax.inputs.images import decode_image
from rt2_jax.tokens import Vocabulary
from rt2_jax.train.verify import verify

WORDS = Vocabulary.load()
ROBOT = ("tabletop_robot_action", "tabletop_robot_plan")
# Of each episode: its annotated frames, from the end where negative, with what is asked and answered.
SAID = ((-1, "is it done", "yes"), (0, "is it done", "no"), (-1, "has it begun", "yes"), (1, "has it begun", "yes"))


@pytest.fixture
def data(tmp_path, built):
    (tmp_path / "tabletop_robot").symlink_to(built / "tabletop_robot")
    return tmp_path


def moments(episode):
    images = episode["steps"]["observation"]["image"]
    frames, questions, answers = zip(*SAID, strict=True)
    frames = tf.constant(frames)
    frames = tf.where(frames < 0, tf.size(images) + frames, frames)
    return {"image": images, "frame": frames, "question": tf.constant(questions), "target": tf.constant(answers)}


def register(data, function=moments, **options):
    folder = data / "tabletop_robot/1.0.0"
    register_image_text_task("moments", folder, function, lambda row: f"{row['question']}?", kind="vqa", **options)


def once(data, *names, **options):
    return prepare(data, names, ("train",), show_progress=False, **options)


def episodes(data):
    """The encoded frames of each episode."""
    builder = tfds.builder_from_directory(data / "tabletop_robot/1.0.0")
    skip = {"steps": tfds.decode.SkipDecoding()}
    found = builder.as_dataset(split="train", decoders=skip).as_numpy_iterator()
    return [list(episode["steps"]["observation"]["image"]) for episode in found]


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_frames_are_stored_once_with_the_robots(data):
    robot = once(data, *ROBOT)
    before = files(data / "prepared/frames")
    register(data)
    index = once(data, "moments")[0]
    assert files(data / "prepared/frames") == before
    assert {path.parent for path in (data / "prepared/frames").rglob("*.array_record")} == {
        data / "prepared" / index.frames[0].folder
    }
    assert index.frames == robot[0].frames == robot[1].frames
    assert index.num_examples == len(SAID) * len(episodes(data)) and index.num_bytes < 250 * index.num_examples
    sizes = [len(frame) for frame in {frame for frames in episodes(data) for frame in frames}]
    assert sum(sizes) <= sum(len(content) for content in before.values()) <= 1.02 * sum(sizes) + 2**17
    assert {checked.what for checked in verify(data / "prepared")} == {"prepared frames", "prepared split"}


def test_each_annotation_shows_its_frame(data):
    register(data)
    once(data, "moments")
    opened = PreparedSplit(data, "moments", "train")
    wanted = [(frames[place], question, answer) for frames in episodes(data) for place, question, answer in SAID]
    for (record, shown), (frame, question, answer) in zip(opened.read(range(len(opened))), wanted, strict=True):
        np.testing.assert_array_equal(shown, decode_image(frame)[None])
        assert WORDS.decode(record.prompt) == f"{question}?" and WORDS.decode(record.target) == answer
        assert (record.task, record.instruction) == ("moments", "")
    assert len({record.frames[0] for record, _ in opened.read(range(len(SAID)))}) == 3


def test_the_order_of_the_tasks_has_no_say(data, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "tabletop_robot").symlink_to(data / "tabletop_robot")
    register(data)
    once(data, "moments", *ROBOT)
    once(other, *reversed(ROBOT), "moments")
    assert files(data / "prepared") == files(other / "prepared")


def test_they_are_inspected_and_read_together(data):
    register(data)
    once(data, "moments", *ROBOT)
    told = inspect(data)
    line = next(line for line in told.splitlines() if line.startswith("moments"))
    assert line.split()[1:4] == ["vqa", "train", str(len(SAID) * len(episodes(data)))]
    shared = [line.split() for line in told.splitlines() if "/train/image" in line]
    assert [row[1] for row in shared] == ["3"] and (data / "inspect.png").stat().st_size
    with make_reader(data, {"moments": 0.5, ROBOT[0]: 0.5}, "train", 4, 0, 64, 64) as reader:
        assert next(reader).images.shape == (4, 1, 32, 32, 3)


def test_annotations_are_counted_for_each_frame(data):
    register(data, max_per_image=1)
    once(data, "moments")
    opened = PreparedSplit(data, "moments", "train")
    kept = [WORDS.decode(record.prompt) for record, _ in opened.read(range(3))]
    assert len(opened) == 3 * len(episodes(data)) and kept == ["is it done?", "is it done?", "has it begun?"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": tf.constant([0, 1, 2, 999])}, r"frame is 999 of \d+ images; give 0 to \d+"),
        ({"frame": tf.constant([0, 1, 2, -1])}, r"frame is -1 of \d+ images; give 0 to \d+"),
        ({"frame": None}, r"its function gives image of shape \(None,\) without frame; give one image alone, or"),
        ({"image": tf.constant(b"")}, r"its function gives image of shape \(\) and frame; give one image alone"),
        ({"target": None}, "its function gives no 'target', only frame, image, question; add it"),
    ],
)
def test_annotations_that_fit_no_frame_are_one_line(data, change, message):
    def changed(episode):
        return {key: value for key, value in {**moments(episode), **change}.items() if value is not None}

    register(data, changed)
    with pytest.raises(UserError, match=f"moments.*{message}") as caught:
        once(data, "moments")
    assert "\n" not in str(caught.value) and not (data / "prepared/moments/train").exists()
