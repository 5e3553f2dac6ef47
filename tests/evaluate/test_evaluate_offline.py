"""Held-out scores with a policy that knows the answers, one that does not, and one of any text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.actions import Embodiment, load_card
from rt2_jax.data.frames import FramesRef
from rt2_jax.data.records import PreparedIndex, read_index
from rt2_jax.data.writer import write_frames, write_split
from rt2_jax.errors import UserError
from rt2_jax.evaluate import offline
from rt2_jax.evaluate.examples import Example, read_examples
from rt2_jax.evaluate.offline import scored_as
from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.inputs.prompts import plan_prompt, plan_target, robot_prompt
from rt2_jax.tokens.action_text import action_text, parse_action_text
from rt2_jax.tokens.vocabulary import Vocabulary

FRAME = np.zeros((1, 8, 8, 3), np.uint8)
VOCABULARY = Vocabulary.load()


class Oracle:
    """Answers from a table prompt -> target; acts by it in both modes, with `nudge` bins of error on dx and dy."""

    def __init__(self, fakes, examples, nudge=0, reply=None):
        self.vocabulary = VOCABULARY
        self.bins, self.fakes, self.nudge, self.reply = fakes.BINS, fakes, nudge, reply
        self.table = {example.prompt: example.target for example in examples}
        self.sizes = []

    def embodiment(self):
        return Embodiment("arm", self.bins)

    def act_on_prompts(self, images, prompts, mode="action"):
        self.sizes.append(len(images))
        texts = [self.table[prompt] for prompt in prompts]
        bins = np.stack([parse_action_text(self.vocabulary, text.split("Action:")[-1], 8) for text in texts])
        bins[:, 1:3] += self.nudge
        output = self.fakes.acting(self.bins.decode(bins))
        output.text, output.chunk_bins = texts, output.bins[:, None]
        return output

    def answer(self, images, texts, max_len):
        self.sizes.append(len(images))
        return [self.table[text] if self.reply is None else self.reply for text in texts]


def action_examples(count, template=robot_prompt, target=lambda text: text):
    rng = np.random.default_rng(0)
    examples = []
    for index in range(count):
        bins = rng.integers(10, 240, 8)
        bins[0] = int(index % 4 != 0)
        told = f"reach object {index}"
        examples.append(Example(FRAME, template(told), target(action_text(VOCABULARY, bins))))
    return examples


def test_perfect_actions_have_no_error(fakes):
    examples = action_examples(40)
    oracle = Oracle(fakes, examples)
    scores = offline.score_actions(oracle, "tabletop_robot_action", examples)
    assert scores.examples == 40
    assert scores.token_accuracy == scores.exact_match == 1.0
    stop, *moves = scores.dimensions
    assert (stop.name, stop.kind, stop.token_accuracy, stop.recall, stop.precision) == (
        "terminate", "terminate", 1.0, 1.0, 1.0
    )  # fmt: skip
    assert [dimension.name for dimension in moves] == ["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"]
    assert all((move.kind, move.mean_error, move.sign_accuracy) == ("continuous", 0.0, 1.0) for move in moves)
    # The last, short batch is padded: one shape, one compilation.
    assert oracle.sizes == [32, 32]


def test_errors_are_in_centimetres_and_degrees(fakes):
    examples = action_examples(12)
    scores = offline.score_actions(Oracle(fakes, examples, nudge=3), "tabletop_robot_action", examples)
    dx, dy, dz = scores.dimensions[1:4]
    # A bin is 8 cm / 256.
    assert [dimension.unit for dimension in scores.dimensions[1:]] == ["cm"] * 3 + ["deg"] * 3 + ["opening"]
    assert (dx.mean_error, dx.median_error, dx.p90_error) == pytest.approx((3 * 8 / 256,) * 3, rel=1e-4)
    assert dx.token_accuracy == dy.token_accuracy == 0.0 and dz.token_accuracy == 1.0
    assert scores.token_accuracy == pytest.approx(6 / 8)
    assert scores.exact_match == 0.0


def test_stops_that_are_missed_or_made_up(fakes):
    examples = action_examples(8)
    stopping = [index for index, example in enumerate(examples) if example.target.startswith("0 ")]
    assert stopping == [0, 4]

    class Stubborn(Oracle):
        def act_on_prompts(self, images, prompts, mode="action"):
            output = super().act_on_prompts(images, prompts, mode)
            output.bins[:, 0] = 1
            # Stops once where it should, once where it should not.
            output.bins[[0, 1], 0] = 0
            return output

    stop = offline.score_actions(Stubborn(fakes, examples), "tabletop_robot_action", examples).dimensions[0]
    assert (stop.recall, stop.precision, stop.mean_error) == (0.5, 0.5, None)
    assert stop.token_accuracy == pytest.approx(6 / 8)

    class Restless(Stubborn):
        def act_on_prompts(self, images, prompts, mode="action"):
            output = Oracle.act_on_prompts(self, images, prompts, mode)
            output.bins[:, 0] = 1
            return output

    stop = offline.score_actions(Restless(fakes, examples), "tabletop_robot_action", examples).dimensions[0]
    assert (stop.recall, stop.precision) == (0.0, None)


def test_plans_are_scored_by_words_and_tokens(fakes):
    examples = action_examples(6, plan_prompt, lambda text: plan_target("reach red cube", text))
    scores = offline.score_web(Oracle(fakes, examples), "tabletop_robot_plan", "plan", examples, 32)
    assert scores.skill == "planning"
    assert [(metric.name, metric.value) for metric in scores.metrics] == [
        ("plan's words right", 1.0),
        ("action tokens right", 1.0),
    ]
    nudged = offline.score_web(Oracle(fakes, examples, nudge=1), "tabletop_robot_plan", "plan", examples, 32)
    assert [metric.value for metric in nudged.metrics] == [1.0, 0.75]


TASKS = {
    "tabletop_web_vqa": ("questions", "exact match", "red"),
    "tabletop_web_caption": ("captions", "mean token F1", "a photo of a red cube"),
    "tabletop_web_alt_text": ("alt text", "mean token F1", "of a red cube"),
    "tabletop_web_locate": ("pointing", "within 5% of the frame", "34 56"),
    "tabletop_web_locate_from_gripper": ("pointing from gripper", "within 5% of the frame", "140 110"),
    "tabletop_web_detect_from_gripper": ("detection from gripper", "recall within 8% of the frame", "red cube 140 110"),
    "tabletop_web_detect": ("detection", "recall within 8% of the frame", "red cube 34 56; robot gripper 40 30"),
    "their_ocr": ("their_ocr", "exact match", "EXIT"),
}


def index_of(kind, **fields):
    frames = (FramesRef("image", "frames/theirs/validation/image", ""),)
    return PreparedIndex(
        "theirs", "validation", 0, (), VOCABULARY.sha256, 8, 1, 32, 8, frames=frames, kind=kind, **fields
    )


def test_what_holds_actions_is_scored_as_actions_whatever_it_says():
    meaning = {"embodiment": load_card("tabletop")}
    assert scored_as(index_of("action", **meaning)) == "action"
    assert scored_as(index_of("vqa", **meaning)) == "action"
    assert scored_as(index_of("plan", **meaning)) == "plan"
    # And what holds none is not.
    assert scored_as(index_of("action")) == scored_as(index_of("plan")) == scored_as(index_of("ocr")) == "text"
    assert scored_as(index_of("vqa")) == "vqa"


@pytest.mark.parametrize("task", TASKS)
def test_every_kind_of_task_goes_from_none_to_all(fakes, task):
    skill, headline, target = TASKS[task]
    examples = [Example(FRAME, f"prompt {index}", target) for index in range(5)]
    kind = scored_as(index_of(task.removeprefix("tabletop_web_")))
    right = offline.score_web(Oracle(fakes, examples), task, kind, examples, 16, samples=3)
    assert (right.skill, right.task, right.examples) == (skill, task, 5)
    assert (right.metrics[0].name, right.metrics[0].value) == (headline, 1.0)
    assert [(s.prompt, s.target, s.answer) for s in right.samples] == [
        (f"prompt {index}", target, target) for index in (0, 2, 4)
    ]
    wrong = offline.score_web(Oracle(fakes, examples, reply="xyzzy"), task, kind, examples, 16)
    assert wrong.metrics[0].value == 0.0


@given(reply=st.text(max_size=30))
def test_any_answer_is_scored(reply):
    class Speaker:
        def answer(self, images, texts, max_len):
            return [reply] * len(texts)

    for task, (_, _, target) in TASKS.items():
        kind = scored_as(index_of(task.removeprefix("tabletop_web_")))
        scores = offline.score_web(Speaker(), task, kind, [Example(FRAME, "what?", target)], 16)
        assert all(metric.value is None or metric.value >= 0 for metric in scores.metrics)


@pytest.fixture
def prepared(tmp_path):
    vocabulary = Vocabulary.load()
    examples = []
    for index in range(11):
        prompt = np.array(vocabulary.encode(f"Answer in en: how many are {index}?"), np.int32)
        target = np.array([*vocabulary.encode(f"{index} cubes"), vocabulary.eos_id], np.int32)
        image = encode_jpeg(np.full((16, 16, 3), 20 * index, np.uint8))
        examples.append(([image], prompt, target, ""))
    task, frames = "tabletop_web_vqa", ({"image": images} for images, *_ in examples)
    cameras = write_frames(tmp_path, task, "validation", ["image"], frames, task=task)
    write_split(tmp_path, task, "validation", examples, cameras, vocabulary=vocabulary.sha256)
    return tmp_path, vocabulary


def test_examples_are_read_as_text_and_spread_over_the_split(prepared):
    data_dir, vocabulary = prepared
    index = read_index(data_dir, "tabletop_web_vqa", "validation")
    examples = read_examples(data_dir, index, vocabulary, 3)
    assert [example.target for example in examples] == ["0 cubes", "5 cubes", "10 cubes"]
    assert examples[1].prompt == "Answer in en: how many are 5?"
    assert examples[1].images.shape == (1, 16, 16, 3)
    assert abs(int(examples[1].images.mean()) - 100) <= 2
    everything = read_examples(data_dir, index, vocabulary, 100)
    assert [example.target for example in everything] == [f"{index} cubes" for index in range(11)]


def test_another_vocabulary_is_refused(prepared):
    data_dir, _ = prepared

    class Other:
        sha256 = "0" * 64

    with pytest.raises(UserError, match="was prepared with vocabulary"):
        read_examples(data_dir, read_index(data_dir, "tabletop_web_vqa", "validation"), Other(), 3)
