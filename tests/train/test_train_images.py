"""Several images an example: from prepared data through both wirings, episodes younger than the history included."""

import pathlib

import numpy as np
import pytest

from rt2_jax.bundle.store import load_bundle
from rt2_jax.data.reader import make_reader
from rt2_jax.data.writer import write_frames, write_split
from rt2_jax.errors import UserError
from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.models.sizes import get_config
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.train.config import make_config
from rt2_jax.train.loop import train

# pali_3b's wiring and its two frames, at the size of a test.
PALI_3B = get_config("pali_3b")


@pytest.fixture(scope="module")
def two_frames(tmp_path_factory, prepared):
    """Episodes of four steps with a history of two: every fourth example has one frame only."""
    data_dir, vocabulary = pathlib.Path(tmp_path_factory.mktemp("two")), Vocabulary.load()
    rng, size = np.random.default_rng(0), prepared.IMAGE_SIZE
    images = [encode_jpeg(np.full((size, size, 3), level, np.uint8)) for level in rng.integers(1, 256, 16)]
    prompt = np.asarray(vocabulary.encode("7 8 9"), np.int32)
    target = np.asarray([*vocabulary.encode("3 4"), vocabulary.eos_id], np.int32)
    rows = [
        ([images[number - 1] if number % 4 else b"", image], prompt, target, "") for number, image in enumerate(images)
    ]
    cameras = write_frames(data_dir, "name", "train", ["image"], [{"image": images}], task="name")
    write_split(data_dir, "name", "train", rows, cameras, vocabulary=vocabulary.sha256, history=2)
    return data_dir


@pytest.fixture
def fields(two_frames, small_fields, prepared):
    model = {**prepared.MODEL, "num_images": PALI_3B.num_images}
    return {**small_fields, "data_dir": str(two_frames), "mixture": {"name": 1.0}, "steps": 2, "model": model}


def test_every_fourth_example_has_one_frame(two_frames):
    with make_reader(two_frames, {"name": 1.0}, "train", 16, 0, 8, 12) as reader:
        batch = next(reader)
    assert batch.images.shape[:2] == (16, 2)
    assert sorted(batch.images.any(axis=(2, 3, 4)).sum(axis=1).tolist()) == [1] * 4 + [2] * 12


@pytest.mark.parametrize("wiring", ["pali", "palm_e"])
def test_a_model_of_two_frames_trains_from_prepared_data(wiring, fields, tmp_path):
    assert PALI_3B.num_images == 2
    if wiring == "palm_e":
        text = {"width": 16, "layers": 2, "heads": 2, "head_dim": 8, "mlp": 32}
        fields = {**fields, "model": {**fields["model"], "size": "tiny_palm_e", "text": text}}
    train(make_config({**fields, "augment": {"brightness": 0.2, "shift": 2}}), tmp_path)
    bundle = load_bundle(tmp_path)
    assert bundle.backbone.config.num_images == 2 and bundle.spec.step == 2


def test_another_number_of_images_than_the_models_is_refused(fields, tmp_path):
    with pytest.raises(UserError, match="the data have 2 images an example, the model takes 1; change num_images"):
        train(make_config({**fields, "model": {**fields["model"], "num_images": 1}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
