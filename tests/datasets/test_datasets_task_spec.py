"""What a task is, is said in one place, by whomever it was registered."""

import pytest
import seqio
import tensorflow as tf

from rt2_jax.actions import ActionBins, Embodiment, arm_space, load_card
from rt2_jax.data.records import read_index
from rt2_jax.datasets.prepare import prepare
from rt2_jax.datasets.seqio_vocabulary import SeqioVocabulary
from rt2_jax.datasets.tabletop import tasks as tabletop
from rt2_jax.datasets.task_spec import TaskFeature, TaskSpec, spec_of
from rt2_jax.datasets.tasks import register_robot_task
from rt2_jax.errors import UserError
from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.tokens import Vocabulary

CARD = Embodiment("mine", ActionBins(arm_space(0.04, 0.3)), cameras=("front", "wrist"), history=2)


def by_hand(name, images, spec=None):
    """A task of one example, written with seqio alone."""
    words = SeqioVocabulary(Vocabulary.load())
    rows = {"image": [images], "inputs": ["go"], "targets": ["1 128 128 128 128 128 128 0"]}
    image = seqio.Feature(seqio.PassThroughVocabulary(0), add_eos=False, rank=1, dtype=tf.string)
    seqio.TaskRegistry.remove(name)
    return seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(rows), splits=["train"]
        ),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={
            "image": image,
            "inputs": TaskFeature(words, add_eos=False, spec=spec) if spec else seqio.Feature(words, add_eos=False),
            "targets": seqio.Feature(words, add_eos=True),
        },
    )


def test_registered_tasks_say_what_they_are(built):
    tabletop.register(built)
    card = load_card(built / "tabletop_robot/1.0.0/card.json")
    plan = spec_of(seqio.TaskRegistry.get("tabletop_robot_plan"))
    assert (plan.name, plan.kind, plan.embodiment) == ("tabletop_robot_plan", "plan", card)
    assert (plan.folder, plan.cameras, plan.history) == (built / "tabletop_robot/1.0.0", ("image",), 1)
    assert plan.made_by == {"steps": tabletop.tabletop_steps, "use_last_step": True}
    vqa = spec_of(seqio.TaskRegistry.get("tabletop_web_vqa"))
    assert (vqa.kind, vqa.embodiment, vqa.source_split("train")) == ("vqa", None, "train")
    folder = built / "tabletop_robot/1.0.0"
    task = register_robot_task("mine", folder, CARD, tabletop.tabletop_steps, splits={"train": "train[:2]"})
    assert spec_of(task).source_split("train") == "train[:2]" and spec_of(task).num_images == 4


def test_a_task_by_hand_without_a_spec_has_that_of_any_seqio_task():
    task = by_hand("plain", [b""])
    spec = spec_of(task)
    assert spec == TaskSpec("plain", made_by=spec.made_by)
    assert list(spec.made_by) == ["source", "preprocessors[0]", "preprocessors[1]"]


def test_a_task_by_hand_with_a_spec_is_prepared_as_it_says(tmp_path):
    frame = encode_jpeg(tf.zeros([8, 8, 3], tf.uint8).numpy())
    spec = TaskSpec("acting", kind="plan", embodiment=CARD, cameras=CARD.cameras, history=CARD.history)
    by_hand("acting", [frame] * 4, spec)
    prepare(tmp_path, ["acting"], ("train",), show_progress=False)
    index = read_index(tmp_path, "acting", "train")
    assert (index.kind, index.embodiment, index.history, index.num_images) == ("plan", CARD, 2, 4)
    assert [ref.camera for ref in index.frames] == ["front", "wrist"]


def test_a_spec_that_contradicts_its_card_or_its_task_is_refused():
    with pytest.raises(UserError, match=r"task mine: its cameras is \('image',\), its card's is .*give it the card's"):
        TaskSpec("mine", embodiment=CARD)
    with pytest.raises(UserError, match="task mine: its history is 1, its card's is 2"):
        TaskSpec("mine", embodiment=CARD, cameras=CARD.cameras)
    with pytest.raises(UserError, match="task theirs: its spec is that of mine; give it one of its own name"):
        spec_of(by_hand("theirs", [b""], TaskSpec("mine")))
