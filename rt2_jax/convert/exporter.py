"""A trained model out again, as files that other frameworks read."""

import pathlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from rt2_jax.bundle.store import Opened, open_folder, still_there
from rt2_jax.convert import big_vision_layout, t5x_layout, transformers_layout
from rt2_jax.convert.infer import PROJECTOR_TYPE
from rt2_jax.convert.layout import Layout, Leaf
from rt2_jax.convert.params_folder import ParamsReader
from rt2_jax.convert.sinks import Tensors, write_json, write_npz, write_safetensors, write_t5x
from rt2_jax.convert.transformers_config import gemma_config, paligemma_config, siglip_config, t5_config
from rt2_jax.errors import UserError
from rt2_jax.files.disk import check_space, raise_if_disk_full
from rt2_jax.files.writing import check_target, whole_folder
from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig
from rt2_jax.models.int8 import check_float

FORMATS = ("transformers", "big_vision", "t5x")


def export_weights(
    checkpoint: str | pathlib.Path,
    out: str | pathlib.Path,
    format: str,
    *,
    texts: Mapping[str, str] | None = None,
    overwrite: bool = False,
    verify: bool = True,
) -> list[str]:
    """Writes the weights of a bundle, run or converted folder in another framework's format.

    "transformers": a PaliGemma folder for a prefix LM with vision; for an encoder-decoder ``text/`` (T5 or umT5),
    ``vision/`` (SigLIP) and ``projection/``, since no class of its holds them together. "big_vision": a PaliGemma
    `.npz`, or ``vision.npz``. "t5x": the language model's folder.

    Args:
        checkpoint: the folder.
        out: the folder to write; see `files.writing.check_target` for what it may replace.
        format: one of `FORMATS`.
        texts: other files that travel with it, such as a model card: name -> content.
        overwrite: replace a folder that holds something else.
        verify: hold the checkpoint's every byte to its hash.

    Returns:
        What was written and what the format has no place for, a line each.

    Raises:
        UserError: a model that the format cannot hold, an unreadable checkpoint, no space left.
    """
    if format not in FORMATS:
        raise UserError(f"format {format!r} is unknown; choose one of {', '.join(FORMATS)}")
    checkpoint = pathlib.Path(checkpoint)
    kind = f"{format} weights"
    check_target(out, kind, sources=[checkpoint], overwrite=overwrite)
    opened = open_folder(checkpoint, verify)
    config = opened.spec.model
    if config.lora is not None:
        raise UserError(
            f"{checkpoint} has LoRA adapters, which {format} does not know; merge them into a bundle first "
            "(rt2 export --merge-lora), then export that"
        )
    check_float(config, checkpoint, f"and {format} files hold float ones")
    out = pathlib.Path(out)
    write = {"transformers": _to_transformers, "big_vision": _to_big_vision, "t5x": _to_t5x}[format]
    try:
        with (
            whole_folder(out, kind, sources=[checkpoint], overwrite=overwrite) as partial,
            still_there(checkpoint, opened.step),
        ):
            reader = ParamsReader(opened.params)
            check_space(out.resolve(), reader.num_bytes)
            said = write(config, reader, partial)
            for name, text in (texts or {}).items():
                (partial / name).write_text(text, encoding="utf-8")
    except UserError:
        raise
    except Exception as error:
        raise_if_disk_full(error, out)
        raise
    return said


def stored_shapes(opened: Opened) -> dict[str, jax.ShapeDtypeStruct]:
    """The parameters of a folder as they are stored, by path; none is read."""
    with still_there(opened.path, opened.step):
        reader = ParamsReader(opened.params)
    return {path: jax.ShapeDtypeStruct(shape, reader.dtypes[path]) for path, shape in reader.shapes.items()}


