"""What a training run is told: the fields of a config, their defaults and limits, checked before any work starts.

A config file holds ``get_config()``, which returns an ``ml_collections.ConfigDict`` (or a plain dict) of the fields of
`TrainConfig` that differ from their defaults. `load_config` reads the file, `make_config` checks the fields.
"""

import dataclasses
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import ml_collections
import msgspec

from rt2_jax.errors import UserError
from rt2_jax.models.config import COMPUTE_DTYPES, LoraConfig
from rt2_jax.typed import (
    MAX_DEPTH,
    Count,
    Natural,
    NotNegative,
    PathText,
    build,
    check_fields,
    one_line,
    parse_json,
    shown,
    shown_path,
)

OPTIMIZERS = ("adafactor", "adamw", "muon")
SCHEDULES = ("rsqrt", "constant", "cosine")
MESH_AXES = ("slice", "data", "fsdp", "tensor")
FREEZE_WORDS = ("train", "frozen")
OVERRIDE_PREFIX = "--config."
# What a run that goes on may be told to change beside what it always may (see `TrainConfig.may_change`).
CHANGEABLE = (
    "optimizer.learning_rate",
    "optimizer.schedule",
    "optimizer.warmup_steps",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "z_loss",
    "dropout",
    "augment.brightness",
    "augment.contrast",
    "augment.shift",
    "model.compute_dtype",
)
# Fields that there were once, and what to do instead.
REMOVED = {
    "card": "a run takes its action bounds from its prepared data; remove it, and set the card when preparing",
}

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
# Either an axis' size, or -1 for what is left.
AxisSize = Annotated[int, msgspec.Meta(ge=-1, le=2**24)]
# Weights are shares of their sum, which must be a number too.
Weight = Annotated[float, msgspec.Meta(gt=0.0, le=1e9)]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The update rule. Defaults: T5X's Adafactor with PaLI's schedule (arXiv 2209.06794, section 3.3).

    Attributes:
        name: ``adafactor``, ``adamw``, or ``muon`` (matrices by Muon, the rest by AdamW at the same learning rate).
        learning_rate: the peak. Adafactor multiplies it by each parameter's RMS unless told otherwise.
        schedule: after the linear warmup: ``rsqrt`` (peak * sqrt(warmup_steps / step)), ``constant``, or ``cosine``
            (to zero at the run's last step).
        warmup_steps: steps of the linear warmup; rsqrt needs at least 1.
        weight_decay: decoupled, times the current learning rate; on parameters of two or more dimensions alone.
        clip_norm: the gradient's global norm is clipped to this; 0 is off.
        beta1: momentum; None means 0.9 for AdamW, 0.95 for Muon's matrices and none for Adafactor.
        beta2, eps: AdamW's, beside Muon too.
        decay_rate: Adafactor's second moment decays by ``1 - t ** -decay_rate``.
        clip_threshold: Adafactor's limit on the RMS of one parameter's update; 0 is off.
        multiply_by_parameter_scale: Adafactor's relative step sizes; a LoRA's, whose B starts at zero, are absolute.
        min_dim_size_to_factor: Adafactor factors a parameter whose two largest dimensions reach this.
    """

    name: Literal[OPTIMIZERS] = "adafactor"
    learning_rate: NotNegative = 1e-3
    schedule: Literal[SCHEDULES] = "rsqrt"
    warmup_steps: Natural = 1000
    weight_decay: NotNegative = 0.0
    clip_norm: NotNegative = 0.0
    beta1: Annotated[float, msgspec.Meta(ge=0.0, le=0.9999)] | None = None
    beta2: Annotated[float, msgspec.Meta(ge=0.0, le=0.999999)] = 0.999
    eps: NotNegative = 1e-8
    decay_rate: Share = 0.8
    clip_threshold: NotNegative = 1.0
    multiply_by_parameter_scale: bool = True
    min_dim_size_to_factor: Count = 128

    def __post_init__(self) -> None:
        check_fields(self, "config", "optimizer")
        if self.schedule == "rsqrt" and not self.warmup_steps:
            raise UserError("config: optimizer.warmup_steps is 0, allowed: at least 1 with rsqrt; change the value")


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Photometric jitter and shifts, drawn per example on the accelerator; 0 is off.

    Attributes:
        brightness: adds a number of [-brightness, brightness] times the full range.
        contrast: scales about the image's mean by a factor of [1 - contrast, 1 + contrast].
        shift: moves the picture by up to this many pixels each way, its edge repeated. Places named in a target move
            with it, so keep it under the target's resolution; it must be under the frame's side.
    """

    brightness: Share = 0.0
    contrast: Share = 0.0
    shift: Natural = 0

    def __post_init__(self) -> None:
        check_fields(self, "config", "augment")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        data_dir: holds ``prepared/<task>/<split>``.
        mixture: a mixture's name, as `rt2 data prepare --mixture` recorded it, or task -> weight.
        steps: the run's last step, counted from the first start.
        batch_size: examples in a global batch, all hosts together.
        model: a name of `rt2_jax.models.sizes.SIZES`, a folder that `rt2 convert` or a run wrote, or a dict:
            ``{"size": name or folder, <field>: value, ...}`` where a nested dict overrides fields of a nested config.
        vocabulary: SentencePiece model file; empty means the shipped one.
        prompt_len, target_len: tokens of a row; longer examples are an error when data is prepared or read.
        optimizer: see `OptimizerConfig`.
        lora: adapters beside kernels (see `rt2_jax.models.config.LoraConfig`). They train, the rest is frozen, unless
            ``freeze`` says otherwise.
        freeze: (regex, "train" | "frozen") pairs, the first full match of a parameter's path ("vision/embed/kernel")
            decides. Empty trains all; otherwise every parameter must match one, and every regex some parameter. With
            ``lora`` the list goes on with (".*/lora_[ab]", "train"), (".*", "frozen").
        frozen_dtype: "float32", or "bfloat16": frozen kernels and token tables are rounded and take half the memory.
        z_loss: weight of log(Z)^2 beside the cross-entropy.
        dropout: the rate in the language model, or None for the model's own.
        augment: see `AugmentConfig`.
        seed: of initialisation, data order, dropout and augmentation.
        mesh: axis -> devices for slice, data, fsdp, tensor; -1 on one axis is what is left. Empty puts all on ``fsdp``.
        microbatches: pieces that a global batch is cut into to save memory; the update is the same.
        init_from: a bundle or run directory whose parameters the run starts from; empty starts from random ones.
        ordered_integers: start the integer tokens as neighbours (see `rt2_jax.train.integers`); for a run from random
            weights, without `init_from`.
        log_every, eval_every, checkpoint_every: in steps; eval_every 0 never evaluates.
        eval_batches: validation batches of each task at an evaluation.
        keep: complete checkpoints kept.
        tensorboard: also write TensorBoard summaries (`tensorboard` extra).
        may_change: fields, beyond those that always may, whose change is accepted when a run goes on, e.g.
            ("optimizer.learning_rate",); of `CHANGEABLE`.

    Raises:
        UserError: a wrong type, a value outside its limits, or values that do not fit together.
    """

    data_dir: PathText
    mixture: str | dict[str, Weight]
    steps: Count
    batch_size: Count
    model: PathText | dict[str, Any] = "tiny"
    vocabulary: PathText = ""
    prompt_len: Count = 64
    target_len: Count = 64
    optimizer: OptimizerConfig = OptimizerConfig()
    lora: LoraConfig | None = None
    freeze: tuple[tuple[str, Literal[FREEZE_WORDS]], ...] = ()
    frozen_dtype: Literal[COMPUTE_DTYPES] = "float32"
    z_loss: NotNegative = 1e-4
    dropout: Annotated[float, msgspec.Meta(ge=0.0, le=0.99)] | None = None
    augment: AugmentConfig = AugmentConfig()
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0
    mesh: dict[Literal[MESH_AXES], AxisSize] = dataclasses.field(default_factory=dict)
    microbatches: Count = 1
    init_from: PathText = ""
    ordered_integers: bool = False
    log_every: Count = 50
    eval_every: Natural = 1000
    eval_batches: Count = 4
    checkpoint_every: Count = 1000
    keep: Count = 2
    tensorboard: bool = False
    may_change: tuple[Literal[CHANGEABLE], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "config")
        _check(self)

    def to_json(self) -> str:
        """The whole config as indented JSON; `make_config` reads it back."""
        return config_text(dataclasses.asdict(self))


def config_text(fields: Mapping[str, Any]) -> str:
    """A config's fields as they stand in config.json."""
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def load_config(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads a config file and applies overrides: "--config.optimizer.learning_rate=1e-3"; values are JSON, or text.

    Raises:
        UserError: no such file, no get_config(), or anything `make_config` refuses.
    """
    fields = _file_fields(path)
    for override in overrides:
        _override(fields, override)
    return make_config(fields)


def make_config(fields: Mapping[str, Any] | ml_collections.ConfigDict) -> TrainConfig:
    """The checked config of a mapping of `TrainConfig`'s fields.

    Raises:
        UserError: an unknown or missing key, a wrong type, or a value outside its limits; it names all three.
    """
    fields = _plain(fields)
    for key, instead in REMOVED.items():
        if isinstance(fields, Mapping) and key in fields:
            raise UserError(f"config: {key} is gone: {instead}")
    return build(TrainConfig, fields, "config")


def _file_fields(path: str | pathlib.Path) -> dict[str, Any]:
    """What the get_config() of a file returns."""
    name = f"config {shown_path(path)}"
    # os.path's answer is no, where pathlib raises, for a name that is too long for the file system.
    if not os.path.exists(path):
        raise UserError(f"{name} does not exist; name a Python file that has get_config()")
    if not os.path.isfile(path):
        raise UserError(f"{name} is no file; name a Python file that has get_config()")
    loader = importlib.machinery.SourceFileLoader(f"rt2_config_{pathlib.Path(path).stem}", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)  # pyright: ignore[reportArgumentType]: a file's loader has a spec
    try:
        loader.exec_module(module)
        get_config = getattr(module, "get_config", None)
        fields = _plain(get_config()) if callable(get_config) else None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a config that leaves Python has configured nothing
        raise UserError(f"{name} does not run: {type(error).__name__}: {one_line(error)}; fix the file") from error
    if not isinstance(fields, dict):
        raise UserError(f"{name} has no get_config() that returns a ConfigDict; define one")
    return fields


def _override(fields: dict[str, Any], override: str) -> None:
    """Sets the field that an argument of the command line names."""
    key, separator, text = override.partition("=")
    if not separator or not key.startswith(OVERRIDE_PREFIX):
        raise UserError(f"argument {shown(override)} is unknown; set a config's value as --config.steps=100")
    *parents, last = names = key.removeprefix(OVERRIDE_PREFIX).split(".")
    if not all(names) or len(names) > MAX_DEPTH:
        raise UserError(
            f"argument {shown(override)} names no field of a config; set one as --config.optimizer.learning_rate=1e-3"
        )
    node = fields
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            key, parent = shown_path(".".join(names)), shown_path(parent)
            raise UserError(f"override {key}: {parent} is not a group of fields; name a field of the config")
    node[last] = _parse(text, key)


def _parse(text: str, key: str) -> Any:
    if len(text) > 1 and text[0] in "[{":
        return parse_json(text, f"override {shown(key)} = {shown(text)}", "fix the value")
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        return {"True": True, "False": False, "None": None}.get(text, text)


def _plain(value: Any, depth: int = 0) -> Any:
    """ConfigDicts, tuples and field references become dicts, tuples and plain values."""
    if depth > MAX_DEPTH:
        raise UserError(f"config: {shown(value)} is nested more than {MAX_DEPTH} levels deep; take it apart")
    if isinstance(value, ml_collections.ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(item, depth + 1) for item in value)
    return value


def _check(config: TrainConfig) -> None:
    """What no field's type says."""
    if config.microbatches > config.batch_size or config.batch_size % config.microbatches:
        raise UserError(
            f"config: batch_size {config.batch_size} does not divide into microbatches = {config.microbatches}; "
            "choose a divisor"
        )
    sizes = list(config.mesh.values())
    if 0 in sizes or sizes.count(-1) > 1:
        raise UserError(f"config: mesh is {config.mesh}; each size must be 1 or more, and one may be -1, what is left")
    if config.ordered_integers and config.init_from:
        raise UserError(
            f"config: ordered_integers is for random weights, but init_from is {shown_path(config.init_from)!r}; leave "
            "one out"
        )
    if config.lora and not config.init_from and not config.freeze:
        raise UserError(
            "config: lora trains beside weights that stand still, but init_from is empty and they would be random; "
            "name a bundle or run"
        )
    if not config.mixture:
        raise UserError(f"config: mixture is {config.mixture!r}; name one task at least, each weight above 0")
    for pattern, _ in config.freeze:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise UserError(
                f"config: freeze pattern {shown(pattern)} is not a regular expression ({one_line(error)}); fix it"
            ) from error
