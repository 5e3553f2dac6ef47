"""rt2 data: build, prepare and look at datasets, make vocabularies."""

import argparse
from typing import Any

from rt2_jax.cli.parsing import add_verb, count, names, number, path, quiet_tensorflow, text
from rt2_jax.errors import UserError

MAX_EXAMPLES = 2**36  # of a dataset: the streams of its scenes are numbered with so many bits

MAX_IMAGE_SIZE = 4096  # of prepared frames, as in datasets.prepare
MAX_TOKENS = 2**20  # of a prompt or target


def add_data(verbs: Any) -> None:
    data = verbs.add_parser("data", help="build, prepare and look at datasets")
    kinds = data.add_subparsers(dest="kind", metavar="COMMAND", required=True)

    build = add_verb(
        kinds, "build", _data_build, "write the tabletop datasets",
        "Two datasets in TFDS layout: DATA/tabletop_robot, demonstrations of the scripted expert as RLDS episodes,\n"
        "and DATA/tabletop_web, images with captions, questions and places from the wider world. An interrupted\n"
        "build goes on where it stopped, and files that were lost or changed since are made again; the same arguments\n"
        "give the same bytes.",
    )  # fmt: skip
    build.add_argument("--data", type=path, required=True, help="the folder to write to")
    build.add_argument(
        "--robot-episodes", type=count(0, MAX_EXAMPLES), default=2000,
        help="demonstrations for training, %(type)s (default 2000)",
    )  # fmt: skip
    build.add_argument(
        "--web-images", type=count(0, MAX_EXAMPLES), default=20000,
        help="web images for training, %(type)s (default 20000)",
    )  # fmt: skip
    build.add_argument(
        "--image-size", type=count(16, 512), default=96, help="side of a frame in pixels, %(type)s (default 96)"
    )
    build.add_argument(
        "--seed", type=count(0, 2**20 - 1), default=0, help="another seed, other scenes: %(type)s (default 0)"
    )
    build.add_argument(
        "--noise", type=number(0.0, 1.0), default=0.15,
        help="chance a step that the arm is thrown off the expert's path, whose way back is then shown: %(type)s "
        "(default 0.15)",
    )  # fmt: skip
    build.add_argument("--workers", type=count(1, 1024), default=2, help="rendering processes, %(type)s (default 2)")
    build.add_argument("--overwrite", action="store_true", help="replace datasets built with other arguments")

    prepare = add_verb(
        kinds, "prepare", _data_prepare, "turn datasets into tokens",
        "Runs seqio tasks once and writes their examples to DATA/prepared as ArrayRecord, which training reads at any\n"
        "position without TensorFlow. The weights of a mixture are recorded beside them: --config.mixture=NAME.",
    )  # fmt: skip
    prepare.add_argument("--data", type=path, required=True, help="the folder that rt2 data build wrote to")
    which = prepare.add_mutually_exclusive_group()
    which.add_argument("--tasks", type=names, default=None, help="comma-separated tasks (default: all registered)")
    which.add_argument(
        "--mixture", type=text, default=None,
        help="the tasks of a seqio mixture, such as tabletop_cofinetune_50; its weights are recorded for training",
    )  # fmt: skip
    prepare.add_argument("--vocabulary", type=path, default=None, help="SentencePiece model (default: shipped)")
    prepare.add_argument("--task-modules", type=names, default=[], help="modules that register tasks of your own")
    prepare.add_argument(
        "--image-size", type=count(1, MAX_IMAGE_SIZE), default=None,
        help="resize frames to this many pixels a side, %(type)s (default: as they are, which must be square)",
    )  # fmt: skip
    for what in ("prompt", "target"):
        prepare.add_argument(
            f"--{what}-len", type=count(1, MAX_TOKENS), default=None,
            help=f"leave out, and report, examples whose {what} has more tokens, %(type)s (default: none)",
        )  # fmt: skip
    prepare.add_argument("--overwrite", action="store_true", help="prepare again what is there")

    inspect = add_verb(
        kinds, "inspect", _data_inspect, "count prepared examples and draw some of them",
        "Prints tables of the tasks under DATA/prepared and of the frames that they share, with their bytes,\n"
        "and draws a sheet of examples with prompts and targets.",
    )  # fmt: skip
    inspect.add_argument("--data", type=path, required=True, help="the folder with prepared data")
    inspect.add_argument("--tasks", type=names, default=None, help="comma-separated tasks (default: all prepared)")
    inspect.add_argument("--out", type=path, default=None, help="where to write the sheet (default DATA/inspect.png)")

    vocabulary = add_verb(
        kinds, "vocabulary", _data_vocabulary, "train a SentencePiece vocabulary, or adapt that of a public model",
        "Without --adapt it trains one on the world's own corpus, where each integer is one token. The same corpus\n"
        "gives the same file; the shipped one was trained on an earlier state of it.\n\n"
        "With --adapt it makes the SentencePiece file of a public model one that actions can be written in. The\n"
        "model's integers 0 to 255 are used where each is one token; else --overwrite-by counts pieces on a text of\n"
        "yours, and the 256 rarest become the words <0> to <255> (PaLM-E's way). Text without them keeps its tokens.\n"
        "The file that is written is the whole vocabulary: name it in rt2 data prepare --vocabulary and in a config.\n"
        "  rt2 data vocabulary --adapt gemma.model --overwrite-by text.txt --out gemma_rt2.model",
    )  # fmt: skip
    vocabulary.add_argument("--out", type=path, required=True, help="the .model file to write")
    vocabulary.add_argument("--adapt", type=path, default=None, metavar="FILE.model", help="a public model's file")
    vocabulary.add_argument(
        "--family", type=text, default=None,
        help="with --adapt, add this family's pieces: t5, mt5, umt5 (T5X's ids), umt5_hf (the Transformers port's), "
        "paligemma or gemma (default: add none)",
    )  # fmt: skip
    vocabulary.add_argument(
        "--overwrite-by", type=path, default=None, metavar="CORPUS.txt",
        help="with --adapt, a text in the languages that the model is to keep, one text a line",
    )  # fmt: skip