def foreign_tensors(layout: Layout, reader: ParamsReader) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a layout, one at a time, in the dtype that their parameters are stored in."""
    by_name: dict[str, list[Leaf]] = {}
    for leaf in layout.leaves:
        by_name.setdefault(leaf.name, []).append(leaf)
    for name, leaves in by_name.items():
        first = leaves[0]
        layers = range(reader.shapes[first.path][0]) if first.layered else ()
        if not first.layered:
            yield name, _tensor(leaves, (), layout, reader)
        elif first.stacked is None:
            for layer in layers:
                yield name.format(layer), _tensor(leaves, (layer,), layout, reader)
        else:
            pieces = [_tensor(leaves, (layer,), layout, reader) for layer in layers]
            yield name, np.stack(pieces, first.stacked)


def _tensor(leaves: list[Leaf], index: tuple[int, ...], layout: Layout, reader: ParamsReader) -> np.ndarray:
    parts = [leaf.theirs(reader.read(leaf.path, index), layout.sizes) for leaf in leaves]
    if leaves[0].part is None:
        return parts[0]
    order = sorted(range(len(leaves)), key=lambda i: leaves[i].part or 0)
    return np.stack([parts[i] for i in order])


def _to_transformers(config: ModelConfig, reader: ParamsReader, out: pathlib.Path) -> list[str]:
    text = config.text
    if not isinstance(text, EncoderDecoderConfig):
        if config.vision is None:
            layout, tree = transformers_layout.gemma_spelling(text), gemma_config(text, config.vocab_size)
        else:
            # Files want a token for an image's places; those of ours that have none never meet the last one in a text.
            image_token = text.image_id if text.image_id is not None else config.vocab_size - 1
            layout, tree = transformers_layout.paligemma_spelling(config), paligemma_config(config, image_token)
        write_json(out / "config.json", tree)
        write_safetensors(out, foreign_tensors(layout, reader))
        return [f"{tree['architectures'][0]}: config.json and safetensors"]
    said = []
    folder = out if config.vision is None else out / "text"
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", t5_config(text, config.vocab_size))
    write_safetensors(folder, _with_final_norm(foreign_tensors(transformers_layout.t5_layout(text), reader), text))
    said.append(f"{folder.name if config.vision else '.'}: {t5_config(text, 0)['architectures'][0]}")
    if config.vision is not None:
        (out / "vision").mkdir()
        write_json(out / "vision" / "config.json", siglip_config(config.vision, config.image_size))
        layout = transformers_layout.siglip_spelling(config.vision, False)
        write_safetensors(out / "vision", foreign_tensors(layout, reader))
        (out / "projection").mkdir()
        write_json(out / "projection" / "config.json", {"model_type": PROJECTOR_TYPE})
        write_safetensors(out / "projection", foreign_tensors(transformers_layout.projector_layout(), reader))
        said += ["vision: SiglipVisionModel", "projection: the linear map of image tokens into the text's width"]
    return said


def _with_final_norm(tensors: Tensors, text: EncoderDecoderConfig) -> Tensors:
    """UL2's decoder ends in a norm without a scale, and `transformers` has one: ones are the same."""
    yield from tensors
    if not text.decoder_norm_scale:
        yield "decoder.final_layer_norm.weight", np.ones(text.width, np.float32)


def _to_big_vision(config: ModelConfig, reader: ParamsReader, out: pathlib.Path) -> list[str]:
    if config.vision is None:
        raise UserError("the model has no vision tower, which is what a big_vision file holds; export to transformers")
    siglip_config(config.vision, config.image_size)  # refuses a tower of another kind
    if isinstance(config.text, EncoderDecoderConfig):
        write_npz(out / "vision.npz", foreign_tensors(big_vision_layout.vit_layout(config.vision, False), reader))
        return ["vision.npz: the ViT", "left out: the encoder-decoder and the projection (export them as transformers)"]
    gemma_config(config.text, config.vocab_size)
    write_npz(out / "paligemma.npz", foreign_tensors(big_vision_layout.paligemma_layout(config), reader))
    return ["paligemma.npz: the whole model"]


def _to_t5x(config: ModelConfig, reader: ParamsReader, out: pathlib.Path) -> list[str]:
    if not isinstance(config.text, EncoderDecoderConfig):
        raise UserError("the model's language model is no T5; export it to transformers or big_vision")
    write_t5x(out, foreign_tensors(t5x_layout.t5x_layout(config.text), reader))
    left = ["left out: the vision tower and the projection (export them as transformers)"] if config.vision else []
    return ["the encoder-decoder as a T5X checkpoint", *left]
