"""The command line as a parser. Verbs import what they need when run."""

import argparse
from collections.abc import Sequence

from rt2_jax.cli.bench import add_bench
from rt2_jax.cli.data import add_data
from rt2_jax.cli.parsing import Parser
from rt2_jax.cli.runs import add_eval, add_sample, add_train
from rt2_jax.cli.weights import add_convert, add_export, add_sizes, add_verify

DESCRIPTION = """\
RT-2 in JAX: vision-language-action models, co-fine-tuned on web and robot data.

The main job, in four commands (make demo runs them with the sizes of a laptop):
  rt2 data build   --data DATA                      write demonstrations (RLDS) and image-text data
  rt2 data prepare --data DATA                      turn them into tokens, ready to be trained on
  rt2 train --config configs/tabletop_demo.py --workdir RUN --config.data_dir=DATA
  rt2 eval  --checkpoint RUN --data DATA --out REPORT

Public weights come in by rt2 convert and go out by rt2 export; rt2 verify holds every byte of what was written to its
hash; rt2 sizes says what each model holds and computes.
"""
OVERRIDE_PREFIX = "--config."


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, its help included."""
    parser = Parser(prog="rt2", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add_data(verbs)
    add_convert(verbs)
    add_train(verbs)
    add_eval(verbs)
    add_sample(verbs)
    add_export(verbs)
    add_verify(verbs)
    add_sizes(verbs)
    add_bench(verbs)
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of one command line; `rest` holds the values that a config takes.

    Raises:
        SystemExit: help was asked for (0), or an argument is wrong (2, with one line on standard error).
    """
    arguments, rest = build_parser().parse_known_args(argv)
    is_train = arguments.verb == "train"
    unknown = [word for word in rest if not (is_train and word.startswith(OVERRIDE_PREFIX) and "=" in word)]
    if unknown:
        how = "; a value of the config is set as --config.KEY=VALUE" if is_train else ""
        arguments.parser.error(f"unrecognised arguments: {' '.join(unknown)}{how}")
    arguments.rest = rest
    return arguments
