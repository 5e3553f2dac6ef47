"""From converted weights to a run: the model of the folder, its weights, its vocabulary."""

import numpy as np
import pytest

from rt2_jax.bundle.store import load_bundle
from rt2_jax.convert.importer import import_weights
from rt2_jax.errors import UserError
from rt2_jax.models import ModelConfig, PrefixLmConfig, VitConfig
from rt2_jax.tokens import Vocabulary
from rt2_jax.train.config import make_config
from rt2_jax.train.loop import train
from tests.convert.models import flat, native_folder, stored

CONFIG = ModelConfig(
    name="pretrained",
    vision=VitConfig(patch_size=16, width=16, layers=1, heads=1, head_dim=16, mlp=16),
    text=PrefixLmConfig(width=16, layers=2, heads=2, kv_heads=1, head_dim=8, mlp=16),
    image_size=32,
    vocab_size=128,
)


def test_a_run_starts_from_converted_weights(small_fields, tmp_path):
    native, converted = native_folder(tmp_path / "native", CONFIG), tmp_path / "converted"
    import_weights(converted, model=native, vocabulary=Vocabulary.load())
    still = {**small_fields["optimizer"], "learning_rate": 0.0}
    fields = {**small_fields, "model": str(converted), "init_from": str(converted), "optimizer": still, "steps": 1}
    assert train(make_config(fields), tmp_path / "run") == 0
    bundle = load_bundle(tmp_path / "run")
    assert bundle.backbone.config.text == CONFIG.text and bundle.backbone.config.vocab_size == bundle.vocabulary.size
    found = flat(bundle.params)
    for path, array in stored(converted).items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


def test_weights_without_a_vocabulary_are_refused(small_fields, tmp_path):
    config = CONFIG.replace(vocab_size=Vocabulary.load().size)
    folder = native_folder(tmp_path / "native", config)
    fields = {**small_fields, "model": str(folder), "init_from": str(folder)}
    with pytest.raises(UserError, match="the weights have no vocabulary, so this run cannot be checked; convert them"):
        train(make_config(fields), tmp_path / "run")
