"""Wrong JSON in whatever rt2 reads: one line and code 2, and nothing changes on the disk."""

import dataclasses
import fnmatch
import json
import shutil

import flax.serialization
import numpy as np
import pytest
from attempts import fault_of, run_main, snapshot
from mutations import mutate, put, rng_of, same
from PIL import Image
from readers import (
    READ_BUNDLE,
    READ_DATA,
    READ_HELD_OUT,
    READ_RUN,
    READ_T5X,
    READ_TRANSFORMERS,
    reader_of,
)

from rt2_jax.files.manifest import read_manifest
from rt2_jax.files.writing import seal
from rt2_jax.train.resume import ALWAYS

# What a sealed file may say without anyone being able to know better: names, remarks, how something was drawn and is
# computed, how far a run was. "-" is a field taken away that has a default, "+" one that is added.
REMARKS = ("*.name", "*.description", "*.instructions*", "*.statistics*", "*num_episodes", "*num_steps")
IN_CARD = (*REMARKS, "*card.image_size*")
# A card without them is a card.
LEFT_OUT = (
    "-*.description",
    "-*.statistics",
    "-*.num_episodes",
    "-*.num_steps",
    "-*card.image_size",
    "-*.instructions",
    # At its default, or the card has another hash.
    "-*card.bins.*",
    *(f"-*card.{name}" for name in ("robot", "gripper", "control_hz", "cameras", "history", "chunk", "proprioception")),
)
IN_INDEX = (
    *IN_CARD, "*source", "*source_split", "*made_by*", "*prompt_len", "*target_len", "*dropped", "*longest_*",
    "*num_bytes", "*kind", "*camera", "-history",
)  # fmt: skip
# Fields with a default, which training does not read.
INDEX_LEFT_OUT = (*LEFT_OUT, *(f"-{name}" for name in ("num_bytes", "source", "source_split", "made_by", "dropped")))
INDEX_LEFT_OUT += ("-prompt_len", "-target_len", "-made_by.*")
T5 = ("+*", "-num_decoder_layers", "*eos_token_id", "*pad_token_id", "*decoder_start_token_id", "*architectures*")
SIGLIP = ("+*", "-layer_norm_eps", "-hidden_act", "*vision_use_head", "*architectures*")
SAFETENSORS = ("*metadata", "folder")  # the one file beside a folder of this name is read as where there is none
HOW_FAR = ("*step", "*exported_from", "sources*")
# Of a step's config and data, readers of its weights take nothing; a run that goes on may change some of it.
IN_RUN = ("+*", "config.*", "-config.*", "data.*", "-data.*", "-format", "-config", "-data")
GOING_ON = (
    "+",
    "+config.*",
    "example",
    "config.mixture*",
    "config.model*",
    "config.vocabulary",
    *(f"*config.{name}*" for name in ALWAYS),
)
MODEL = ("*remat", "*scan_unroll", "*compute_dtype", "*dropout_rate", "*position_std", "*branch_init")


@dataclasses.dataclass(frozen=True)
class Attack:
    """JSON of one file that is wrong.

    Attributes:
        artefact: the folder of the workplace.
        file: below it.
        readers: command lines; {it} is the folder, {root} where it lies, {place} the workplace.
        sealed: the folder, below the artefact, whose manifest is made anew; None: it stays as it was.
        free: places where no value of the right type is known to be wrong.
        unread: places that nobody reads.
        quick, full: how many.
    """

    artefact: str
    file: str
    readers: tuple
    sealed: str | None
    free: tuple[str, ...]
    quick: int
    full: int
    unread: tuple[str, ...] = ()


