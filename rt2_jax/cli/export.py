"""rt2 export: a run or bundle as a bundle, as an artifact that acts without this package, or for another framework."""

import argparse
import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rt2_jax.cli.parsing import (
    add_no_verify,
    add_overwrite,
    add_verb,
    count,
    names,
    needs_extra,
    path,
    quiet_tensorflow,
    text,
    told_unverified,
)
from rt2_jax.errors import UserError

if TYPE_CHECKING:
    from rt2_jax.bundle.store import LoadedBundle

ARTIFACTS = ("jax", "savedmodel")
FOREIGN = ("transformers", "big_vision", "t5x")
MAX_BATCH = 1024


def add_export(verbs: Any) -> None:
    export = add_verb(
        verbs, "export", _export, "write weights as a bundle, as an artifact that acts, or for another framework",
        "A bundle is what evaluation and serving read: weights without optimizer state, vocabulary, bins and grammar,\n"
        "held together by hashes. Of a run, its last complete checkpoint. A run with LoRA keeps its adapters, which\n"
        "everything that reads a bundle understands, unless they are merged.\n"
        "An artifact acts without this package, with the constrained sampler inside: frames and instructions in,\n"
        "physical actions out. jax: programs of jax.export for CPU, TPU and CUDA, and a loader that needs jax alone.\n"
        "savedmodel: a TensorFlow SavedModel that takes JPEG bytes and strings. Other formats hold the weights alone.\n"
        "A model card, JSON and Markdown, goes with each.",
    )  # fmt: skip
    export.add_argument("--checkpoint", type=path, required=True, help="a run's workdir, or another bundle")
    export.add_argument("--out", type=path, required=True, help="the folder to write")
    export.add_argument(
        "--format", choices=("bundle", *ARTIFACTS, *FOREIGN), default="bundle",
        help="jax, savedmodel: artifacts that act; transformers: PaliGemma, or T5 and SigLIP side by side;\n"
        "big_vision: .npz; t5x: the T5 (default bundle)",
    )  # fmt: skip
    export.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default=None, help="how float weights are stored (default float32)"
    )
    export.add_argument(
        "--quantize", choices=("int8",), default=None,
        help="kernels and token table as int8, one scale an output channel: a quarter of float32's bytes",
    )  # fmt: skip
    export.add_argument("--merge-lora", action="store_true", help="add the LoRA adapters into the weights")
    export.add_argument(
        "--envelope", type=path, default=None, metavar="FILE",
        help="a JSON file of limits by embodiment that no action leaves (docs/robot_client.md); robots that the file "
        "does not name keep theirs",
    )  # fmt: skip
    export.add_argument(
        "--modes", type=names, default=None, metavar="MODE,MODE",
        help="what an artifact can do: action, plan (default both)",
    )  # fmt: skip
    export.add_argument(
        "--max-batch", type=count(1, MAX_BATCH), default=8, metavar="N",
        help="rows of the largest program of --format jax; there is one for each power of two up to it (default 8)",
    )  # fmt: skip
    export.add_argument(
        "--report", type=path, default=None, metavar="FILE",
        help="report.json of rt2 eval on this checkpoint, for the model card",
    )  # fmt: skip
    export.add_argument(
        "--license",
        type=text,
        default=None,
        metavar="NAME",
        help="of the weights, for the model card (default unknown)",
    )
    add_overwrite(export)
    add_no_verify(export)


