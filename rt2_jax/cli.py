"""The command ``rt2``: data | convert | train | eval | sample | export | sizes. A verb imports only what it needs."""

import argparse
import logging
import os
import pathlib
import sys
from collections.abc import Sequence

from rt2_jax.errors import UserError

DESCRIPTION = """\
RT-2 in JAX: vision-language-action models, co-fine-tuned on web and robot data.

The main job, in four commands (make demo runs them with the sizes of a laptop):
  rt2 data build   --data DATA                      write demonstrations (RLDS) and image-text data
  rt2 data prepare --data DATA                      turn them into tokens, ready to be trained on
  rt2 train --config configs/tabletop_demo.py --workdir RUN --config.data_dir=DATA
  rt2 eval  --checkpoint RUN --data DATA --out REPORT
"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, its help included."""
    parser = argparse.ArgumentParser(
        prog="rt2", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_data(verbs)
    _add_convert(verbs)
    _add_train(verbs)
    _add_eval(verbs)
    _add_sample(verbs)
    _add_export(verbs)
    _add_sizes(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line. Exit code 0 on success, 2 for what the user can mend, 130 when interrupted."""
    arguments, rest = build_parser().parse_known_args(argv)
    if rest and arguments.verb != "train":
        build_parser().error(f"unrecognised arguments: {' '.join(rest)}")
    arguments.rest = rest
    # Orbax warns of optional metadata that our params-only folders do not have.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        return arguments.run(arguments) or 0
    except UserError as error:
        print(f"rt2: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rt2: interrupted", file=sys.stderr)
        return 130


def _verb(verbs, name: str, run, help_line: str, description: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=help_line,
        description=f"{help_line[0].upper()}{help_line[1:]}.\n\n{description}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _path(text: str) -> pathlib.Path:
    return pathlib.Path(text).expanduser()


def _quiet_tensorflow() -> None:
    """Data work is the CPU's: TensorFlow must neither take an accelerator nor tell us that it found none."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


# --- rt2 data ---------------------------------------------------------------------------------------------------------


def _add_data(verbs) -> None:
    data = verbs.add_parser("data", help="build, prepare and look at datasets")
    kinds = data.add_subparsers(dest="kind", metavar="COMMAND", required=True)

    build = _verb(
        kinds, "build", _data_build, "write the tabletop datasets",
        "Two datasets in TFDS layout: DATA/tabletop_robot, demonstrations of the scripted expert as RLDS episodes,\n"
        "and DATA/tabletop_web, images with captions, questions and places from the wider world. An interrupted\n"
        "build goes on where it stopped; the same arguments give the same bytes.",
    )  # fmt: skip
    build.add_argument("--data", type=_path, required=True, help="the folder to write to")
    build.add_argument("--robot-episodes", type=int, default=2000, help="demonstrations for training (default 2000)")
    build.add_argument("--web-images", type=int, default=20000, help="web images for training (default 20000)")
    build.add_argument("--image-size", type=int, default=96, help="side of a frame in pixels (default 96)")
    build.add_argument("--seed", type=int, default=0, help="another seed, other scenes (default 0)")
    build.add_argument(
        "--noise", type=float, default=0.15,
        help="chance a step that the arm is thrown off the expert's path, whose way back is then shown (default 0.15)",
    )  # fmt: skip
    build.add_argument("--workers", type=int, default=2, help="rendering processes (default 2)")
    build.add_argument("--overwrite", action="store_true", help="replace datasets built with other arguments")

    prepare = _verb(
        kinds, "prepare", _data_prepare, "turn datasets into tokens",
        "Runs seqio tasks once and writes their examples to DATA/prepared as ArrayRecord, which training reads at any\n"
        "position without TensorFlow.",
    )  # fmt: skip
    prepare.add_argument("--data", type=_path, required=True, help="the folder that rt2 data build wrote to")
    which = prepare.add_mutually_exclusive_group()
    which.add_argument("--tasks", type=_names, default=None, help="comma-separated tasks (default: all registered)")
    which.add_argument("--mixture", default=None, help="the tasks of a mixture, e.g. tabletop_cofinetune_50")
    prepare.add_argument("--vocabulary", type=_path, default=None, help="SentencePiece model (default: shipped)")
    prepare.add_argument("--task-modules", type=_names, default=[], help="modules that register tasks of your own")
    prepare.add_argument("--overwrite", action="store_true", help="prepare again what is there")

    inspect = _verb(
        kinds, "inspect", _data_inspect, "count prepared examples and draw some of them",
        "Prints a table of the tasks under DATA/prepared and draws a sheet of examples with prompts and targets.",
    )  # fmt: skip
    inspect.add_argument("--data", type=_path, required=True, help="the folder with prepared data")
    inspect.add_argument("--tasks", type=_names, default=None, help="comma-separated tasks (default: all prepared)")
    inspect.add_argument("--out", type=_path, default=None, help="where to write the sheet (default DATA/inspect.png)")

    vocabulary = _verb(
        kinds, "vocabulary", _data_vocabulary, "train a SentencePiece vocabulary, or adapt that of a public model",
        "Without --adapt it trains one on the world's own corpus, where each integer is one token. The same corpus\n"
        "gives the same file; the shipped one was trained on an earlier state of it.\n\n"
        "With --adapt it makes the SentencePiece file of a public model one that actions can be written in. The\n"
        "model's integers 0 to 255 are used where each is one token; else --overwrite-by counts pieces on a text of\n"
        "yours, and the 256 rarest become the words <0> to <255> (PaLM-E's way). Text without them keeps its tokens.\n"
        "The file that is written is the whole vocabulary: name it in rt2 data prepare --vocabulary and in a config.\n"
        "  rt2 data vocabulary --adapt gemma.model --overwrite-by text.txt --out data/vocabularies/gemma.model",
    )  # fmt: skip
    vocabulary.add_argument("--out", type=_path, required=True, help="the .model file to write")
    vocabulary.add_argument("--adapt", type=_path, default=None, metavar="FILE.model", help="a public model's file")
    vocabulary.add_argument(
        "--family", default=None,
        help="with --adapt, add this family's pieces: t5, mt5, umt5 (T5X's ids), umt5_hf (the Transformers port's), "
        "paligemma or gemma (default: add none)",
    )  # fmt: skip
    vocabulary.add_argument(
        "--overwrite-by", type=_path, default=None, metavar="CORPUS.txt",
        help="with --adapt, a text in the languages that the model is to keep, one text a line",
    )  # fmt: skip


def _data_build(arguments) -> None:
    _quiet_tensorflow()
    from rt2_jax.data.build import build

    build(
        arguments.data,
        robot_episodes=arguments.robot_episodes,
        web_images=arguments.web_images,
        image_size=arguments.image_size,
        seed=arguments.seed,
        noise=arguments.noise,
        workers=arguments.workers,
        overwrite=arguments.overwrite,
    )


def _data_prepare(arguments) -> None:
    _quiet_tensorflow()
    from rt2_jax.data.mixtures import mixture_weights
    from rt2_jax.data.prepare import prepare

    prepare(
        arguments.data,
        tasks=list(mixture_weights(arguments.mixture)) if arguments.mixture else arguments.tasks,
        vocabulary=arguments.vocabulary,
        task_modules=arguments.task_modules,
        overwrite=arguments.overwrite,
    )


def _data_inspect(arguments) -> None:
    from rt2_jax.data.inspect import inspect

    print(inspect(arguments.data, tasks=arguments.tasks, out=arguments.out))


def _data_vocabulary(arguments) -> None:
    from rt2_jax.sim.corpus import corpus
    from rt2_jax.tokens.adapt import adapt_vocabulary, read_corpus
    from rt2_jax.tokens.train_vocabulary import train_vocabulary

    if arguments.adapt is None:
        if arguments.family or arguments.overwrite_by:
            raise UserError("--family and --overwrite-by change a public model's file; name it with --adapt")
        vocabulary = train_vocabulary(corpus(), arguments.out)
    else:
        counted = read_corpus(arguments.overwrite_by) if arguments.overwrite_by else None
        vocabulary = adapt_vocabulary(arguments.adapt, arguments.out, arguments.family, counted)
    words, ids = vocabulary.integer_words, vocabulary.integer_ids
    print(f"{arguments.out}: {vocabulary.num_pieces} pieces, sha256 {vocabulary.sha256}")
    print(f"  integers are written {words[0]} to {words[-1]}: tokens {', '.join(map(str, ids[:4]))}, ..., {ids[-1]}")


# --- rt2 convert ------------------------------------------------------------------------------------------------------


def _add_convert(verbs) -> None:
    convert = _verb(
        verbs, "convert", _convert, "bring pretrained weights in",
        "Reads transformers folders (T5 1.1, mT5, umT5, UL2, SigLIP, SigLIP 2, Gemma 1 and 2, PaliGemma 1 and 2),\n"
        "big_vision .npz files (ViT, SigLIP, PaliGemma), T5X folders and folders of ours, and writes what a config's\n"
        "init_from and model name. Any vision tower goes with any language model:\n"
        "  rt2 convert --vision siglip-so400m-patch14-224 --text umt5-xl --vocabulary umt5.model --out runs/pali\n"
        "  rt2 convert --model paligemma2-10b.npz --vocabulary paligemma.model --out runs/paligemma\n"
        "Weights stream from file to file: memory does not grow with the model. Every tensor must find its place;\n"
        "rt2 export --format takes a model out again.",
    )  # fmt: skip
    convert.add_argument("--model", type=_path, default=None, help="a checkpoint that gives every part")
    convert.add_argument("--vision", type=_path, default=None, help="a checkpoint that gives the vision tower")
    convert.add_argument("--text", type=_path, default=None, help="a checkpoint that gives the language model")
    convert.add_argument("--out", type=_path, required=True, help="the folder to write")
    convert.add_argument("--vocabulary", type=_path, default=None, help="SentencePiece model of the tokens")
    convert.add_argument("--size", default=None, help="build this named size (default: what the checkpoints hold)")
    convert.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
        help="change the model's config, e.g. image_size=448 (positions are resampled), num_images=2,\n"
        "text.activation=silu; repeatable",
    )  # fmt: skip
    convert.add_argument(
        "--ignore", action="append", default=[], metavar="REGEX",
        help="parameters of a checkpoint that are not wanted, e.g. 'decoder/.*'; repeatable",
    )  # fmt: skip
    convert.add_argument(
        "--new", action="append", default=[], metavar="REGEX",
        help="parameters that no checkpoint gives, drawn at random; repeatable",
    )  # fmt: skip
    convert.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default=None, help="how weights are stored (default: as they come)"
    )
    convert.add_argument("--seed", type=int, default=0, help="for what is drawn")


