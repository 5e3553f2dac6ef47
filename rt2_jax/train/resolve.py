"""What a config's names stand for: task weights and the model."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from rt2_jax.bundle.spec import BUNDLE_FILE, read_spec
from rt2_jax.data.mixtures import read_mixture
from rt2_jax.errors import UserError
from rt2_jax.models.config import ModelConfig
from rt2_jax.models.int8 import check_float
from rt2_jax.models.sizes import SIZES, get_config
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.train.config import TrainConfig
from rt2_jax.typed import shown

PREFIX_LM = "prefix_lm"
# Fields of a model that something else decides, and what does.
_DECIDED = {
    "lora": "set the config's own lora instead",
    "quantized": "int8 weights cannot be trained; remove it",
    "vocab_size": "the vocabulary decides it; remove it",
}


def task_weights(config: TrainConfig) -> dict[str, float]:
    """Task -> weight of the config's mixture; a task's id is its place in it.

    Raises:
        UserError: a mixture that is not recorded beside the data.
    """
    if isinstance(config.mixture, Mapping):
        return dict(config.mixture)
    return read_mixture(config.data_dir, config.mixture)


def model_config(config: TrainConfig, vocabulary: Vocabulary) -> ModelConfig:
    """The model of a config, with the vocabulary's size and image token and the config's dropout and adapters.

    Raises:
        UserError: an unknown size or field, a wrong type, or values that do not fit together.
    """
    fields: dict[str, Any] = {"size": config.model} if isinstance(config.model, str) else dict(config.model)
    tree = _sized(fields.pop("size", "tiny")).to_json()
    if tree["text"]["kind"] == PREFIX_LM and tree["text"]["image_id"] is None:
        # A prompt places an image where the vocabulary's token for images stands, unless the config says otherwise.
        tree["text"]["image_id"] = vocabulary.image_id
    for name, instead in _DECIDED.items():
        if name in fields:
            raise UserError(f"config: model.{name} is {shown(fields[name])}; {instead}")
    for name, value in fields.items():
        # A part's fields are changed one by one; a model without vision can be given one whole.
        old = tree.get(name)
        tree[name] = {**(old if isinstance(old, dict) else {}), **value} if isinstance(value, Mapping) else value
    if config.dropout is not None and isinstance(tree["text"], dict):
        tree["text"]["dropout_rate"] = config.dropout
    model = ModelConfig.from_json({**tree, "vocab_size": vocabulary.size}, "config", "model")
    check_augment(config, model)
    return dataclasses.replace(model, lora=config.lora)


def check_augment(config: TrainConfig, model: ModelConfig) -> None:
    """Raises a UserError where pictures would be moved out of their frame."""
    shift = config.augment.shift
    if shift >= model.image_size:
        raise UserError(
            f"config: augment.shift is {shift}, allowed: 0 to {model.image_size - 1}, less than the model's frames of "
            f"{model.image_size} pixels; change the value"
        )


def _sized(size: Any) -> ModelConfig:
    """A named size, or the model of a folder with a bundle.json, as `rt2 convert` writes it."""
    if not isinstance(size, str):
        raise UserError(
            f"config: model.size is {shown(size)} ({type(size).__name__}), needs str; name a size or folder"
        )
    # os.path's answer is no, where pathlib raises, for a name that is too long for the file system.
    if size not in SIZES and os.path.isfile(os.path.join(size, BUNDLE_FILE)):
        model = read_spec(size).model
        check_float(model, f"config: model.size {size}", "which cannot be trained")
        return model
    return get_config(size)
