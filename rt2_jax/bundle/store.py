"""One folder that a robot can be served from: weights, vocabulary, embodiments and model, every byte hashed.

Layout: ``bundle.json``, ``vocabulary.model``, ``params/`` (Orbax), and ``manifest.json`` over all of them, whose
identity is the bundle's. A run directory has the first two and holds its weights in ``checkpoints/<step>/params``, each
step with a manifest of its own; `load_bundle` reads both.
"""

import contextlib
import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.bundle.params import restore_params, tree_bytes
from rt2_jax.bundle.spec import (
    BUNDLE_FILE,
    FIRST_FORMAT,
    VOCABULARY_FILE,
    BundleSpec,
    check_vocabulary,
    grammar_of,
    read_spec,
    same_meaning,
    write_spec,
)
from rt2_jax.bundle.steps import CHECKPOINTS_DIR, COMMIT_FILE, PARAMS_DIR, listed_steps, read_progress, whole_steps
from rt2_jax.errors import UserError
from rt2_jax.files.disk import check_space, raise_if_disk_full
from rt2_jax.files.manifest import find_damage, find_missing, make_manifest, read_manifest, told
from rt2_jax.files.writing import whole_folder
from rt2_jax.models.backbone import Backbone, make_backbone
from rt2_jax.models.int8 import check_float, quantize
from rt2_jax.models.lora import merge_lora
from rt2_jax.tokens.vocabulary import Vocabulary

