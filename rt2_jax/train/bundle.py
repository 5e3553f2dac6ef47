"""One folder that a robot can be served from: weights, vocabulary, bins, card and model config, with their hashes.

Layout: ``bundle.json``, ``vocabulary.model``, ``params/`` (Orbax). A run directory has the same two files and holds its
weights in ``checkpoints/<step>/params``; `load_bundle` reads both.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from rt2_jax.actions.bins import ActionBins
from rt2_jax.actions.card import DatasetCard, card_from_json, card_to_json
from rt2_jax.errors import UserError
from rt2_jax.files.disk import check_space, raise_if_disk_full
from rt2_jax.models.backbone import Backbone, make_backbone
from rt2_jax.models.config import ModelConfig
from rt2_jax.models.lora import merge_lora
from rt2_jax.tokens.grammar import build_grammar
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.train.steps import COMMIT_FILE, whole_steps

BUNDLE_FORMAT = 1
BUNDLE_FILE = "bundle.json"
VOCABULARY_FILE = "vocabulary.model"
PARAMS_DIR = "params"
CHECKPOINTS_DIR = "checkpoints"
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class LoadedBundle:
    """A model ready for use.

    Attributes:
        backbone: pure functions of the parameters.
        params: nested dict of float32 arrays.
        vocabulary, bins, card: what tokens and actions mean.
        meta: bundle.json: model, vocabulary, card, bins, grammar, prompt_len, target_len, image_size, step, ...
        path: the folder it came from.
    """

    backbone: Backbone
    params: Any
    vocabulary: Vocabulary
    bins: ActionBins
    card: DatasetCard
    meta: dict[str, Any]
    path: pathlib.Path


def bundle_meta(
    model: ModelConfig,
    vocabulary: Vocabulary,
    card: DatasetCard,
    bins: ActionBins,
    *,
    prompt_len: int,
    target_len: int,
    step: int = 0,
    tasks: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The content of bundle.json: plain JSON values."""
    return {
        "format": BUNDLE_FORMAT,
        "model": model.to_json(),
        "vocabulary": {
            "file": VOCABULARY_FILE,
            "sha256": vocabulary.sha256,
            "integer_ids": vocabulary.integer_ids.tolist(),
        },
        "card": card_to_json(card),
        "bins": bins.to_json(),
        "grammar": {"sha256": build_grammar(vocabulary, bins.allowed).sha256},
        "prompt_len": prompt_len,
        "target_len": target_len,
        "image_size": model.image_size,
        "step": step,
        "tasks": dict(tasks or {}),
    }


def pretrained_meta(model: ModelConfig, vocabulary: Vocabulary | None, sources: list[str]) -> dict[str, Any]:
    """bundle.json of weights that have not seen a robot: no card, no bins; training starts from them."""
    return {
        "format": BUNDLE_FORMAT,
        "model": model.to_json(),
        "vocabulary": vocabulary and {"file": VOCABULARY_FILE, "sha256": vocabulary.sha256},
        "card": None,
        "bins": None,
        "grammar": None,
        "step": 0,
        "sources": sources,
    }


# Fields of a model's config that change neither which parameters it has nor what they compute.
_HOW_COMPUTED = ("name", "remat", "scan_unroll", "compute_dtype", "dropout_rate")
_HOW_DRAWN = ("position_std", "branch_init", "encoder_branch_init")
_NOT_HASHED = (*_HOW_COMPUTED, *_HOW_DRAWN)


def model_hash(model: Mapping[str, Any]) -> str:
    """sha256 over the fields of a model's JSON that decide which parameters it has and what they compute.

    A field that the JSON lacks, since it was written before the field existed, counts as its default.
    """
    known = ModelConfig.from_json(model).to_json()
    return hashlib.sha256(json.dumps(_hashed(known), sort_keys=True).encode()).hexdigest()


