"""Wrong values for every option of the command line, by the type that the option is declared with."""

import argparse

from rt2_jax.cli import build_parser
from rt2_jax.cli.parsing import Range

BAD_TEXTS = ["", " ", "\t\n", "\udcff", "caf\udce9", "\ud800"]
BAD = {
    "path": ["", "\udcff", "a\0b", "~nosuchuser_of_mine/x", "n" * 256, "\u00e9" * 128, "a/" * 2100 + "a"],
    "text": BAD_TEXTS,
    "_alias": [*BAD_TEXTS, "image", "=image", "image=", "="],
    "names": [*BAD_TEXTS, ",", "a,", ",a", "a,,b", "a,b,a", "a, ,b", "a,\udcff"],
    "pattern": [*BAD_TEXTS, "(", "[", "*", "a{2,1}", "(?P<1>x)", "a{99999999999999999999}"],
    "range": [
        "",
        "x",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "-1e400",
        "9" * 5000,
        "0x10",
        "1 2",
        "\udcff",
        "\u4e00",
        "-1e9",
        "1e99",
    ],
}


def typed_options():
    """(words of a verb, option, its type) for every option of every verb that takes a value."""

    def walk(parser, words):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    yield from walk(child, [*words, name])
            elif action.option_strings and action.type is not None:
                yield words, action.option_strings[0], action.type
            elif action.option_strings and action.nargs is None:
                assert action.choices, f"{words} {action.option_strings} takes any text"

    return list(walk(build_parser(), []))


def bad_values(kind):
    """Texts that an option of this type must refuse."""
    values = BAD["range" if isinstance(kind, Range) else kind.__name__]
    if not isinstance(kind, Range):
        return values
    beyond = [str(kind.low - 1), str(kind.high + 1), str(10 * kind.high)]
    return [*values, *beyond, *(["0.5"] if kind.kind is int else [])]
