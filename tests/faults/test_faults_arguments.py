"""Wrong words on the command line: every option of every verb, and every kind of place where another is wanted."""

import os

import numpy as np
import pytest
from attempts import fault_of, run_main, snapshot
from bad_arguments import bad_values, typed_options
from mutations import rng_of
from PIL import Image

# A command line of every verb that would be right; {root} holds what may be written.
RIGHT = {
    "data build": ["--data", "{root}/new", "--robot-episodes", "1", "--web-images", "1"],
    "data prepare": ["--data", "{place}/data", "--tasks", "tabletop_web_locate"],
    "data inspect": ["--data", "{place}/data", "--out", "{root}/sheet.png"],
    "data vocabulary": ["--out", "{root}/out.model", "--adapt", "{place}/bundle/vocabulary.model"],
    "convert": ["--model", "{place}/bundle", "--out", "{root}/out"],
    "train": ["--config", "{place}/config.py", "--workdir", "{root}/out"],
    "eval": ["--checkpoint", "{place}/bundle", "--out", "{root}/out", "--data", "{place}/data", "--episodes", "0"],
    "sample": ["--checkpoint", "{place}/bundle", "--image", "{root}/frame.png", "--prompt", "x"],
    "export": ["--checkpoint", "{place}/bundle", "--out", "{root}/out"],
    "serve": ["--bundle", "{place}/bundle"],
    "bench latency": ["--size", "tiny"],
    "verify": ["{place}/bundle"],
    "sizes": ["--size", "tiny"],
}
# Options that name a place, by what they want of it. Those of `data build` and `data prepare` are in
# test_faults_data.py: they load TensorFlow.
READ_FOLDER = (
    ("data inspect", "--data"), ("eval", "--checkpoint"), ("eval", "--data"), ("eval", "--reference"),
    ("sample", "--checkpoint"), ("export", "--checkpoint"), ("verify", ""), ("convert", "--model"),
    ("convert", "--text"), ("convert", "--vision"), ("train", "--config.init_from"), ("train", "--config.data_dir"),
    ("serve", "--bundle"),
)  # fmt: skip
READ_FILE = (
    ("sample", "--image"), ("train", "--config"), ("convert", "--vocabulary"), ("data vocabulary", "--adapt"),
    ("train", "--config.vocabulary"), ("train", "--config.model"), ("data vocabulary", "--overwrite-by"),
    ("export", "--envelope"), ("export", "--report"), ("serve", "--key-file"),
)  # fmt: skip
WRITE = (
    ("export", "--out"), ("convert", "--out"), ("train", "--workdir"), ("eval", "--out"),
    ("data inspect", "--out"), ("data vocabulary", "--out"),
)  # fmt: skip
ABSENT = ("absent", "loop", "file/below", "two\nlines", "dangling", "n" * 255, "d" * 200 + "/" + "n" * 250)
NO_FOLDER = (*ABSENT, "file", "empty file", "pipe", "/dev/null", "/dev/zero", "empty", "strangers", "/proc/1")
NO_FILE = (*ABSENT, "empty file", "noise", "pipe", "empty", "/dev/null", "/dev/zero", "/proc/self/mem")
NO_TARGET = ("loop", "file/below", "pipe", "/dev/null", "/proc/new", "/dev/full", "strangers/sealed/new", "\udcff")


def line_of(verb, place, root, option="", value=""):
    """A right command line with one option that is wrong."""
    words = [word.format(place=place, root=root) for word in RIGHT[verb]]
    if not option:
        return [*verb.split(), value] if value else [*verb.split(), *words]
    if option in words:
        del words[words.index(option) : words.index(option) + 2]
    return [*verb.split(), *words, f"{option}={value}"]