def save_bundle(
    directory: str | pathlib.Path, params: Any, meta: Mapping[str, Any], vocabulary: Vocabulary, dtype: str = "float32"
) -> None:
    """Writes a bundle; an existing one at `directory` is replaced only once the new one is complete.

    Args:
        directory: the bundle's folder.
        params: nested dict of arrays.
        meta: of `bundle_meta`.
        vocabulary: the one named in `meta`.
        dtype: how weights are stored: float32, or bfloat16 at half the size (they load as float32 either way).

    Raises:
        UserError: an unknown dtype, a vocabulary other than the meta's, or no space left.
    """
    if dtype not in DTYPES:
        raise UserError(f"bundle dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    check_vocabulary(meta, vocabulary.sha256, "the bundle's meta")
    directory = pathlib.Path(directory).resolve()
    temporary = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    stored = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    check_space(directory, tree_bytes(stored))
    try:
        temporary.mkdir(parents=True)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(temporary / PARAMS_DIR, stored)
        # Orbax writes the folder's path into it, which means nothing where the bundle is shipped to.
        (temporary / PARAMS_DIR / COMMIT_FILE).write_text("complete\n", encoding="utf-8")
        write_meta(temporary, meta, vocabulary)
        shutil.rmtree(directory, ignore_errors=True)
        temporary.rename(directory)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise_if_disk_full(error, directory)
        raise


def write_meta(directory: pathlib.Path, meta: Mapping[str, Any], vocabulary: Vocabulary | None) -> None:
    """Writes bundle.json and the vocabulary, if there is one, beside it."""
    if vocabulary is not None:
        # Not copied: the file may be the very one that is written.
        (directory / VOCABULARY_FILE).write_bytes(vocabulary.path.read_bytes())
    (directory / BUNDLE_FILE).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def read_meta(directory: str | pathlib.Path) -> dict[str, Any]:
    """bundle.json of a bundle or run directory.

    Raises:
        UserError: no such folder or file, not JSON, or another format version.
    """
    path = pathlib.Path(directory) / BUNDLE_FILE
    if not path.is_file():
        raise UserError(f"{directory} has no {BUNDLE_FILE}; name a bundle or a run directory")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); export the bundle anew") from error
    if not isinstance(meta, dict) or meta.get("format") != BUNDLE_FORMAT:
        found = meta.get("format") if isinstance(meta, dict) else type(meta).__name__
        raise UserError(f"{path} has format {found!r}, this release reads {BUNDLE_FORMAT}; export the bundle anew")
    return meta


def load_bundle(directory: str | pathlib.Path, shardings: Any = None) -> LoadedBundle:
    """Loads a bundle, or the latest complete step of a run directory.

    Args:
        directory: either folder.
        shardings: tree of shardings like the parameters', for a model over several devices; None puts it on the
            default device.

    Raises:
        UserError: a missing or damaged file, or a vocabulary, integers, grammar or parameter tree other than
            bundle.json's.
    """
    directory = pathlib.Path(directory)
    meta = read_meta(directory)
    if meta["card"] is None:
        raise UserError(
            f"{directory} holds pretrained weights that know no robot (rt2 sample --prompt asks them in text); "
            f"train from them: config.init_from = {directory}"
        )
    vocabulary = Vocabulary.load(directory / meta["vocabulary"]["file"])
    check_vocabulary(meta, vocabulary.sha256, f"{directory / meta['vocabulary']['file']}")
    _check_integers(meta, vocabulary, directory)
    card, bins = card_from_json(meta["card"]), ActionBins.from_json(meta["bins"])
    grammar = build_grammar(vocabulary, bins.allowed).sha256
    if grammar != meta["grammar"]["sha256"]:
        raise UserError(
            f"{directory}: grammar {grammar[:12]} is not the bundle's {meta['grammar']['sha256'][:12]}; "
            "use the release that wrote it, or export the bundle anew"
        )
    backbone, params, step = load_model(directory, shardings)
    meta = meta if step is None else {**meta, "step": step}
    return LoadedBundle(backbone, params, vocabulary, bins, card, meta, directory)


def load_pretrained(directory: str | pathlib.Path) -> tuple[Backbone, Any, Vocabulary]:
    """(model, float32 parameters, vocabulary) of converted weights, which know no robot.

    Raises:
        UserError: a missing or damaged file, or weights without a vocabulary.
    """
    directory = pathlib.Path(directory)
    meta = read_meta(directory)
    if meta["vocabulary"] is None:
        raise UserError(f"{directory} has no vocabulary to read and write text with; convert it again with one")
    vocabulary = Vocabulary.load(directory / meta["vocabulary"]["file"])
    check_vocabulary(meta, vocabulary.sha256, f"{directory / meta['vocabulary']['file']}")
    backbone, params, _ = load_model(directory)
    return backbone, params, vocabulary