BUNDLE_KIND = "bundle"
PRETRAINED_KIND = "pretrained weights"
DTYPES = ("float32", "bfloat16")

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A folder with weights, found to be whole.

    Attributes:
        path: the folder: a bundle, converted weights, or a run.
        spec: the content of bundle.json; of a run, as it was when the step was saved.
        params: the Orbax folder.
        step: of a run, the newest whole one; None for a folder without steps.
        identity: SHA-256 over every byte of the folder, of a run over the step's.
    """

    path: pathlib.Path
    spec: BundleSpec
    params: pathlib.Path
    step: int | None
    identity: str


@dataclasses.dataclass(frozen=True)
class LoadedBundle:
    """A model ready for use.

    Attributes:
        backbone: pure functions of the parameters.
        params: nested dict of float32 arrays; int8 kernels with float32 scales where the model is quantised.
        vocabulary: what tokens mean.
        embodiments: what actions mean, by name; empty for a model that was shown no robot, which answers in text.
        spec: the content of bundle.json.
        path: the folder it came from.
        identity: see `Opened`.
    """

    backbone: Backbone
    params: Any
    vocabulary: Vocabulary
    embodiments: Mapping[str, Embodiment]
    spec: BundleSpec
    path: pathlib.Path
    identity: str


def save_bundle(
    directory: str | pathlib.Path,
    params: Any,
    spec: BundleSpec,
    vocabulary: Vocabulary,
    dtype: str = "float32",
    *,
    texts: Mapping[str, str] | None = None,
    sources: Sequence[str | pathlib.Path] = (),
    overwrite: bool = False,
) -> str:
    """Writes a bundle; an earlier one at `directory` is replaced once the new one is complete.

    Args:
        directory: the bundle's folder; see `files.writing.check_target` for what it may replace.
        params: nested dict of arrays.
        spec: of `bundle_spec`.
        vocabulary: the one named in `spec`.
        dtype: how float weights are stored: float32, or bfloat16 at half the size (they load as float32 either way).
            Of a quantised model everything stays as it is, whatever this says.
        texts: other files that travel with it, such as a model card: name -> content.
        sources: folders that the weights come from, which must not be replaced.
        overwrite: replace a folder that holds something else.

    Returns:
        The bundle's identity.

    Raises:
        UserError: an unknown dtype, a vocabulary other than the spec's, a folder that must not be replaced, or no space
            left.
    """
    if not spec.model.quantized and dtype not in DTYPES:
        raise UserError(f"bundle dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    check_vocabulary(spec, vocabulary.sha256, "the bundle's spec")
    directory = pathlib.Path(directory)
    stored = params if spec.model.quantized else jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    identities: list[str] = []
    try:
        with whole_folder(
            directory, BUNDLE_KIND, sources=sources, overwrite=overwrite, tell=identities.append
        ) as partial:
            check_space(directory.resolve(), tree_bytes(stored))
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(partial / PARAMS_DIR, stored)
            # Orbax writes the folder's path into it, which means nothing where the bundle is shipped to.
            (partial / PARAMS_DIR / COMMIT_FILE).write_text("complete\n", encoding="utf-8")
            write_spec(partial, spec, vocabulary)
            for name, text in (texts or {}).items():
                (partial / name).write_text(text, encoding="utf-8")
    except UserError:
        raise
    except Exception as error:
        raise_if_disk_full(error, directory)
        raise
    return identities[0]


def open_folder(directory: str | pathlib.Path, verify: bool = True) -> Opened:
    """A bundle, converted weights, or the newest whole step of a run, with every byte held to its hash.

    Args:
        directory: the folder.
        verify: False takes the files' bytes on trust; names and sizes are compared all the same.

    Raises:
        UserError: a missing or damaged file, or a bundle.json that is not what the run's step was saved with.
    """
    directory = pathlib.Path(directory)
    spec = read_spec(directory)
    manifest = read_manifest(directory)
    if manifest is not None:
        if manifest.kind not in (BUNDLE_KIND, PRETRAINED_KIND):
            raise UserError(f"{directory} is sealed as {told(manifest)}; name a bundle or a run directory")
        damage = find_damage(directory, manifest) if verify else find_missing(directory, manifest)
        if damage:
            raise UserError(f"{directory}: {damage}; copy or export it again")
        return Opened(directory, spec, directory / PARAMS_DIR, None, manifest.identity)
    if not (directory / CHECKPOINTS_DIR).is_dir():
        return _open_unsealed(directory, spec)
    steps: list[int] | None = None
    # A run that saves meanwhile removes the steps that are looked at; then there are newer ones.
    while steps != (steps := listed_steps(directory / CHECKPOINTS_DIR)):
        for step in whole_steps(directory / CHECKPOINTS_DIR, verify):
            with still_there(directory, step):
                return _open_step(directory, spec, step)
    raise UserError(f"{directory} holds no complete weights; train again, or name another directory")


@contextlib.contextmanager
def still_there(directory: pathlib.Path, step: int | None) -> Iterator[None]:
    """Where reading a run's step fails since the run has removed it meanwhile, says so.

    Raises:
        UserError: the step has gone.
    """
    try:
        yield
    except Exception as error:
        if step is None or (directory / CHECKPOINTS_DIR / str(step)).is_dir():
            raise
        raise UserError(
            f"{directory}: the run that is saving there removed step {step} while it was read; run the same command "
            "again, or keep more steps (config.keep)"
        ) from error


def _open_unsealed(directory: pathlib.Path, spec: BundleSpec) -> Opened:
    """A bundle as the first releases wrote it."""
    if spec.format != FIRST_FORMAT:
        raise UserError(f"{directory}: manifest.json is missing, so it is not whole; copy or export it again")
    if not (directory / PARAMS_DIR / COMMIT_FILE).is_file():
        raise UserError(f"{directory} holds no complete weights; train or export again, or name another directory")
    _log.warning(
        "%s was written by an earlier release, without hashes, so its bytes are taken on trust; export it again",
        directory,
    )
    return Opened(directory, spec, directory / PARAMS_DIR, None, make_manifest(directory, BUNDLE_KIND).identity)


def _open_step(directory: pathlib.Path, spec: BundleSpec, step: int) -> Opened:
    folder = directory / CHECKPOINTS_DIR / str(step)
    saved = BundleSpec.from_json(read_progress(folder)["bundle"], f"{folder}: its bundle")
    differing = same_meaning(saved, spec)
    if differing:
        raise UserError(
            f"{directory / BUNDLE_FILE}: {differing} is not what step {step} was saved with; put the file back, or go "
            "on with the run, which writes it anew"
        )
    manifest = read_manifest(folder) or make_manifest(folder, BUNDLE_KIND)
    return Opened(directory, dataclasses.replace(saved, step=step), folder / PARAMS_DIR, step, manifest.identity)


def load_bundle(directory: str | pathlib.Path, shardings: Any = None, verify: bool = True) -> LoadedBundle:
    """Loads a bundle, converted weights with a vocabulary, or the newest whole step of a run directory.

    Args:
        directory: the folder.
        shardings: tree of shardings like the parameters', for a model over several devices; None puts it on the
            default device.
        verify: see `open_folder`.

    Raises:
        UserError: a missing or damaged file, or a vocabulary, integers, grammar or parameter tree other than
            bundle.json's.
    """
    opened = open_folder(directory, verify)
    vocabulary = read_meaning(opened)
    backbone, params = load_model(opened, shardings)
    spec = opened.spec
    return LoadedBundle(backbone, params, vocabulary, spec.embodiments, spec, opened.path, opened.identity)


def read_meaning(opened: Opened) -> Vocabulary:
    """The vocabulary of a folder, found to be the one that its tokens and actions were trained with.

    Raises:
        UserError: no vocabulary, or a vocabulary, integers or grammar other than bundle.json's.
    """
    directory, spec = opened.path, opened.spec
    if spec.vocabulary is None:
        raise UserError(f"{directory} has no vocabulary to read and write text with; convert it again with one")
    path = directory / VOCABULARY_FILE
    vocabulary = Vocabulary.load(path)
    check_vocabulary(spec, vocabulary.sha256, str(path))
    _check_integers(spec.vocabulary.integer_ids, vocabulary, directory)
    if spec.grammar is None:
        return vocabulary
    grammar = grammar_of(vocabulary, spec.embodiments).sha256
    if grammar != spec.grammar.sha256:
        raise UserError(
            f"{directory}: grammar {grammar[:12]} is not the bundle's {spec.grammar.sha256[:12]}; "
            "use the release that wrote it, or export the bundle anew"
        )
    return vocabulary


def load_model(opened: Opened, shardings: Any = None) -> tuple[Backbone, Any]:
    """The model of a folder, and its parameters in float32 (int8 stays int8); `shardings` as in `load_bundle`.

    Raises:
        UserError: other parameters than the model has.
    """
    backbone = make_backbone(opened.spec.model)
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shardings = jax.tree.map(lambda _: place, shapes) if shardings is None else shardings
    abstract = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes, shardings
    )
    with still_there(opened.path, opened.step):
        return backbone, restore_params(opened.params, abstract)


def merge_bundle(bundle: LoadedBundle) -> LoadedBundle:
    """The bundle with its LoRA adapters added into the weights, and a model that has none.

    Raises:
        UserError: it has no adapters.
    """
    params, model = merge_lora(bundle.params, bundle.backbone.config)
    spec = dataclasses.replace(bundle.spec, model=model)
    return dataclasses.replace(bundle, backbone=make_backbone(model), params=params, spec=spec)


def cast_bundle(bundle: LoadedBundle, dtype: str) -> LoadedBundle:
    """The bundle with float weights of another dtype, float32 or bfloat16.

    Raises:
        UserError: an unknown dtype, or int8 weights.
    """
    if dtype not in DTYPES:
        raise UserError(f"bundle dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    check_float(bundle.spec.model, bundle.path, "which have no other dtype")
    return dataclasses.replace(bundle, params=jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), bundle.params))


def quantize_bundle(bundle: LoadedBundle) -> LoadedBundle:
    """The bundle with int8 kernels and token table; see models/int8.py.

    Raises:
        UserError: its weights are int8 already.
    """
    params, model = quantize(bundle.params, bundle.backbone.config, bundle.backbone.logical_axes())
    spec = dataclasses.replace(bundle.spec, model=model)
    return dataclasses.replace(bundle, backbone=make_backbone(model), params=params, spec=spec)


def _check_integers(saved: Sequence[int] | None, vocabulary: Vocabulary, directory: pathlib.Path) -> None:
    found = vocabulary.integer_ids.tolist()
    # Bundles of earlier releases do not have them.
    for integer, (wanted, token) in enumerate(itertools.zip_longest(found if saved is None else saved, found)):
        if wanted != token:
            raise UserError(
                f"{directory}: the integer {integer} is token {wanted} in {BUNDLE_FILE}, {token} in its vocabulary; "
                "use the release that wrote it, or export the bundle anew"
            )