@pytest.fixture
def root(tmp_path, workplace):
    """A folder with a thing of every kind that is not what is wanted."""
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "frame.png")
    (tmp_path / "file").write_text("some words\n")
    (tmp_path / "empty file").touch()
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "strangers" / "sealed").mkdir(parents=True)
    (tmp_path / "strangers" / "letter.txt").write_text("to whom it concerns")
    (tmp_path / "strangers" / "sealed" / "manifest.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def attempt(words, root, capfd):
    before = snapshot(root)
    return fault_of(run_main(words, capfd), before, snapshot(root))


def test_bad_values_of_every_option(workplace, root, capfd, scale, tally):
    cases = [
        (" ".join(words), option, value)
        for words, option, kind in typed_options()
        for value in dict.fromkeys(bad_values(kind))
    ]
    order, found = rng_of("arguments", 0).permutation(len(cases)), []
    for number in order[: scale(30, len(cases))]:
        verb, option, value = cases[number]
        fault = attempt(line_of(verb, workplace, root, option, value), root, capfd)
        tally("wrong argument", f"rt2 {verb}", fault is None)
        if fault:
            found.append(f"rt2 {verb} {option}={value[:60]!r}: {fault}")
    assert not found, "\n".join(found)


PLACES = {
    "a folder to read": (READ_FOLDER, NO_FOLDER),
    "a file to read": (READ_FILE, NO_FILE),
    "a place to write": (WRITE, NO_TARGET),
}


@pytest.mark.parametrize("wanted", PLACES)
def test_wrong_places(wanted, workplace, root, capfd, scale, tally):
    options, places = PLACES[wanted]
    cases = [(verb, option, name) for verb, option in options for name in places]
    order, found = rng_of(wanted, 0).permutation(len(cases)), []
    for number in order[: scale(10, len(cases))]:
        verb, option, name = cases[number]
        # An option that takes names or one of several things would take the path for one of them.
        value = str(root / name)
        if verb == "data vocabulary" and option == "--out" and not name.startswith("/"):
            value += "/x.model" if name.startswith("strangers") else ""
        fault = attempt(line_of(verb, workplace, root, option, value), root, capfd)
        tally("wrong place", wanted, fault is None)
        if fault:
            found.append(f"rt2 {verb} {option}={name!r}: {fault}")
    assert not found, "\n".join(found)


WORDS = {
    "unknown": {
        "data inspect": ["--tasks", "tabletop_web_dance"],
        "data vocabulary": ["--family", "esperanto"],
        "convert": ["--size", "colossal"],
        "eval": ["--tasks", "nope"],
        "sizes": ["--size", "colossal"],
    },
    "not fitting": {
        "convert": ["--new", "nothing/.*"],
        "export": ["--merge-lora"],
        "sample": ["--mode", "plan"],
        "eval": ["--splits", "moon"],
        "data vocabulary": ["--family", "paligemma"],
        "train": ["--config.may_change=('steps',)"],
    },
}
SETTINGS = (
    "x", "=", "=1", "x=1", "image_size=", "image_size=x", "image_size=0", "image_size=-32", "image_size=33", "text=5",
    "image_size=99999999999999999999", "text.width=32", "text.heads=0", "vision.patch_size=7", "vision.x=1",
    "text.activation=loud", "vocab_size=1", "text.kind=rnn", "vision={}", "image_size=nan", "num_images=0", "text.=1",
    ".=1", "text.width.x=1", "vision.layers=[]", "vision.layers=true", "image_size=1e999", "vision.stem_widths=[[]]",
)  # fmt: skip
OVERRIDES = (
    "steps=0", "steps=x", "steps=", "steps=1.5", "steps=1e99", "steps=True", "batch_size=0", "batch_size=-4", "x=1",
    "optimizer=5", "optimizer.name=hope", "optimizer.learning_rate=nan", "optimizer.learning_rate=-1", "model=5",
    "model.text.heads=0", "model.vision.patch_size=0", "model.text.encoder_layers=0", "model.size=5", "=1", "seed=-1",
    "seed=99999999999", "mixture=nope", "mixture={}", "mixture.tabletop_web_locate=-1", "mixture.tabletop_nope=1",
    "prompt_len=0", "prompt_len=2", "target_len=1", "augment.shift=100000", "augment.brightness=nan", "augment=x",
    "microbatches=3", "microbatches=0", "mesh.data=3", "mesh.time=1", "mesh=7", "lora.rank=0", "lora=7", "freeze=x",
    "model.vocab_size=5", "model.image_size=48", "dropout=2", "z_loss=inf", "keep=0", "checkpoint_every=0",
    "vocabulary=/nowhere", "tensorboard=2", "may_change=x", "frozen_dtype=int8", "optimizer.schedule=never",
    "eval_every=-1", "log_every=0", "data_dir=", "data_dir=/nowhere", "init_from=/nowhere", "steps.x=1", "card=x",
)  # fmt: skip


def test_words_that_mean_nothing(workplace, root, capfd, scale, tally):
    cases = [(verb, words) for kind in ("unknown", "not fitting") for verb, words in WORDS[kind].items()]
    cases += [("convert", ["--set", word]) for word in SETTINGS]
    cases += [("train", [f"--config.{word}"]) for word in OVERRIDES]
    order, found = rng_of("words", 0).permutation(len(cases)), []
    for number in order[: scale(12, len(cases))]:
        verb, words = cases[number]
        fault = attempt([*line_of(verb, workplace, root), *words], root, capfd)
        tally("wrong argument", f"rt2 {verb}", fault is None)
        if fault:
            found.append(f"rt2 {verb} {' '.join(words)}: {fault}")
    assert not found, "\n".join(found)
