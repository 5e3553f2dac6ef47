"""Wrong JSON, made from right JSON by one change; every case is repeated by its number."""

import copy
import dataclasses
import json
import math
from typing import Any

import numpy as np

DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]

WRONG = (
    None, True, False, -1, 0, 0.5, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, -1e308, math.nan, math.inf,
    "", "x", "a\0b", "two\nlines", "\ud800", "x" * 100_000, "../../../etc/passwd", "/dev/zero", "\u202e\u4e00",
    [], [None], [[]], {}, {"": None}, {"x": {"x": 1}}, DEEP,
)  # fmt: skip
WHOLE = ("truncated", "noise", "spliced", "not UTF-8", "empty", "folder", "another value", "deep", "two values")


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One change.

    Attributes:
        what: in words: "card.space.high[3] = nan", "-model.text" (taken away), "+step.x" (added), "truncated".
        data: the bytes of the file; None: a folder takes its place.
        tree: what they hold; None where they are no JSON.
        same_type: a value changed, and neither its type nor the fields.
    """

    what: str
    data: bytes | None
    tree: Any = None
    same_type: bool = False

    @property
    def place(self) -> str:
        """`what` without the value."""
        return self.what.split(" = ")[0]


def mutate(tree, rng, dumps=lambda tree: json.dumps(tree, indent=2).encode()):
    """One change of a JSON tree, of a node four times in five."""
    if rng.random() < 0.2:
        return _of_the_whole(str(rng.choice(WHOLE)), tree, rng, dumps)
    changed, name = copy.deepcopy(tree), ""
    holder, key = {"": changed}, ""
    # Down by chance, so that a field is met as often as a list of 256 numbers.
    while isinstance(holder[key], dict | list) and holder[key] and (not name or rng.random() < 0.8):
        holder = holder[key]
        key = list(holder)[rng.integers(len(holder))] if isinstance(holder, dict) else int(rng.integers(len(holder)))
        name += f".{key}" if isinstance(holder, dict) else f"[{key}]"
    name = name.lstrip(".")
    kind, same_type = rng.random(), False
    if kind < 0.12:
        del holder[key]
        what = f"-{name}"
    elif kind < 0.2 and isinstance(holder, dict):
        holder["surplus"] = WRONG[rng.integers(len(WRONG))]
        what = f"+{name}"
    else:
        old, value = holder[key], WRONG[rng.integers(len(WRONG))]
        holder[key] = value
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (old, value))
        same_type = numbers or type(old) is type(value)
        shown = repr(value) if value is not DEEP else "[[...]]"
        what = f"{name} = {shown[:40]}"
    try:
        return Mutation(what, dumps(changed), changed, same_type)
    except (TypeError, ValueError, OverflowError):  # msgpack cannot hold it
        return _of_the_whole("truncated", tree, rng, dumps)


def _of_the_whole(what, tree, rng, dumps):
    data = dumps(tree)
    place = int(rng.integers(1, len(data) - 2))
    changed = {
        "truncated": data[:place],
        "noise": rng.bytes(len(data)),
        "spliced": data[:place] + rng.bytes(8) + data[place:],
        "not UTF-8": data[:place] + b"\xff\xfe" + data[place:],
        "empty": b"",
        "folder": None,
        "another value": [b"[]", b"1", b"null", b'"x"'][rng.integers(4)],
        "deep": b"[" * 100_000,
        "two values": data + data,
    }[what]
    return Mutation(what, changed)


def rng_of(name, number):
    """The generator of one case."""
    return np.random.default_rng([*name.encode(), number])


def put(mutation, path):
    """Writes the mutated file in its place."""
    if mutation.data is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(mutation.data)


def same(one, other):
    """Whether two trees mean the same: 1 is 1.0, but True is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other