def load_model(directory: pathlib.Path, shardings: Any = None) -> tuple[Backbone, Any, int | None]:
    """The model, its parameters in float32, and the run's step that they are of (None: a folder without steps).

    Raises:
        UserError: a missing or damaged file.
    """
    backbone = make_backbone(ModelConfig.from_json(read_meta(directory)["model"]))
    path, step = params_path(directory)
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shardings = jax.tree.map(lambda _: place, shapes) if shardings is None else shardings
    abstract = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes, shardings
    )
    return backbone, restore_params(path, abstract), step


def merge_bundle(bundle: LoadedBundle) -> LoadedBundle:
    """The bundle with its LoRA adapters added into the weights, and a model that has none.

    Raises:
        UserError: it has no adapters.
    """
    params, model = merge_lora(bundle.params, bundle.backbone.config)
    meta = {**bundle.meta, "model": model.to_json()}
    return dataclasses.replace(bundle, backbone=make_backbone(model), params=params, meta=meta)


def params_path(directory: pathlib.Path) -> tuple[pathlib.Path, int | None]:
    """The newest complete weights under a bundle (step None) or run directory.

    Raises:
        UserError: there are none.
    """
    direct = directory / PARAMS_DIR
    if (direct / COMMIT_FILE).is_file():
        return direct, None
    for step in whole_steps(directory / CHECKPOINTS_DIR):
        return directory / CHECKPOINTS_DIR / str(step) / PARAMS_DIR, step
    raise UserError(f"{directory} holds no complete weights; train or export again, or name another directory")


def restore_params(path: pathlib.Path, abstract: Any) -> Any:
    """The parameters of an Orbax folder.

    Args:
        path: the folder.
        abstract: tree of ShapeDtypeStructs with shardings; what is stored in another dtype is converted.

    Raises:
        UserError: other names or shapes than `abstract`'s, or unreadable data.
    """
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.metadata(path.resolve()).item_metadata.tree
            check_shapes(stored, abstract, str(path), "model")
            return checkpointer.restore(path.resolve(), abstract)
    except UserError:
        raise
    except Exception as error:  # Orbax raises the bare class for data that does not decode.
        raise UserError(f"weights in {path} cannot be read ({first_line(error)}); copy or export them again") from error


def check_shapes(stored: Any, wanted: Any, where: str, what: str) -> None:
    """Compares two trees of shapes; `where` the first lies, and `what` of the config decides over the second.

    Raises:
        UserError: names the first parameter that is missing, left over or of another shape.
    """
    stored, wanted = _shapes(stored), _shapes(wanted)
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise UserError(
                f"{where}: {name} has shape {stored.get(name, 'none')}, this {what} needs {wanted.get(name, 'none')}; "
                f"use the {what} that it was trained with"
            )


def check_vocabulary(meta: Mapping[str, Any], sha256: str, what: str) -> None:
    """Raises a UserError that names both hashes when `sha256` is not the vocabulary of `meta`."""
    if meta["vocabulary"] is None:
        raise UserError(f"the weights have no vocabulary, so {what} cannot be checked; convert them again with one")
    if meta["vocabulary"]["sha256"] != sha256:
        raise UserError(
            f"vocabulary {sha256[:12]} of {what} is not {meta['vocabulary']['sha256'][:12]}, which the weights were "
            "trained with; name that vocabulary, for its token ids mean other text"
        )


def _check_integers(meta: Mapping[str, Any], vocabulary: Vocabulary, directory: pathlib.Path) -> None:
    found = vocabulary.integer_ids.tolist()
    # Bundles of earlier releases do not have them.
    saved = meta["vocabulary"].get("integer_ids", found)
    for integer, (wanted, token) in enumerate(itertools.zip_longest(saved, found)):
        if wanted != token:
            raise UserError(
                f"{directory}: the integer {integer} is token {wanted} in {BUNDLE_FILE}, {token} in its vocabulary; "
                "use the release that wrote it, or export the bundle anew"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
    # Orbax stores a marker without a shape for an empty node.
    return {name: tuple(leaf.shape) for name, leaf in named if hasattr(leaf, "shape")}


def _hashed(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {key: _hashed(value) for key, value in tree.items() if key not in _NOT_HASHED and not key.endswith("_init")}


def tree_bytes(arrays: Any) -> int:
    """Bytes of a tree's arrays, whole and once: several hosts write their shards to one folder."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))


def first_line(error: BaseException) -> str:
    """The start of an error's text, for a message of one line."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