def _convert(arguments) -> None:
    try:
        from rt2_jax.convert.importer import import_weights
        from rt2_jax.convert.plan import parse_setting
    except ImportError as error:
        raise UserError(f"rt2 convert needs the package {error.name}; pip install 'rt2_jax[convert]'") from error
    from rich.progress import Progress

    from rt2_jax.convert.report import report
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
            progress=progress,
        )
    report(imported, arguments.out)


# --- rt2 train --------------------------------------------------------------------------------------------------------


def _add_train(verbs) -> None:
    train = _verb(
        verbs, "train", _train, "train a model by a config",
        "A config is a Python file with get_config(); any of its values can be set on the command line:\n"
        "  rt2 train --config configs/tabletop_demo.py --workdir runs/a --config.steps=9 --config.seed=1\n"
        "Run again with the same workdir to go on from its last checkpoint, on any number of hosts.\n"
        "Exit code 42 means: stopped by SIGTERM with everything saved, start me again.",
    )  # fmt: skip
    train.add_argument("--config", required=True, help="the config file; --config.KEY=VALUE sets one of its values")
    train.add_argument("--workdir", type=_path, required=True, help="checkpoints, metrics and the config go here")


def _train(arguments) -> int:
    from rt2_jax.train.config import load_config
    from rt2_jax.train.loop import train

    return train(load_config(arguments.config, arguments.rest), arguments.workdir)


