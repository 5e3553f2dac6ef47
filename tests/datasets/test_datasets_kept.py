"""What is prepared is kept where preparing it again would give the same, and refused, by name, where it would not."""

import dataclasses
import json
import re
import shlex
import sys

import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.actions import load_card
from rt2_jax.cli import main
from rt2_jax.data.frames import FramesRef
from rt2_jax.data.records import PreparedIndex, prepared_dir, read_index
from rt2_jax.data.writer import Limits
from rt2_jax.datasets import kept
from rt2_jax.datasets.prepare import prepare
from rt2_jax.datasets.seqio_vocabulary import SeqioVocabulary
from rt2_jax.datasets.tabletop import tasks as tabletop
from rt2_jax.datasets.tasks import register_image_text_task, register_robot_task
from rt2_jax.errors import UserError
from rt2_jax.files.writing import seal
from rt2_jax.tokens import Vocabulary

MODULE = """
import tensorflow as tf
from rt2_jax.datasets.tasks import register_image_text_task

WORD = "in "


def helper(example):
    return tf.strings.join([WORD, example["scene"]])


def annotations(example):
    return {"image": example["image"], "target": helper(example)[None]}


def prompt(row):
    return "where is it?"


def register(data_dir, vocabulary):
    register_image_text_task(
        "mine", f"{data_dir}/tabletop_web/1.0.0", annotations, prompt, max_per_image=2, vocabulary=vocabulary
    )
    return ["mine"]
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes the team's module, as it is or with something replaced, and gives its name."""
    name = f"team_{tmp_path.name}"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(old="", new=""):
        assert old in MODULE
        (tmp_path / f"{name}.py").write_text(MODULE.replace(old, new, 1))
        sys.modules.pop(name, None)
        return name

    yield write
    sys.modules.pop(name, None)


def once(data, *names, module=None, **options):
    modules = [module] if module else []
    return prepare(data, names or ["mine"], ("train",), task_modules=modules, show_progress=False, **options)


def contents(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('WORD = "in "', 'WORD = "on "', "annotations"),
        ('[WORD, example["scene"]]', '[example["scene"], WORD]', "annotations"),
        ("where is it?", "where?", "prompt"),
    ],
)
def test_a_function_that_changed_is_refused_until_it_is_overwritten(data, module, old, new, what):
    once(data, module=module())
    before = contents(data / "prepared")
    with pytest.raises(UserError) as caught:
        once(data, module=module(old, new))
    assert re.search(
        rf"mine/train was prepared otherwise: the function that makes its examples \({what}, module {module()}\) has "
        "changed since; run `rt2 data prepare .*--tasks mine --overwrite`, with the --task-modules",
        str(caught.value),
    )
    assert contents(data / "prepared") == before
    changed = once(data, module=module(old, new), overwrite=True)
    assert once(data, module=module(old, new)) == changed
    with pytest.raises(UserError, match=rf"examples \({what}, module"):
        once(data, module=module())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def helper", "# Says where.\ndef helper"),
        ('WORD = "in "', 'WORD = "in "\nWEIGHTS = {"mine": 0.5}'),
        ('return ["mine"]', 'return ["mine", *[]]'),
    ],
)
def test_what_changes_no_example_is_kept(data, module, old, new):
    once(data, module=module())
    before = contents(data / "prepared")
    once(data, module=module(old, new))
    assert contents(data / "prepared") == before


def test_a_setting_that_changed_is_named(data, module):
    once(data, module=module())
    with pytest.raises(UserError, match="mine/train was prepared with max_per_image 2, now 1; run .*--overwrite`"):
        once(data, module=module("max_per_image=2", "max_per_image=1"))
    card, folder = load_card("tabletop"), data / "tabletop_robot/1.0.0"
    register_robot_task("moves", folder, card, tabletop.tabletop_steps, use_last_step=True)
    once(data, "moves")
    register_robot_task("moves", folder, card, tabletop.tabletop_steps)
    with pytest.raises(UserError, match="moves/train was prepared with use_last_step True, now False; run"):
        once(data, "moves")


def test_an_index_that_does_not_say_what_made_it_is_kept(data, module):
    """As releases before this one wrote it."""
    first = once(data, module=module())[0]
    folder = prepared_dir(data, "mine", "train")
    fields = json.loads((folder / "index.json").read_text())
    for name in ("made_by", "source_split", "prompt_len", "target_len"):
        del fields[name]
    (folder / "index.json").write_text(json.dumps(fields))
    seal(folder, "prepared split", paths=["index.json", "part-00000.array_record"])
    old = once(data, module=module("where is it?", "where?"))[0]
    assert old == dataclasses.replace(first, made_by=None, source_split=None) == read_index(data, "mine", "train")


