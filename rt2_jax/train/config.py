"""What a training run is told: the fields of a config, their defaults and limits, checked before any work starts.

A config file holds ``get_config()``, which returns an ``ml_collections.ConfigDict`` (or a plain dict) of the fields of
`TrainConfig` that differ from their defaults. `load_config` reads the file, `make_config` checks the fields.
"""

import dataclasses
import difflib
import importlib.util
import json
import pathlib
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from rt2_jax.errors import UserError
from rt2_jax.models.config import COMPUTE_DTYPES, LoraConfig

OPTIMIZERS = ("adafactor", "adamw", "muon")
SCHEDULES = ("rsqrt", "constant", "cosine")
MESH_AXES = ("slice", "data", "fsdp", "tensor")
FREEZE_WORDS = ("train", "frozen")
OVERRIDE_PREFIX = "--config."


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

    name: str = "adafactor"
    learning_rate: float = 1e-3
    schedule: str = "rsqrt"
    warmup_steps: int = 1000
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    beta1: float | None = None
    beta2: float = 0.999
    eps: float = 1e-8
    decay_rate: float = 0.8
    clip_threshold: float = 1.0
    multiply_by_parameter_scale: bool = True
    min_dim_size_to_factor: int = 128


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Photometric jitter and shifts, drawn per example on the accelerator; 0 is off.

    Attributes:
        brightness: adds a number of [-brightness, brightness] times the full range.
        contrast: scales about the image's mean by a factor of [1 - contrast, 1 + contrast].
        shift: moves the picture by up to this many pixels each way, its edge repeated. Places named in a target move
            with it, so keep it under the target's resolution.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    shift: int = 0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        data_dir: holds ``prepared/<task>/<split>``.
        mixture: a mixture's name, or task -> weight.
        steps: the run's last step, counted from the first start.
        batch_size: examples in a global batch, all hosts together.
        model: a name of `rt2_jax.models.sizes.SIZES`, a folder that `rt2 convert` or a run wrote, or a dict:
            ``{"size": name or folder, <field>: value, ...}`` where a nested dict overrides fields of a nested config.
        vocabulary: SentencePiece model file; empty means the shipped one.
        card: dataset card (name or path) that holds the action bounds; goes into the bundle.
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
        tensorboard: also write TensorBoard summaries through CLU.
    """

    data_dir: str
    mixture: str | dict[str, float]
    steps: int
    batch_size: int
    model: str | dict[str, Any] = "tiny"
    vocabulary: str = ""
    card: str = "tabletop"
    prompt_len: int = 64
    target_len: int = 64
    optimizer: OptimizerConfig = OptimizerConfig()
    lora: LoraConfig | None = None
    freeze: tuple[tuple[str, str], ...] = ()
    frozen_dtype: str = "float32"
    z_loss: float = 1e-4
    dropout: float | None = None
    augment: AugmentConfig = AugmentConfig()
    seed: int = 0
    mesh: dict[str, int] = dataclasses.field(default_factory=dict)
    microbatches: int = 1
    init_from: str = ""
    ordered_integers: bool = False
    log_every: int = 50
    eval_every: int = 1000
    eval_batches: int = 4
    checkpoint_every: int = 1000
    keep: int = 2
    tensorboard: bool = False

    def to_json(self) -> str:
        """The whole config as indented JSON; `make_config` reads it back."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"


def load_config(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads a config file and applies overrides: "--config.optimizer.learning_rate=1e-3"; values are JSON, or text.

    Raises:
        UserError: no such file, no get_config(), or anything `make_config` refuses.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"config {path} does not exist; name a Python file that has get_config()")
    spec = importlib.util.spec_from_file_location(f"rt2_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        get_config = getattr(module, "get_config", None)
        fields = _plain(get_config()) if callable(get_config) else None
    except Exception as error:
        raise UserError(f"config {path} does not run: {type(error).__name__}: {error}; mend the file") from error
    if not isinstance(fields, dict):
        raise UserError(f"config {path} has no get_config() that returns a ConfigDict; define one")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.startswith(OVERRIDE_PREFIX):
            raise UserError(f"argument {override!r} is unknown; set a config's value as --config.steps=100")
        key = key.removeprefix(OVERRIDE_PREFIX)
        node = fields
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"override {key}: {parent} is not a group of fields; name a field of the config")
        node[last] = _parse(text)
    return make_config(fields)