# --- rt2 eval ---------------------------------------------------------------------------------------------------------


def _add_eval(verbs) -> None:
    evaluate = _verb(
        verbs, "eval", _eval, "drive the simulated arm and write the report",
        "Closed loop on RT-2's splits (seen; unseen objects, backgrounds, environments; symbols, reasoning, persons)\n"
        "with controls, beside what the same checkpoint still knows of the web. Writes OUT/report.json and\n"
        "OUT/report.html.",
    )  # fmt: skip
    evaluate.add_argument("--checkpoint", type=_path, required=True, help="a run's workdir or a shipped bundle")
    evaluate.add_argument("--out", type=_path, required=True, help="the folder for the report")
    evaluate.add_argument("--data", type=_path, default=None, help="prepared data, for the offline metrics")
    evaluate.add_argument("--reference", type=_path, default=None, help="a checkpoint to show forgetting against")
    evaluate.add_argument("--splits", type=_names, default=None, help="comma-separated splits (default: all)")
    evaluate.add_argument("--skills", type=_names, default=None, help="comma-separated skills (default: all)")
    evaluate.add_argument("--tasks", type=_names, default=None, help="comma-separated prepared tasks (default: all)")
    evaluate.add_argument("--episodes", type=int, default=20, help="episodes for each skill of a split (default 20)")
    evaluate.add_argument("--examples", type=int, default=256, help="held-out examples for each task (default 256)")
    evaluate.add_argument("--mode", choices=("action", "plan"), default="action", help="plan: think before each action")
    evaluate.add_argument("--no-controls", action="store_true", help="leave out the controls")
    evaluate.add_argument("--seed", type=int, default=0, help="another seed, other episodes (default 0)")


