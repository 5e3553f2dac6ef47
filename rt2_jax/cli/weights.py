"""rt2 convert, verify and sizes: weights in, and what folders and models hold."""

import argparse
from typing import Any

from rt2_jax.cli.parsing import (
    MAX_JAX_SEED,
    add_overwrite,
    add_verb,
    count,
    needs_extra,
    path,
    pattern,
    text,
)

MAX_LENGTH = 1_000_000  # tokens; nobody counts longer texts, and all figures stay within 64 bits


def add_convert(verbs: Any) -> None:
    convert = add_verb(
        verbs, "convert", _convert, "bring pretrained weights in",
        "Reads transformers folders (T5 1.1, mT5, umT5, UL2, SigLIP, SigLIP 2, Gemma 1 and 2, PaliGemma 1 and 2),\n"
        "big_vision .npz files (ViT, SigLIP, PaliGemma), T5X folders and folders of ours, and writes what a config's\n"
        "init_from and model name. Any vision tower goes with any language model:\n"
        "  rt2 convert --vision siglip-so400m-patch14-224 --text umt5-xl --vocabulary umt5.model --out runs/pali\n"
        "  rt2 convert --model paligemma2-10b.npz --vocabulary paligemma.model --out runs/paligemma\n"
        "Weights stream from file to file: memory does not grow with the model. Every tensor must find its place;\n"
        "rt2 export --format takes a model out again.",
    )  # fmt: skip
    convert.add_argument("--model", type=path, default=None, help="a checkpoint that gives every part")
    convert.add_argument("--vision", type=path, default=None, help="a checkpoint that gives the vision tower")
    convert.add_argument("--text", type=path, default=None, help="a checkpoint that gives the language model")
    convert.add_argument("--out", type=path, required=True, help="the folder to write")
    convert.add_argument("--vocabulary", type=path, default=None, help="SentencePiece model of the tokens")
    convert.add_argument(
        "--size", type=text, default=None, help="build this named size (default: what the checkpoints hold)"
    )
    convert.add_argument(
        "--set", dest="settings", type=text, action="append", default=[], metavar="KEY=VALUE",
        help="change the model's config, e.g. image_size=448 (positions are resampled), num_images=2,\n"
        "text.activation=silu; repeatable",
    )  # fmt: skip
    convert.add_argument(
        "--ignore", type=pattern, action="append", default=[], metavar="REGEX",
        help="parameters of a checkpoint that are not wanted, e.g. 'decoder/.*'; repeatable",
    )  # fmt: skip
    convert.add_argument(
        "--new", type=pattern, action="append", default=[], metavar="REGEX",
        help="parameters that no checkpoint gives, drawn at random; repeatable",
    )  # fmt: skip
    convert.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default=None, help="how weights are stored (default: as they come)"
    )
    convert.add_argument(
        "--seed", type=count(0, MAX_JAX_SEED), default=0, help="for what is drawn: %(type)s (default 0)"
    )
    add_overwrite(convert)


def _convert(arguments: argparse.Namespace) -> None:
    with needs_extra("convert", "other formats need"):
        from rt2_jax.convert.importer import import_weights
        from rt2_jax.convert.plan import parse_setting
        from rt2_jax.convert.report import report
    from rich.progress import Progress

    from rt2_jax.tokens.vocabulary import Vocabulary

    with Progress(transient=True) as progress:
        imported = import_weights(
            arguments.out,
            model=arguments.model,
            vision=arguments.vision,
            text=arguments.text,
            size=arguments.size,
            settings=dict(parse_setting(text) for text in arguments.settings),
            vocabulary=Vocabulary.load(arguments.vocabulary) if arguments.vocabulary else None,
            ignore=arguments.ignore,
            new=arguments.new,
            dtype=arguments.dtype,
            seed=arguments.seed,
            overwrite=arguments.overwrite,
            progress=progress,
        )
    report(imported, arguments.out)


def add_verify(verbs: Any) -> None:
    verify = add_verb(
        verbs, "verify", _verify, "hold every byte of what rt2 wrote to its hash",
        "PATH is a bundle, converted or exported weights, a run, a dataset, prepared data, or a folder with any of\n"
        "them below it. Each has a manifest.json with the SHA-256 of every file and one identity over all of them; a\n"
        "run has one in every step. Prints a table, and exits with 2 when anything is damaged.",
    )  # fmt: skip
    verify.add_argument("path", type=path, metavar="PATH", help="the folder")


def _verify(arguments: argparse.Namespace) -> None:
    from rt2_jax.train.verify import verify

    verify(arguments.path)


def add_sizes(verbs: Any) -> None:
    sizes = add_verb(
        verbs, "sizes", _sizes, "say what each model size holds, computes and takes in memory",
        "Parameters by part. FLOPs, a multiply and an add being two, of one training example (forward and backward;\n"
        "what rematerialisation computes again stands apart), and of one action of 8 tokens: a prefill reads images\n"
        "and prompt, then come 7 steps. Memory at rest of the whole model, however many chips hold it: weights,\n"
        "Adafactor's train state, one robot's cache, and for serving the bfloat16 weights with one cache.\n"
        "All is counted from shapes, nothing is allocated. docs/models.md says what is left out, and where the sizes\n"
        "come from.",
    )  # fmt: skip
    sizes.add_argument(
        "--size", type=text, default=None, metavar="NAME", help="one size by its parts (default: all sizes)"
    )
    sizes.add_argument(
        "--prompt-len", type=count(1, MAX_LENGTH), default=128, metavar="N",
        help="tokens of a prompt, %(type)s (default 128)",
    )  # fmt: skip
    sizes.add_argument(
        "--target-len", type=count(1, MAX_LENGTH), default=64, metavar="N",
        help="tokens of a target, %(type)s (default 64)",
    )  # fmt: skip
    sizes.add_argument("--markdown", action="store_true", help="print Markdown, as in docs/models.md")


def _sizes(arguments: argparse.Namespace) -> None:
    from rt2_jax.fit.sizes_table import print_sizes

    print_sizes(arguments.size, arguments.prompt_len, arguments.target_len, arguments.markdown)