INDEX = "prepared/tabletop_robot_action/{}/index.json"
ATTACKS = {
    "bundle.json, sealed": Attack(
        "bundle", "bundle.json", READ_BUNDLE, "", (*IN_CARD, *MODEL), 4, 70, (*HOW_FAR, *LEFT_OUT, "-tasks.*")
    ),
    "bundle.json": Attack("bundle", "bundle.json", READ_BUNDLE, None, (), 2, 20),
    # It holds its own hash; where that is taken away, the step that is read says itself what it is.
    "bundle.json of a run": Attack("run", "bundle.json", READ_RUN[:3], None, (), 2, 25, ("-sha256",)),
    "a step's progress, sealed": Attack(
        "run", "checkpoints/4/progress/metadata", READ_RUN[:3], "checkpoints/4", (), 2, 30, IN_RUN
    ),
    "a step's progress, sealed, going on": Attack(
        "run", "checkpoints/4/progress/metadata", READ_RUN[3:], "checkpoints/4", (), 3, 30, GOING_ON
    ),
    "a step's progress": Attack("run", "checkpoints/4/progress/metadata", READ_RUN, None, (), 1, 10),
    "bundle.json of converted weights, sealed": Attack(
        "pretrained", "bundle.json", READ_BUNDLE[:3], "", MODEL, 2, 25, HOW_FAR
    ),
    "prepared index, sealed": Attack(
        "data", INDEX.format("train"), READ_DATA, INDEX.format("train")[:-11], IN_INDEX, 3, 50, INDEX_LEFT_OUT
    ),
    "prepared index": Attack("data", INDEX.format("train"), READ_DATA, None, (), 1, 10),
    "held-out index, sealed": Attack(
        "data",
        INDEX.format("validation"),
        READ_HELD_OUT,
        INDEX.format("validation")[:-11],
        IN_INDEX,
        1,
        10,
        INDEX_LEFT_OUT,
    ),
    "config.json of a T5": Attack("transformers", "text/config.json", READ_TRANSFORMERS, None, (), 3, 30, T5),
    "config.json of a SigLIP": Attack("transformers", "vision/config.json", READ_TRANSFORMERS, None, (), 2, 25, SIGLIP),
    "safetensors index": Attack(
        "transformers", "text/model.safetensors.index.json", READ_TRANSFORMERS, None, (), 2, 20, SAFETENSORS
    ),
    "T5X checkpoint": Attack("t5x", "checkpoint", READ_T5X, None, (), 2, 20, ("+*", "*version", "*optimizer.state*")),
    "manifest.json of a bundle": Attack("bundle", "manifest.json", READ_BUNDLE[:3], None, (), 1, 15),
    "manifest.json of a step": Attack("run", "checkpoints/4/manifest.json", READ_RUN, None, (), 1, 10),
    "manifest.json of prepared data": Attack(
        "data", INDEX.format("train").replace("index", "manifest"), READ_DATA, None, (), 1, 10
    ),
}


@pytest.fixture
def frame(tmp_path):
    """An image to ask about."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "frame.png")


@pytest.mark.parametrize("name", ATTACKS)
def test_wrong_json_is_one_line(name, workplace, tmp_path, frame, capfd, scale, tally):
    attack, found = ATTACKS[name], []
    for number in range(scale(attack.quick, attack.full)):
        rng = rng_of(name, number)
        it = tmp_path / attack.artefact
        shutil.copytree(workplace / attack.artefact, it)
        if attack.artefact == "run":
            shutil.rmtree(it / "checkpoints" / "2")  # nothing to fall back on
        path = it / attack.file
        if "index" in path.name and attack.artefact == "transformers":
            path.write_text(json.dumps({"metadata": {}, "weight_map": {"encoder.x": "model.safetensors"}}))
        t5x = attack.artefact == "t5x"
        restore = flax.serialization.msgpack_restore if t5x else json.loads
        dumps = {"dumps": flax.serialization.msgpack_serialize} if t5x else {}
        tree = restore(path.read_bytes())
        mutation = mutate(tree, rng, **dumps)
        put(mutation, path)
        if attack.sealed is not None and mutation.data is not None:
            manifest = read_manifest(it / attack.sealed)
            seal(it / attack.sealed, manifest.kind, manifest.facts, list(manifest.files))
        words = reader_of(attack.readers, rng, it, tmp_path, workplace)
        may_pass = not t5x and mutation.tree is not None and same(tree, mutation.tree)
        free = attack.unread + (attack.free if mutation.same_type else ())
        may_pass = may_pass or any(fnmatch.fnmatchcase(mutation.place, pattern) for pattern in free)
        before = snapshot(tmp_path)
        ran = run_main(words, capfd)
        fault = fault_of(ran, before, snapshot(tmp_path), may_pass)
        tally("wrong JSON", name, fault is None)
        if fault:
            found.append(f"{name} {number}, {mutation.what}: rt2 {words[0]}: {fault}")
        for left in (it, tmp_path / "out"):
            shutil.rmtree(left, ignore_errors=True)
    assert not found, "\n".join(found)