def _eval(arguments) -> None:
    from rt2_jax.evaluate.run import CONTROLS, evaluate

    evaluate(
        arguments.checkpoint,
        arguments.out,
        data_dir=arguments.data,
        reference=arguments.reference,
        splits=arguments.splits,
        skills=arguments.skills,
        tasks=arguments.tasks,
        episodes=arguments.episodes,
        examples=arguments.examples,
        mode=arguments.mode,
        controls=() if arguments.no_controls else CONTROLS,
        seed=arguments.seed,
    )


# --- rt2 sample -------------------------------------------------------------------------------------------------------


def _add_sample(verbs) -> None:
    sample = _verb(
        verbs, "sample", _sample, "ask a checkpoint about one image",
        "With --instruction it answers with an action (or a plan and an action: --mode plan), decoded under the\n"
        "grammar, in bins and in physical units; with --prompt it answers in text.",
    )  # fmt: skip
    sample.add_argument("--checkpoint", type=_path, required=True, help="a run's workdir or a shipped bundle")
    sample.add_argument("--image", type=_path, required=True, help="an image file; resized to the model's frames")
    asked = sample.add_mutually_exclusive_group(required=True)
    asked.add_argument("--instruction", help='what the robot is told, e.g. "pick up the red cube"')
    asked.add_argument("--prompt", help='any text, e.g. "Answer in en: what number is on the table?"')
    sample.add_argument("--mode", choices=("action", "plan"), default="action", help="plan: think before the action")
    sample.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    sample.add_argument("--seed", type=int, default=0, help="for a temperature above 0")


