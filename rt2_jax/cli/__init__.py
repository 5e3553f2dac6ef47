"""The command ``rt2``: data, convert, train, eval, sample, export, sizes. Verbs import what they need when run."""

import argparse
import logging
import sys
from collections.abc import Sequence

from rt2_jax.cli.data import add_data
from rt2_jax.cli.runs import add_eval, add_sample, add_train
from rt2_jax.cli.weights import add_convert, add_export, add_sizes
from rt2_jax.errors import UserError

DESCRIPTION = """\
RT-2 in JAX: vision-language-action models, co-fine-tuned on web and robot data.

The main job, in four commands (make demo runs them with the sizes of a laptop):
  rt2 data build   --data DATA                      write demonstrations (RLDS) and image-text data
  rt2 data prepare --data DATA                      turn them into tokens, ready to be trained on
  rt2 train --config configs/tabletop_demo.py --workdir RUN --config.data_dir=DATA
  rt2 eval  --checkpoint RUN --data DATA --out REPORT

Public weights come in by rt2 convert and go out by rt2 export; rt2 sizes says what each model holds and computes.
"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, its help included."""
    parser = argparse.ArgumentParser(
        prog="rt2", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add_data(verbs)
    add_convert(verbs)
    add_train(verbs)
    add_eval(verbs)
    add_sample(verbs)
    add_export(verbs)
    add_sizes(verbs)
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