def make_config(fields: Mapping[str, Any] | ml_collections.ConfigDict) -> TrainConfig:
    """The checked config of a mapping of `TrainConfig`'s fields.

    Raises:
        UserError: an unknown or missing key, a wrong type, or a value outside its limits; it names all three.
    """
    config = _build(TrainConfig, _plain(fields), "")
    _check(config)
    return config


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def _plain(value: Any) -> Any:
    """ConfigDicts, tuples and field references become dicts, tuples and plain values."""
    if isinstance(value, ml_collections.ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    return value


def _build(cls: type, fields: Any, prefix: str) -> Any:
    if isinstance(fields, cls):
        return fields
    if not isinstance(fields, Mapping):
        raise UserError(f"config: {prefix.rstrip('.')} is {fields!r}, needs a group of the fields of {cls.__name__}")
    hints = typing.get_type_hints(cls)
    known = {field.name: field for field in dataclasses.fields(cls)}
    for key in fields:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"allowed: {', '.join(sorted(known))}"
            raise UserError(f"config: unknown key {prefix}{key} = {fields[key]!r}; {hint}")
    values = {}
    for name, field in known.items():
        if name in fields:
            values[name] = _typed(fields[name], hints[name], prefix + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"config: {prefix}{name} is missing; set it to a value of type {_type_name(hints[name])}")
    return cls(**values)


def _typed(value: Any, hint: Any, key: str) -> Any:
    """`value` as the annotated type; ints pass as floats, nothing else is converted."""
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, key + ".")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
                return _build(option, value, key + ".")
            try:
                return _typed(value, option, key)
            except UserError:
                continue
    elif origin is dict and isinstance(value, Mapping):
        return {name: _typed(item, arguments[1], f"{key}.{name}") for name, item in value.items()}
    elif origin is tuple and isinstance(value, tuple | list):
        if arguments[-1] is Ellipsis:
            return tuple(_typed(item, arguments[0], f"{key}[{i}]") for i, item in enumerate(value))
        if len(value) == len(arguments):
            return tuple(_typed(*pair, f"{key}[{i}]") for i, pair in enumerate(zip(value, arguments, strict=True)))
    elif hint is Any or (hint is types.NoneType and value is None):
        return value
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise UserError(f"config: {key} is {value!r} ({type(value).__name__}), needs {_type_name(hint)}; change the value")


def _type_name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)


def _check(config: TrainConfig) -> None:
    optimizer = config.optimizer
    for key, value, allowed in (
        ("optimizer.name", optimizer.name, OPTIMIZERS),
        ("optimizer.schedule", optimizer.schedule, SCHEDULES),
        ("frozen_dtype", config.frozen_dtype, COMPUTE_DTYPES),
        *(("freeze", word, FREEZE_WORDS) for _, word in config.freeze),
        *(("mesh", axis, MESH_AXES) for axis in config.mesh),
    ):
        if value not in allowed:
            raise UserError(f"config: {key} is {value!r}; allowed: {', '.join(allowed)}")
    rsqrt = optimizer.schedule == "rsqrt"
    bounds = (
        ("steps", config.steps, 1, None),
        ("batch_size", config.batch_size, 1, None),
        ("microbatches", config.microbatches, 1, config.batch_size),
        ("prompt_len", config.prompt_len, 1, None),
        ("target_len", config.target_len, 1, None),
        ("log_every", config.log_every, 1, None),
        ("eval_every", config.eval_every, 0, None),
        ("eval_batches", config.eval_batches, 1, None),
        ("checkpoint_every", config.checkpoint_every, 1, None),
        ("keep", config.keep, 1, None),
        ("seed", config.seed, 0, 2**32 - 1),
        ("z_loss", config.z_loss, 0.0, None),
        ("dropout", config.dropout or 0.0, 0.0, 0.99),
        ("augment.brightness", config.augment.brightness, 0.0, 1.0),
        ("augment.contrast", config.augment.contrast, 0.0, 1.0),
        ("augment.shift", config.augment.shift, 0, None),
        ("optimizer.learning_rate", optimizer.learning_rate, 0.0, None),
        ("optimizer.warmup_steps", optimizer.warmup_steps, 1 if rsqrt else 0, None),
        ("optimizer.weight_decay", optimizer.weight_decay, 0.0, None),
        ("optimizer.clip_norm", optimizer.clip_norm, 0.0, None),
        ("optimizer.beta1", optimizer.beta1 or 0.0, 0.0, 0.9999),
        ("optimizer.beta2", optimizer.beta2, 0.0, 0.999999),
        ("optimizer.eps", optimizer.eps, 0.0, None),
        ("optimizer.decay_rate", optimizer.decay_rate, 0.0, 1.0),
        ("optimizer.clip_threshold", optimizer.clip_threshold, 0.0, None),
        ("optimizer.min_dim_size_to_factor", optimizer.min_dim_size_to_factor, 1, None),
        *((f"mesh.{axis}", size, -1, None) for axis, size in config.mesh.items()),
    )
    for key, value, low, high in bounds:
        if not low <= value <= (sys.float_info.max if high is None else high):
            limit = f"at least {low}" if high is None else f"{low} to {high}"
            raise UserError(f"config: {key} is {value!r}, allowed: {limit}; change the value")
    if config.batch_size % config.microbatches:
        raise UserError(
            f"config: batch_size {config.batch_size} does not divide into microbatches = {config.microbatches}; "
            "choose a divisor"
        )
    if config.ordered_integers and config.init_from:
        raise UserError(
            f"config: ordered_integers is for random weights, but init_from is {config.init_from!r}; leave one out"
        )
    if config.lora and not config.init_from and not config.freeze:
        raise UserError(
            "config: lora trains beside weights that stand still, but init_from is empty and they would be random; "
            "name a bundle or run"
        )
    if isinstance(config.mixture, dict) and (not config.mixture or min(config.mixture.values()) <= 0):
        raise UserError(f"config: mixture is {config.mixture!r}; name one task at least, each weight above 0")
    for pattern, _ in config.freeze:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"config: freeze pattern {pattern!r} is not a regular expression ({error})") from error