def _sample(arguments) -> None:
    import jax

    from rt2_jax.evaluate.run import make_policy
    from rt2_jax.inputs.images import decode_image
    from rt2_jax.train.bundle import load_bundle

    if not arguments.image.is_file():
        raise UserError(f"image {arguments.image} does not exist; name a JPEG or PNG file")
    bundle = load_bundle(arguments.checkpoint)
    policy = make_policy(bundle, temperature=arguments.temperature)
    images, rng = decode_image(arguments.image.read_bytes())[None], jax.random.key(arguments.seed)
    if arguments.prompt is not None:
        print(policy.answer(images, [arguments.prompt], bundle.meta["target_len"], rng)[0])
        return
    output = policy.act(images, [arguments.instruction], arguments.mode, rng)
    print(output.text[0])
    space = bundle.bins.space
    for name, value, unit in zip(space.names, output.actions[0], space.units, strict=True):
        print(f"  {name:<10} {value:+.4f} {unit}")


# --- rt2 export -------------------------------------------------------------------------------------------------------


def _add_export(verbs) -> None:
    export = _verb(
        verbs, "export", _export, "write a run's weights as a bundle, or for another framework",
        "A bundle is what evaluation and serving read: weights without optimizer state, vocabulary, bins and grammar,\n"
        "held together by hashes. Of a run, its last complete checkpoint. A run with LoRA keeps its adapters, which\n"
        "everything that reads a bundle understands, unless they are merged. Other formats hold the weights alone.",
    )  # fmt: skip
    export.add_argument("--checkpoint", type=_path, required=True, help="a run's workdir, or another bundle")
    export.add_argument("--out", type=_path, required=True, help="the bundle's folder")
    export.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="a bundle's stored weights")
    export.add_argument("--merge-lora", action="store_true", help="add the LoRA adapters into the weights")
    export.add_argument(
        "--format", choices=("bundle", "transformers", "big_vision", "t5x"), default="bundle",
        help="transformers: PaliGemma, or T5 and SigLIP side by side; big_vision: .npz; t5x: the T5 (default bundle)",
    )  # fmt: skip


def _export(arguments) -> None:
    if arguments.format != "bundle":
        from rt2_jax.convert.exporter import export_weights

        for line in export_weights(arguments.checkpoint, arguments.out, arguments.format):
            print(f"{arguments.out}: {line}")
        return
    from rt2_jax.train.bundle import load_bundle, merge_bundle, save_bundle

    bundle = load_bundle(arguments.checkpoint)
    bundle = merge_bundle(bundle) if arguments.merge_lora else bundle
    save_bundle(arguments.out, bundle.params, bundle.meta, bundle.vocabulary, arguments.dtype)
    print(f"{arguments.out}: {bundle.meta['model']['name']} at step {bundle.meta['step']}, {arguments.dtype}")


# --- rt2 sizes --------------------------------------------------------------------------------------------------------


def _add_sizes(verbs) -> None:
    sizes = _verb(
        verbs, "sizes", _sizes, "say what each model size holds, computes and takes in memory",
        "Parameters by part. FLOPs, a multiply and an add being two, of one training example (forward and backward;\n"
        "what rematerialisation computes again stands apart), and of one action of 8 tokens: a prefill reads images\n"
        "and prompt, then come 7 steps. Memory at rest of the whole model, however many chips hold it: weights,\n"
        "Adafactor's train state, one robot's cache, and for serving the bfloat16 weights with one cache.\n"
        "All is counted from shapes, nothing is allocated. docs/models.md says what is left out, and where the sizes\n"
        "come from.",
    )  # fmt: skip
    sizes.add_argument("--size", default=None, metavar="NAME", help="one size by its parts (default: all sizes)")
    sizes.add_argument("--prompt-len", type=int, default=128, metavar="N", help="tokens of a prompt (default 128)")
    sizes.add_argument("--target-len", type=int, default=64, metavar="N", help="tokens of a target (default 64)")
    sizes.add_argument("--markdown", action="store_true", help="print Markdown, as in docs/models.md")


def _sizes(arguments) -> None:
    from rt2_jax.train.sizes_table import print_sizes

    print_sizes(arguments.size, arguments.prompt_len, arguments.target_len, arguments.markdown)


if __name__ == "__main__":
    sys.exit(main())
