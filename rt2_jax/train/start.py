"""What a run starts from: random parameters, or those of a bundle or another run, with or without adapters."""

import dataclasses
import pathlib

import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from rt2_jax.bundle.params import restore_params
from rt2_jax.bundle.spec import check_vocabulary, read_spec
from rt2_jax.bundle.store import Opened, open_folder
from rt2_jax.errors import UserError
from rt2_jax.files.manifest import find_damage, read_manifest, shares
from rt2_jax.models.backbone import Backbone, Params
from rt2_jax.models.config import LoraConfig
from rt2_jax.models.int8 import check_float
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.train.config import TrainConfig
from rt2_jax.train.hosts import agree
from rt2_jax.train.integers import order_integers
from rt2_jax.train.state import TrainState
from rt2_jax.train.step import Program
from rt2_jax.train.trainable import LORA_FREEZE, merge_params, split_params, trainable_paths


def fresh_state(config: TrainConfig, program: Program, backbone: Backbone, vocabulary: Vocabulary) -> TrainState:
    """The state before the first step; call it inside ``parallel.rules.partitioned(mesh)``.

    Raises:
        UserError: `init_from` has another vocabulary, model or LoRA than this run, or cannot be read.
    """
    rng = jax.random.key(config.seed)
    if config.init_from:
        params = _params_from(pathlib.Path(config.init_from), program, backbone, vocabulary, rng)
        step = jax.device_put(np.zeros((), np.int32), program.state.step.sharding)
        return TrainState(step, params, program.init_opt_state(params))
    state = program.init(rng)
    if not config.ordered_integers:
        return state
    ordered = jax.jit(order_integers, out_shardings=_shardings(program.state.params))
    return dataclasses.replace(state, params=ordered(state.params, vocabulary.integer_ids, jax.random.fold_in(rng, 1)))


def _params_from(
    source: pathlib.Path, program: Program, backbone: Backbone, vocabulary: Vocabulary, rng: PRNGKeyArray
) -> Params:
    """The parameters of a bundle or run; the adapters that it lacks are drawn."""
    check_vocabulary(read_spec(source), vocabulary.sha256, "this run")
    opened = _opened(source)
    check_float(opened.spec.model, f"init_from {source}", "which cannot be trained")
    found, wanted = opened.spec.model.lora, backbone.config.lora
    if found not in (None, wanted):
        raise UserError(
            f"init_from {source} has {_told(found)}, this run has {_told(wanted)}; give it the same, or merge them: "
            f"rt2 export --merge-lora --checkpoint {source}"
        )
    if found == wanted:
        return restore_params(opened.params, program.state.params)
    of_lora = trainable_paths(program.state.params, LORA_FREEZE)
    drawn, stored = split_params(program.state.params, of_lora)
    draw = jax.jit(lambda rng: split_params(backbone.init(rng), of_lora)[0], out_shardings=_shardings(drawn))
    return merge_params(draw(rng), restore_params(opened.params, stored))


def _opened(source: pathlib.Path) -> Opened:
    """The folder, found whole: several hosts hash a part of it each, and come to the same answer.

    Raises:
        UserError: it is damaged; of a run, its newest step.
    """
    if jax.process_count() == 1:
        return open_folder(source)
    opened = open_folder(source, verify=False)
    folder = opened.params.parent
    manifest = read_manifest(folder)
    mine = manifest and shares(manifest, jax.process_count())[jax.process_index()]
    damage = agree(manifest and find_damage(folder, manifest, mine))
    if damage:
        raise UserError(f"init_from {folder}: {damage}; copy it again")
    return opened


def _shardings(abstract: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def _told(lora: LoraConfig | None) -> str:
    return f"LoRA {lora.pattern!r} of rank {lora.rank}, alpha {lora.alpha:g}" if lora else "no LoRA"
