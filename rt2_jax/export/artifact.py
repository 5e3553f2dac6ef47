"""``rt2 export --format jax``: programs of `jax.export` that act from uint8 frames, and all that they need.

The folder: ``artifact.json`` says what each program takes and what numbers mean; ``programs/`` has one for every mode,
embodiment and batch size, each for every platform; ``weights.safetensors`` has their parameters, which are arguments
so that all programs share them and stay small; ``vocabulary.model``; ``load.py`` acts from the folder without this
package; the model card; ``manifest.json`` has every file's hash.
"""

import importlib.metadata
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.export
import numpy as np

from rt2_jax.actions.bins import ActionBins
from rt2_jax.actions.embodiment import Embodiment, card_to_json
from rt2_jax.actions.space import BINARY
from rt2_jax.bundle.params import tree_bytes
from rt2_jax.bundle.store import LoadedBundle
from rt2_jax.errors import UserError
from rt2_jax.export import loader
from rt2_jax.export.program import MODES, ActionProgram, flat_params, make_programs, prompt_len
from rt2_jax.files.disk import check_space, raise_if_disk_full
from rt2_jax.files.writing import whole_folder
from rt2_jax.policy.policy import PROMPTS
from rt2_jax.tokens.vocabulary import Vocabulary

ARTIFACT_KIND = "jax.export artifact"
PLATFORMS = ("cpu", "tpu", "cuda")
BATCH_SIZES = (1, 2, 4, 8)
WEIGHTS, VOCABULARY, LOADER = "weights.safetensors", "vocabulary.model", "load.py"


def save_artifact(
    directory: str | pathlib.Path,
    bundle: LoadedBundle,
    *,
    modes: tuple[str, ...] = MODES,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    platforms: tuple[str, ...] = PLATFORMS,
    texts: Mapping[str, str] | None = None,
    sources: Sequence[str | pathlib.Path] = (),
    overwrite: bool = False,
) -> str:
    """Writes the artifact of a bundle and returns its identity.

    Args:
        directory: the folder; see `files.writing.check_target` for what it may replace.
        bundle: the model, on one device.
        modes: "action", "plan".
        batch_sizes: rows of a call that a program is made for; what a robot sends is filled up to the next.
        platforms: that every program runs on.
        texts: other files, such as the model card: name -> content.
        sources: folders that are read for it, which it must not replace.
        overwrite: replace a folder that holds something else.

    Raises:
        UserError: a model without actions, an unknown mode or platform, a batch size that is none, a folder that must
            not be replaced, no space left.
    """
    directory = pathlib.Path(directory)
    batch_sizes = sorted(set(batch_sizes))
    if not batch_sizes or batch_sizes[0] < 1:
        raise UserError(f"batch sizes are {batch_sizes}; give whole numbers of 1 and more")
    programs = make_programs(bundle, modes)
    params = flat_params(bundle.params)
    identities: list[str] = []
    try:
        with whole_folder(
            directory, ARTIFACT_KIND, sources=sources, overwrite=overwrite, tell=identities.append
        ) as partial:
            check_space(directory.resolve(), tree_bytes(params))
            listed = []
            (partial / "programs").mkdir()
            for number, program in enumerate(programs):
                for batch in batch_sizes:
                    file = f"programs/{number}_{program.mode}_{batch}.jax_export"
                    data = export_program(program, bundle, params, batch, platforms).serialize()
                    (partial / file).write_bytes(data)
                    listed.append(
                        {"mode": program.mode, "embodiment": program.embodiment.name, "batch": batch, "file": file}
                    )
            description = describe(bundle, modes) | {
                "platforms": list(platforms),
                "batch_sizes": list(batch_sizes),
                "programs": listed,
                "jax": importlib.metadata.version("jax"),
            }
            _write_weights(partial / WEIGHTS, params)
            (partial / VOCABULARY).write_bytes(bundle.vocabulary.path.read_bytes())
            (partial / LOADER).write_text(pathlib.Path(loader.__file__).read_text(encoding="utf-8"), encoding="utf-8")
            (partial / loader.DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
            for name, text in (texts or {}).items():
                (partial / name).write_text(text, encoding="utf-8")
    except UserError:
        raise
    except Exception as error:
        raise_if_disk_full(error, directory)
        raise
    return identities[0]


def export_program(
    program: ActionProgram, bundle: LoadedBundle, params: Mapping[str, jax.Array], batch: int, platforms: Sequence[str]
) -> jax.export.Exported:
    """One program for calls of `batch` rows."""
    model = bundle.spec.model
    frames = (batch, model.num_images, model.image_size, model.image_size, 3)
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in params.items()}
    return jax.export.export(jax.jit(program.act), platforms=platforms)(
        shapes,
        jax.ShapeDtypeStruct(frames, np.uint8),
        jax.ShapeDtypeStruct((batch, prompt_len(bundle.spec)), np.int32),
    )


def describe(bundle: LoadedBundle, modes: Sequence[str]) -> dict[str, Any]:
    """What a reader without this package must know of a bundle to ask it and to understand its answers."""
    vocabulary, model = bundle.vocabulary, bundle.spec.model
    return {
        "format": loader.FORMAT,
        "model": model.name,
        "bundle_identity": bundle.identity,
        "image_size": model.image_size,
        "num_images": model.num_images,
        "prompt_len": prompt_len(bundle.spec),
        "pad_id": vocabulary.pad_id,
        "eos_id": vocabulary.eos_id,
        "weights": WEIGHTS,
        "vocabulary": VOCABULARY,
        "word_start": vocabulary.word_start,
        "integer_words": list(vocabulary.integer_words),
        "embodiments": {name: _describe(robot, modes, vocabulary) for name, robot in bundle.embodiments.items()},
    }


def _describe(robot: Embodiment, modes: Sequence[str], vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "prompts": {mode: prompt_parts(mode, robot, vocabulary) for mode in modes},
        "cameras": list(robot.cameras),
        "history": robot.history,
        "chunk": robot.chunk,
        "state": robot.proprioception and _state(robot.proprioception),
        "card": card_to_json(robot),
    }


def prompt_parts(mode: str, robot: Embodiment, vocabulary: Vocabulary) -> tuple[str, str, str]:
    """What stands before the instruction in a prompt, between it and the state, and after both.

    The state stands there as " State: " and its integers.
    """
    told, state = "\x01", "\x02"  # in no template
    before, rest = PROMPTS[mode](told, robot.robot, state).split(told)
    between, after = rest.split(f" State: {state}")
    if PROMPTS[mode](told, robot.robot, "") != before + told + between + after:
        raise AssertionError(f"the prompt of mode {mode} has other words around a state than without")
    return before, between, after


def _state(bins: ActionBins) -> dict[str, Any]:
    return {
        "low": list(bins.space.low),
        "high": list(bins.space.high),
        "names": list(bins.space.names),
        "units": list(bins.space.units),
        "binary": [kind == BINARY for kind in bins.space.kinds],
        "num_bins": bins.num_bins,
        "first": bins.first,
        "decoding": bins.decoding,
    }


def _write_weights(path: pathlib.Path, params: Mapping[str, jax.Array]) -> None:
    import safetensors.numpy

    arrays = {name: np.ascontiguousarray(np.asarray(array)) for name, array in params.items()}
    safetensors.numpy.save_file(arrays, str(path))
