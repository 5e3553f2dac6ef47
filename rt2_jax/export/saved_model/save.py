"""``rt2 export --format savedmodel``: encoded images and instructions in, physical actions out, served by TensorFlow.

The folder is a SavedModel as TensorFlow Serving reads it, with the model card and ``manifest.json`` beside. It has a
signature for every mode and embodiment; `serving_default` is the first. Serving needs tensorflow and tensorflow-text
(its tokenizer is in the graph), and no jax.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from orbax.export import ExportManager, JaxModule, ServingConfig

from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.bundle.params import tree_bytes
from rt2_jax.bundle.store import LoadedBundle
from rt2_jax.errors import UserError
from rt2_jax.export.program import MODES, ActionProgram, flat_params, make_programs, prompt_len
from rt2_jax.export.saved_model.frames import decoded, resized
from rt2_jax.export.saved_model.prompts import PromptTokens
from rt2_jax.files.disk import check_space, raise_if_disk_full
from rt2_jax.files.writing import whole_folder
from rt2_jax.models.config import ModelConfig

SAVED_MODEL_KIND = "SavedModel"
DEFAULT = "serving_default"


def save_saved_model(
    directory: str | pathlib.Path,
    bundle: LoadedBundle,
    *,
    modes: tuple[str, ...] = MODES,
    texts: Mapping[str, str] | None = None,
    sources: Sequence[str | pathlib.Path] = (),
    overwrite: bool = False,
) -> str:
    """Writes the SavedModel of a bundle and returns its identity.

    A signature takes

    * images string[B, N], a JPEG or PNG each, the oldest moment first and the cameras in the card's order within each;
    * instruction string[B];
    * state float32[B, S], where the embodiment has proprioception;

    and returns what `export.program.make_programs` says, and text string[B]. A signature whose name ends in ``_frames``
    takes images uint8[B, N, size, size, 3] instead. Wrong input is an error of TensorFlow's that says what is wrong.

    Args:
        directory: the folder; see `files.writing.check_target` for what it may replace.
        bundle: the model.
        modes: "action", "plan".
        texts: other files, such as the model card: name -> content.
        sources: folders that are read for it, which it must not replace.
        overwrite: replace a folder that holds something else.

    Raises:
        UserError: a model without actions, an unknown mode, a folder that must not be replaced, no space left.
    """
    directory = pathlib.Path(directory)
    programs = make_programs(bundle, modes)
    params = flat_params(bundle.params)
    identities: list[str] = []
    try:
        with whole_folder(
            directory, SAVED_MODEL_KIND, sources=sources, overwrite=overwrite, tell=identities.append
        ) as partial:
            check_space(directory.resolve(), tree_bytes(params))
            _export(bundle, programs, params, partial)
            for name, text in (texts or {}).items():
                (partial / name).write_text(text, encoding="utf-8")
    except UserError:
        raise
    except Exception as error:
        raise_if_disk_full(error, directory)
        raise
    return identities[0]


def _export(bundle: LoadedBundle, programs: list[ActionProgram], params: Any, folder: pathlib.Path) -> None:
    model, length = bundle.spec.model, prompt_len(bundle.spec)
    frames = f"(b, {model.num_images}, {model.image_size}, {model.image_size}, 3)"
    keys = signature_names(programs)
    module = JaxModule(
        params,
        {key: _apply(program) for key, program in zip(keys, programs, strict=True)},
        trainable=False,
        input_polymorphic_shape={key: {"images": frames, "prompt": f"(b, {length})"} for key in keys},
    )
    tokens = PromptTokens(bundle.vocabulary, length)
    serving = []
    for number, (key, program) in enumerate(zip(keys, programs, strict=True)):
        for name, encoded in ((key, True), (f"{key}_frames", False)):
            serving.append(
                ServingConfig(
                    [name, DEFAULT] if not number and encoded else name,
                    input_signature=_inputs(model, program.embodiment, encoded),
                    tf_preprocessor=_before(model, program, tokens, encoded),
                    tf_postprocessor=lambda outputs: _after(outputs, tokens),
                    extra_trackable_resources=tokens,
                    method_key=key,
                )
            )
    ExportManager(module, serving).save(str(folder))


def signature_names(programs: Sequence[ActionProgram]) -> list[str]:
    """ "action" and "plan"; with the embodiment's name after them where there are several."""
    several = len({program.embodiment.name for program in programs}) > 1
    return [f"{program.mode}_{program.embodiment.name}" if several else program.mode for program in programs]


def _apply(program: ActionProgram) -> Callable[[Any, Mapping[str, Any]], Any]:
    return lambda params, inputs: program.act(params, inputs["images"], inputs["prompt"])


def _inputs(model: ModelConfig, robot: Embodiment, encoded: bool) -> list[Any]:
    size = model.image_size
    images = (
        tf.TensorSpec((None, model.num_images), tf.string, "images")
        if encoded
        else tf.TensorSpec((None, model.num_images, size, size, 3), tf.uint8, "images")
    )
    state = robot.proprioception
    return [
        images,
        tf.TensorSpec((None,), tf.string, "instruction"),
        *([tf.TensorSpec((None, state.width), tf.float32, "state")] if state else []),
    ]


def _before(model: ModelConfig, program: ActionProgram, tokens: PromptTokens, encoded: bool) -> Callable[..., Any]:
    size = model.image_size

    def frame(image: Any) -> Any:
        return resized(decoded(image), size)

    def before(images: Any, instruction: Any, *state: Any) -> dict[str, Any]:
        if encoded:
            flat = tf.map_fn(
                frame, tf.reshape(images, (-1,)), fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8)
            )
            images = tf.reshape(flat, (-1, model.num_images, size, size, 3))
        return {"images": images, "prompt": tokens.tokens(program.mode, program.embodiment, instruction, *state)}

    return tf.autograph.experimental.do_not_convert(before)


def _after(outputs: Mapping[str, Any], tokens: PromptTokens) -> dict[str, Any]:
    logprob = tf.debugging.check_numerics(outputs["logprob"], "the model's logits hold NaN; its output is refused")
    return {**outputs, "logprob": logprob, "text": tokens.text(outputs["tokens"])}
