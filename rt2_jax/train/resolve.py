"""What a config's names stand for: task weights and the model."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from rt2_jax.data.mixtures import mixture_weights
from rt2_jax.errors import UserError
from rt2_jax.models.config import ModelConfig, PrefixLmConfig
from rt2_jax.models.sizes import SIZES, get_config
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.train.bundle_meta import BUNDLE_FILE, read_meta
from rt2_jax.train.config import TrainConfig


def task_weights(config: TrainConfig) -> dict[str, float]:
    """Task -> weight of the config's mixture; a task's id is its place in it.

    Raises:
        UserError: an unknown mixture.
    """
    if isinstance(config.mixture, Mapping):
        return dict(config.mixture)
    return mixture_weights(config.mixture)


def model_config(config: TrainConfig, vocabulary: Vocabulary) -> ModelConfig:
    """The model of a config, with the vocabulary's size and image token and the config's dropout and adapters.

    Raises:
        UserError: an unknown size or field, or values that do not fit together.
    """
    fields: dict[str, Any] = {"size": config.model} if isinstance(config.model, str) else dict(config.model)
    model = _sized(fields.pop("size", "tiny"))
    if "lora" in fields:
        raise UserError(f"config: model.lora is {fields['lora']!r}; set the config's own lora instead")
    text = dict(fields.get("text", {}))
    if config.dropout is not None:
        text["dropout_rate"] = config.dropout
    if isinstance(model.text, PrefixLmConfig) and model.text.image_id is None:
        # A prompt places an image where the vocabulary's token for images stands.
        text.setdefault("image_id", vocabulary.image_id)
    fields["text"] = text
    try:
        return model.replace(**{**fields, "vocab_size": vocabulary.size, "lora": config.lora})
    except TypeError as error:
        known = ", ".join(field.name for field in dataclasses.fields(ModelConfig))
        raise UserError(f"config: model {config.model!r}: {error}; allowed: size, {known}") from error


def _sized(size: str) -> ModelConfig:
    """A named size, or the model of a folder with a bundle.json, as `rt2 convert` writes it."""
    if size not in SIZES and (pathlib.Path(size) / BUNDLE_FILE).is_file():
        return ModelConfig.from_json(read_meta(size)["model"])
    return get_config(size)
