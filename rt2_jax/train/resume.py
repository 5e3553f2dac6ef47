"""What may change between the starts of one run: config and data now, held against those that a step was saved with.

A step's progress holds the whole config (`step_facts`). What else the run is decides through names that may move (the
vocabulary's path, a mixture's or model's name) is compared by what they stand for.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from rt2_jax.actions.embodiment import Embodiment, difference
from rt2_jax.bundle.spec import BundleSpec
from rt2_jax.bundle.steps import SEALED_FORMAT
from rt2_jax.data.records import read_index
from rt2_jax.errors import UserError
from rt2_jax.models.config import ModelConfig
from rt2_jax.train.config import CHANGEABLE, TrainConfig
from rt2_jax.typed import shown

# They leave the result as it is, up to the rounding of another mesh, or only say how far to go and what to tell.
ALWAYS = (
    "steps",
    "log_every",
    "eval_every",
    "eval_batches",
    "checkpoint_every",
    "keep",
    "tensorboard",
    "mesh",
    "microbatches",
    "data_dir",
    "init_from",
    "may_change",
)
ALWAYS_OF_MODEL = ("model.name", "model.remat", "model.scan_unroll")
# Compared by what they stand for.
_NAMES = ("vocabulary", "mixture", "model", "lora")
_ABSENT = "(not set)"
_DATA = "data"

Changes = dict[str, tuple[Any, Any]]


def step_facts(config: TrainConfig, tasks: Iterable[str]) -> dict[str, Any]:
    """What a step's progress holds of the run beside its bundle metadata.

    Raises:
        UserError: a task is not prepared.
    """
    return {"config": dataclasses.asdict(config), _DATA: {task: _data_facts(config.data_dir, task) for task in tasks}}


def find_changes(saved: Mapping[str, Any], facts: Mapping[str, Any], meta: Mapping[str, Any]) -> Changes | None:
    """Every field that has changed since a step was saved -> (its value then, its value now).

    Args:
        saved: the step's progress.
        facts, meta: what the progress of the next step will hold: `step_facts` and the bundle metadata.

    Returns:
        None for a step of an earlier release, which did not record its config.

    Raises:
        UserError: a newer step has no config.
    """
    if saved.get("config") is None or saved.get(_DATA) is None:
        if saved.get("format", 1) >= SEALED_FORMAT:
            raise UserError("the step's progress lacks the config that it was saved with; put back a copy of the step")
        return None
    old_data, new_data = saved.get(_DATA, {}), facts[_DATA]
    # A task that came or went is told by the mixture.
    common = [task for task in new_data if task in old_data]
    then = _fields(saved["config"], {task: old_data[task] for task in common}, saved["bundle"])
    now = _fields(facts["config"], {task: new_data[task] for task in common}, meta)
    defaults = _flat(_defaults())
    changes = {}
    for name in sorted(then.keys() | now.keys(), key=lambda name: (name not in _NAMES, name)):
        # A field that one of the two releases does not know is at its default there.
        old, new = (_value(fields, name, defaults) for fields in (then, now))
        if old != new:
            changes[name] = (old, new)
    if "dropout" in changes:
        changes.pop("model.text.dropout_rate", None)  # the same thing, told twice
    return changes


def check_changes(changes: Mapping[str, tuple[Any, Any]], may_change: Iterable[str], where: str) -> None:
    """Raises a UserError that names the first field which must stay as it was in the run that `where` names."""
    refused = [name for name in changes if not _allowed(name, may_change)]
    if not refused:
        return
    name = refused[0]
    old, new = changes[name]
    more = f" (and {', '.join(refused[1:4])}{', ...' if len(refused) > 4 else ''})" if len(refused) > 1 else ""
    declare = f'declare it with may_change = ("{name}",), ' if name in CHANGEABLE else ""
    raise UserError(
        f"{where} was trained with {name} = {shown(old)}, now it is {shown(new)}{more}; put it back, {declare}"
        "or choose a new workdir"
    )


def check_meaning(saved: BundleSpec, embodiments: Mapping[str, Embodiment], where: str) -> None:
    """Raises a UserError when the data's integers mean other actions than those that a step was trained on."""
    for name, now in embodiments.items():
        if len(embodiments) == 1 and len(saved.embodiments) <= 1:
            then = next(iter(saved.embodiments.values()), None)  # the only one, by whatever name
        else:
            then = saved.embodiments.get(name, now)  # one that comes or goes is told by the mixture
        differing = difference(then, now)
        if differing:
            what, old, new = differing
            raise UserError(
                f"{where} was trained with actions of {name} of which {what} is {old}, in the prepared data it is "
                f"{new}; prepare them with the card that the run began with, or choose a new workdir"
            )


def _allowed(name: str, may_change: Iterable[str]) -> bool:
    return name.partition(".")[0] in ALWAYS or name in ALWAYS_OF_MODEL or name in tuple(may_change)


def _fields(config: Mapping[str, Any], data: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """All that is compared, flat."""
    fields = _flat({name: value for name, value in config.items() if name not in _NAMES})
    model = ModelConfig.from_json(meta["model"]).to_json()
    fields |= _flat({"lora": model.pop("lora", None)})
    fields |= _flat({"model": model})
    fields["vocabulary"] = meta["vocabulary"]["sha256"]
    fields["mixture"] = [[task, float(weight)] for task, weight in meta["tasks"].items()]
    return fields | _flat({_DATA: data})


def _data_facts(data_dir: str, task: str) -> dict[str, Any]:
    """What a task's training data are, wherever they lie."""
    index = read_index(data_dir, task, "train")
    embodiment = index.embodiment
    return {
        "num_examples": index.num_examples,
        "source": index.source,
        "vocabulary": index.vocabulary,
        "image_size": index.image_size,
        "num_images": index.num_images,
        # The words of the first releases, whose steps must still be known again.
        "card": embodiment and embodiment.name,
        "bins": embodiment and embodiment.sha256,
    }


def _defaults() -> dict[str, Any]:
    config = dataclasses.asdict(TrainConfig(data_dir="", mixture="-", steps=1, batch_size=1))
    return {name: value for name, value in config.items() if name not in _NAMES}


def _value(fields: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> Any:
    if name in fields:
        return fields[name]
    inside = name + "."
    # A group that was None, or is now, has no fields of its own there.
    group = any(other.startswith(inside) or name.startswith(other + ".") for other in fields)
    return _ABSENT if group else defaults.get(name, _ABSENT)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optimizer": {"name": "adamw"}} -> {"optimizer.name": "adamw"}; tuples become lists, as in JSON."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.loads(json.dumps(value))
    return flat