def _export(arguments: argparse.Namespace) -> None:
    if arguments.modes and arguments.format not in ARTIFACTS:
        raise UserError(f"--modes is for artifacts; leave it out with --format {arguments.format}")
    if arguments.format in FOREIGN:
        _export_foreign(arguments)
        return
    if arguments.quantize and arguments.dtype:
        raise UserError("--quantize stores int8 kernels with float32 scales; leave --dtype out")
    kind, save = _writer(arguments)
    from rt2_jax.bundle.spec import read_spec, with_envelopes
    from rt2_jax.bundle.store import cast_bundle, load_bundle, merge_bundle, quantize_bundle
    from rt2_jax.export.card import card_texts
    from rt2_jax.files.writing import check_target

    target = {"sources": [arguments.checkpoint], "overwrite": arguments.overwrite}
    report = _report(arguments)
    check_target(arguments.out, kind, **target)
    if arguments.envelope:  # before the weights are read, which may take minutes
        with_envelopes(read_spec(arguments.checkpoint), arguments.envelope)
    told_unverified(arguments)
    source = load_bundle(arguments.checkpoint, verify=not arguments.no_verify)
    bundle, changes = source, []
    if arguments.merge_lora:
        bundle = merge_bundle(bundle)
        changes.append("LoRA adapters merged")
    if arguments.quantize:
        bundle = quantize_bundle(bundle)
        changes.append(f"{arguments.quantize} weights")
    if arguments.dtype:
        bundle = cast_bundle(bundle, arguments.dtype)
        changes += [f"{arguments.dtype} weights"] if arguments.dtype != "float32" else []
    spec = dataclasses.replace(bundle.spec, exported_from=source.identity)
    spec = with_envelopes(spec, arguments.envelope) if arguments.envelope else spec
    bundle = dataclasses.replace(bundle, spec=spec)
    texts = card_texts(
        spec,
        bundle.params,
        form=kind,
        identities=(source.identity, source.spec.exported_from),
        license=arguments.license,
        report=report,
        changes=changes,
    )
    identity = save(bundle, texts=texts, **target)
    weights = spec.model.quantized or arguments.dtype or "float32"
    print(f"{arguments.out}: {spec.model.name} at step {spec.step}, {weights}, identity {identity}")


def _writer(arguments: argparse.Namespace) -> tuple[str, Callable[..., str]]:
    """(the kind of folder that a format is, what writes a bundle as it and returns its identity).

    Raises:
        UserError: the format's extra is not installed.
    """
    options: dict[str, Any] = {"modes": tuple(arguments.modes)} if arguments.modes else {}
    if arguments.format == "jax":
        with needs_extra("export", "an artifact of jax.export needs"):
            import flatbuffers  # noqa: F401 (jax.export writes with it)
            import safetensors  # noqa: F401
        from rt2_jax.export.artifact import ARTIFACT_KIND, save_artifact

        options["batch_sizes"] = [1 << power for power in range(arguments.max_batch.bit_length())]
        return ARTIFACT_KIND, functools.partial(save_artifact, arguments.out, **options)
    if arguments.format == "savedmodel":
        with needs_extra("savedmodel", "a SavedModel needs"), quiet_tensorflow():
            from rt2_jax.export.saved_model.save import SAVED_MODEL_KIND, save_saved_model

        return SAVED_MODEL_KIND, functools.partial(save_saved_model, arguments.out, **options)
    from rt2_jax.bundle.store import BUNDLE_KIND, save_bundle

    def save(bundle: "LoadedBundle", **settings: Any) -> str:
        dtype = arguments.dtype or "float32"
        return save_bundle(arguments.out, bundle.params, bundle.spec, bundle.vocabulary, dtype, **settings)

    return BUNDLE_KIND, save


def _export_foreign(arguments: argparse.Namespace) -> None:
    """The weights alone, in another framework's format."""
    if arguments.dtype or arguments.merge_lora or arguments.quantize or arguments.envelope:
        raise UserError(
            "--dtype, --merge-lora, --quantize and --envelope change a bundle; leave them out with --format "
            f"{arguments.format}"
        )
    with needs_extra("convert", "other formats need"):
        from rt2_jax.convert.exporter import export_weights, stored_shapes
    from rt2_jax.bundle.store import open_folder
    from rt2_jax.export.card import card_texts

    report = _report(arguments)
    told_unverified(arguments)
    opened = open_folder(arguments.checkpoint, verify=False)
    texts = card_texts(
        opened.spec,
        stored_shapes(opened),
        form=f"{arguments.format} folder",
        identities=(opened.identity, opened.spec.exported_from),
        license=arguments.license,
        report=report,
    )
    for line in export_weights(
        arguments.checkpoint,
        arguments.out,
        arguments.format,
        texts=texts,
        overwrite=arguments.overwrite,
        verify=not arguments.no_verify,
    ):
        print(f"{arguments.out}: {line}")


def _report(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The report that was named, checked before any work."""
    if arguments.report is None:
        return None
    from rt2_jax.report.schema import check
    from rt2_jax.typed import read_json

    return check(read_json(arguments.report, "report", "run `rt2 eval` again"), f"report {arguments.report}")