def _data_build(arguments: argparse.Namespace) -> None:
    with quiet_tensorflow():
        from rt2_jax.datasets.tabletop.build import build

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


def _data_prepare(arguments: argparse.Namespace) -> None:
    with quiet_tensorflow():
        from rt2_jax.datasets.prepare import prepare

    prepare(
        arguments.data,
        tasks=arguments.tasks,
        mixture=arguments.mixture,
        vocabulary=arguments.vocabulary,
        task_modules=arguments.task_modules,
        image_size=arguments.image_size,
        prompt_len=arguments.prompt_len,
        target_len=arguments.target_len,
        overwrite=arguments.overwrite,
    )


def _data_inspect(arguments: argparse.Namespace) -> None:
    from rt2_jax.data.inspect import inspect

    print(inspect(arguments.data, tasks=arguments.tasks, out=arguments.out))


def _data_vocabulary(arguments: argparse.Namespace) -> None:
    from rt2_jax.files.places import check_file
    from rt2_jax.tokens.adapt import adapt_vocabulary, read_corpus
    from rt2_jax.tokens.train_vocabulary import train_vocabulary

    if arguments.out.suffix != ".model":
        raise UserError(f"--out is {arguments.out}; give it a name that ends in .model")
    for source in (arguments.adapt, arguments.overwrite_by):
        if source is not None and arguments.out.exists() and source.exists() and arguments.out.samefile(source):
            raise UserError(f"--out is {source}, which is read; give it another name")
    check_file(arguments.out)
    if arguments.adapt is None:
        if arguments.family or arguments.overwrite_by:
            raise UserError("--family and --overwrite-by change a public model's file; name it with --adapt")
        from rt2_jax.sim.tasks.corpus import corpus  # of the [sim] extra, which adapting does not need

        vocabulary = train_vocabulary(corpus(), arguments.out)
    else:
        counted = read_corpus(arguments.overwrite_by) if arguments.overwrite_by else None
        vocabulary = adapt_vocabulary(arguments.adapt, arguments.out, arguments.family, counted)
    words, ids = vocabulary.integer_words, vocabulary.integer_ids
    print(f"{arguments.out}: {vocabulary.num_pieces} pieces, sha256 {vocabulary.sha256}")
    print(f"  integers are written {words[0]} to {words[-1]}: tokens {', '.join(map(str, ids[:4]))}, ..., {ids[-1]}")