def _by_hand(data, split, function):
    words = SeqioVocabulary(Vocabulary.load())
    seqio.TaskRegistry.remove("by_hand")
    seqio.TaskRegistry.add(
        "by_hand",
        source=seqio.TfdsDataSource(
            tfds_data_dir=str(data / "tabletop_web/1.0.0"),
            splits={"train": split},
            decoders={"image": tfds.decode.SkipDecoding()},
            read_only=True,
        ),
        preprocessors=[function, seqio.preprocessors.tokenize],
        output_features={
            "image": seqio.Feature(seqio.PassThroughVocabulary(0), add_eos=False, rank=0, dtype=tf.string),
            "inputs": seqio.Feature(words, add_eos=False),
            "targets": seqio.Feature(words, add_eos=False),
        },
    )


def _scenes(dataset):
    return dataset.map(lambda one: {"image": one["image"], "inputs": one["scene"], "targets": "yes"})


def _answers(dataset):
    return dataset.map(lambda one: {"image": one["image"], "inputs": one["scene"], "targets": "no"})


def test_preprocessors_and_slices_of_a_task_by_hand_are_noticed(data):
    _by_hand(data, "train", _scenes)
    index = once(data, "by_hand")[0]
    assert index.source_split == "train" and once(data, "by_hand") == [index]
    _by_hand(data, "train", _answers)
    with pytest.raises(UserError, match=r"otherwise: the function .*\(preprocessors\[0\], module .*_kept\) has"):
        once(data, "by_hand")
    _by_hand(data, "train[:2]", _scenes)
    with pytest.raises(UserError, match=r"by_hand/train was prepared with the dataset's split train, now train\[:2\]"):
        once(data, "by_hand")


# --- limits -----------------------------------------------------------------------------------------------------------

NONE = (None, None)


@pytest.mark.parametrize(
    ("dropped", "then", "now", "message"),
    [
        # The longest examples have 9 and 5 tokens.
        (0, NONE, NONE, None),
        (0, NONE, (9, 5), None),
        (0, (64, 64), NONE, None),
        (0, (64, 64), (9, 70), None),
        (0, NONE, (8, 5), "with prompt_len without a limit, now 8"),
        (0, (64, 6), (64, 4), "with target_len 6, now 4"),
        (2, (9, 5), (9, 5), None),
        (2, (12, 6), (10, 5), None),
        (2, (12, 6), (8, 6), "with prompt_len 12, now 8"),
        (2, (12, 6), (13, 6), "with prompt_len 12, now 13"),
        (2, (12, 6), (12, None), "with target_len 6, now without a limit"),
        (2, (None, 6), (12, 6), None),
        # Prepared by a release that did not write its limits down.
        (2, NONE, (12, 6), None),
        (2, NONE, (8, 6), "with prompt_len unknown, now 8"),
    ],
)
def test_limits_that_would_leave_other_examples_are_refused(dropped, then, now, message):
    told = {"dropped": dropped, "prompt_len": then[0], "target_len": then[1]}
    frames = (FramesRef("image", "frames/mine/train/image", ""),)
    index = PreparedIndex("mine", "train", 0, (), "v", 8, 1, 9, 5, frames=frames, **told)
    assert kept._other_limit(index, Limits(None, *now)) == message


def test_the_command_of_the_message_prepares_with_the_limits_asked_for(data):
    task = "tabletop_web_detect"
    whole = once(data, task)[0]
    assert (whole.prompt_len, whole.target_len) == NONE
    assert once(data, task, target_len=whole.longest_target) == [whole]
    limit = whole.longest_target - 1
    with pytest.raises(UserError, match=rf"prepared with target_len without a limit, now {limit}; run") as caught:
        once(data, task, target_len=limit)
    command = re.search(r"`rt2 (data prepare [^`]*)`", str(caught.value)).group(1)
    assert main(shlex.split(command)) == 0
    short = once(data, task, target_len=limit)[0]
    assert short == read_index(data, task, "train")
    assert (short.target_len, short.dropped + short.num_examples) == (limit, whole.num_examples) and short.dropped
    with pytest.raises(UserError, match=rf"with target_len {limit}, now without a limit"):
        once(data, task)


def test_what_a_function_of_ours_holds_is_noticed(data):
    """All kinds of the tabletop's web tasks have one function, which holds the kind."""
    folder = data / "tabletop_web/1.0.0"
    for _ in range(2):
        register_image_text_task("mine", folder, tabletop._annotations_of("vqa"), lambda row: "what?")
        index = once(data)[0]
    assert index.made_by.keys() == {"annotations", "prompt", "max_per_image"}
    register_image_text_task("mine", folder, tabletop._annotations_of("caption"), lambda row: "what?")
    with pytest.raises(UserError, match=r"\(annotations, module rt2_jax.datasets.tabletop.tasks\) has changed since"):
        once(data)
