"""Whatever a config or JSON file holds, the answer is a valid object or one line: nothing else, nothing in silence."""

import copy
import dataclasses
import json
import math
import os
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.actions import ActionBins, ActionSpace, arm_space, card_from_json, card_to_json, load_card
from rt2_jax.errors import UserError
from rt2_jax.models import ModelConfig, get_config
from rt2_jax.train.config import make_config
from rt2_jax.train.resolve import model_config
from rt2_jax.typed import MAX_DEPTH, build, check_fields, join, parse_json, read_json, shown


@dataclasses.dataclass(frozen=True)
class Part:
    size: Annotated[int, msgspec.Meta(ge=1, le=8)]
    kind: Literal["a", "b"] = "a"

    def __post_init__(self):
        check_fields(self, "test", "part")


@dataclasses.dataclass(frozen=True)
class Whole:
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=5)]
    part: Part | None = None
    rates: tuple[Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)], ...] = ()
    pairs: tuple[tuple[str, int], ...] = ()
    sizes: dict[str, float] = dataclasses.field(default_factory=dict)
    either: str | dict[str, int] | None = None
    on: bool = False
    rest: Any = None

    def __post_init__(self):
        check_fields(self, "test")
        if self.on and not self.rates:
            raise UserError("on needs rates")


def test_what_is_right_is_taken_and_means_the_same():
    whole = build(Whole, {"name": "n", "part": {"size": 3}, "rates": [0, 0.5], "pairs": [["a", 1]]}, "file")
    assert whole == Whole("n", Part(3), (0.0, 0.5), (("a", 1),))
    assert [type(rate) for rate in whole.rates] == [float, float] and hash(whole.rates)
    assert build(Whole, whole, "file") is whole
    assert Whole("n", rates=[0]).rates == (0.0,) and Whole("n", either={"a": 1}).either == {"a": 1}
    assert build(Part, {"size": 1, "later": 2}, "file", extra=True) == Part(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nme": 1}, "file: unknown key x.nme = 1; did you mean x.name?"),
        ({"zzz": [1] * 999}, "file: unknown key x.zzz = [1, 1, 1, 1, 1, 1, ...]; allowed: either, name, on, pairs"),
        ({"name": 3}, "file: x.name is 3 (int), needs str; change the value"),
        ({"name": ""}, "file: x.name is '', allowed: 1 to 5 characters; change the value"),
        ({"name": "a\0"}, r"file: x.name is 'a\x00', which holds a character that is no text"),
        ({"name": "\ud800"}, r"file: x.name is '\ud800', which holds a character that is no text"),
        ({"part": 3}, "file: x.part is 3 (int), needs a group of the fields of Part or None"),
        ({"part": {}}, "file: x.part.size is missing; set it to a value of type int 1 to 8"),
        ({"part": {"size": 9}}, "file: x.part.size is 9, allowed: 1 to 8"),
        ({"part": {"size": True}}, "file: x.part.size is True (bool), needs int"),
        ({"part": {"size": 2.0}}, "file: x.part.size is 2.0 (float), needs int"),
        ({"part": {"size": 10**5000}}, "file: x.part.size is 2**16609 or more, allowed: 1 to 8"),
        ({"part": {"size": 1, "kind": "c"}}, "file: x.part.kind is 'c'; allowed: a, b"),
        ({"part": {"size": 1, "kind": ["c"]}}, "file: x.part.kind is ['c'] (list), needs 'a' or 'b'"),
        ({"rates": 0.5}, "file: x.rates is 0.5 (float), needs a list of float"),
        ({"rates": [0, 1]}, "file: x.rates[1] is 1, allowed: 0.0 to below 1.0"),
        ({"rates": [math.nan]}, "file: x.rates[0] is nan, allowed: 0.0 to below 1.0, finite"),
        ({"rates": [False]}, "file: x.rates[0] is False (bool), needs float"),
        ({"pairs": [["a"]]}, "file: x.pairs[0] is ['a'] (list), needs a list of 2 (str, int)"),
        ({"sizes": {"a": "b"}}, "file: x.sizes.a is 'b' (str), needs float"),
        ({"sizes": {"a\n": 10**400}}, r"file: x.sizes.'a\n' is 2**1328 or more"),
        ({"sizes": {"a": 2**53 + 1}}, "file: x.sizes.a is 9007199254740993, which no float holds exactly"),
        ({"sizes": {"a": math.inf}}, "file: x.sizes.a is inf, allowed: finite"),
        ({"either": {"a": 0.5}}, "file: x.either.a is 0.5 (float), needs int"),
        ({"either": 5}, "file: x.either is 5 (int), needs str or a dict of int or None"),
        ({"on": 1}, "file: x.on is 1 (int), needs bool"),
        ({"on": None}, "file: x.on is None, needs bool"),
        ({"on": True}, "file: on needs rates"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(change, message):
    with pytest.raises(UserError) as caught:
        build(Whole, {"name": "n", **change}, "file", "x")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_direct_construction_and_replace_are_checked():
    with pytest.raises(UserError, match="test: part.size is 0, allowed: 1 to 8"):
        Part(0)
    with pytest.raises(UserError, match="test: part.size is 9"):
        dataclasses.replace(Part(1), size=9)
    with pytest.raises(UserError, match="file: holds a list, needs a group of the fields of Part"):
        build(Part, [], "file")


def test_messages_stay_short_whatever_the_value():
    endless = []
    endless.append(endless)
    for value in (endless, "x" * 10**6, {"a" * 10**6: [[[[[1]]]]]}, 10**10_000, "\n\x1b[31m", object(), [10**5000]):
        assert len(shown(value)) <= 60 and shown(value).isprintable()
    assert join("a", "b") == "a.b" and len(join("a", "b" * 1000)) < 70 and "\n" not in join("", "a\n")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b'{"a": NaN}', "is not JSON"),
        (b'{"a": 1e400}', "is not JSON"),
        (b'{"a": "\xff"}', "is not JSON"),
        (b'{"a": "\\ud800"}', "is not JSON"),
        (b"\x00" * 99, "is not JSON"),
        (b"[" * 100_000, "levels deep"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "levels deep"),
        (b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "levels deep"),
        (b"[1]", "holds a list, it must hold one JSON object"),
        (b"3", "holds a int, it must hold one JSON object"),
    ],
)
def test_what_is_no_json_object_is_said_in_one_line(data, message, tmp_path):
    path = tmp_path / "card.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read_json(path, "card", "fetch it again")
    text = str(caught.value)
    assert text.startswith(f"card {path} ") and text.endswith("; fetch it again") and "\n" not in text
    assert parse_json(b'{"a":' + b"[" * 60 + b"]" * 60 + b"}", "text")


@pytest.mark.parametrize("name", ["none.json", ".", "x" * 300, "x" * 5000, "a\0b", "file.json/below", "loop", "\ud800"])
def test_what_cannot_be_read_is_said_in_one_line(name, tmp_path):
    (tmp_path / "file.json").write_text("{}")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="cannot be read") as caught:
        read_json(f"{tmp_path}/{name}")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_pipe_is_no_file():
    """Nothing is waited for that no one may ever write."""
    with pytest.raises(UserError, match="it is no file"):
        read_json(os.devnull)


@given(st.binary(max_size=40))
def test_any_bytes_are_json_or_one_line(data):
    try:
        tree = parse_json(data, "text")
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert tree == json.loads(data)


# --- every tree that we read, damaged ---------------------------------------------------------------------------------

TRAIN = make_config(
    {
        "data_dir": "d",
        "mixture": {"a": 1, "b": 2.5},
        "steps": 5,
        "batch_size": 4,
        "model": {"size": "tiny", "text": {"heads": 4}},
        "optimizer": {"name": "adamw", "beta1": 0.9},
        "lora": {"pattern": ".*", "rank": 2, "alpha": 4.0},
        "freeze": [[".*", "train"]],
        "mesh": {"data": -1},
        "augment": {"shift": 4},
        "may_change": ["z_loss"],
        "init_from": "runs/x",
    }
)
SPACE = arm_space(0.04, 0.3)
# Name -> (a valid tree, tree -> object, object -> tree).
READERS = {
    "encoder-decoder": (get_config("tiny").to_json(), ModelConfig.from_json, ModelConfig.to_json),
    "prefix LM": (get_config("paligemma2_3b").to_json(), ModelConfig.from_json, ModelConfig.to_json),
    "space": (SPACE.to_json(), ActionSpace.from_json, ActionSpace.to_json),
    "bins": (ActionBins(SPACE).to_json(), ActionBins.from_json, ActionBins.to_json),
    "card": (card_to_json(load_card("fractal20220817_data")), card_from_json, card_to_json),
    "train": (json.loads(TRAIN.to_json()), make_config, lambda config: json.loads(config.to_json())),
}
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 300),
    st.sampled_from((2**31, -(2**63), 2**64, 10**30, 10**400)),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(("", "tiny", "gelu", "constant", "\0", "a\nb", "x" * 5000, "(", "\ud800")),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(tree, path=()):
    """Every node's path, the root's included."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


@st.composite
def damaged(draw, tree):
    """A tree with one to three nodes replaced, removed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(sorted(places(tree), key=str)))
        how = draw(st.sampled_from(("replace", "remove", "add")))
        if not path:
            return draw(VALUES) if how == "replace" else tree
        node = tree
        for key in path[:-1]:
            node = node[key]
        if how == "replace":
            node[path[-1]] = draw(VALUES)
        elif how == "remove":
            del node[path[-1]]
        elif isinstance(node, dict):
            node[draw(st.text(max_size=5))] = draw(VALUES)
    return tree


def holds(found, told):
    """Whether all that a file told is in what was read, defaults beside it; True and 1 are two things."""
    if isinstance(told, dict):
        return isinstance(found, dict) and all(holds(found.get(key), value) for key, value in told.items())
    if isinstance(told, list | tuple):
        return len(found) == len(told) and all(map(holds, found, told))
    return found == told and isinstance(found, bool) == isinstance(told, bool)


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_a_damaged_tree_is_valid_or_one_line(name, data):
    valid, read, write = READERS[name]
    tree = data.draw(damaged(valid))
    try:
        found = read(tree)
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 2000
    else:
        assert holds(write(found), tree)
        assert read(write(found)) == found


@pytest.mark.parametrize("name", READERS)
def test_each_valid_tree_comes_back(name):
    valid, read, write = READERS[name]
    assert holds(write(read(valid)), valid)


@given(data=st.data(), size=st.sampled_from(("tiny", "tiny_palm_e")))
def test_a_damaged_model_of_a_config_is_valid_or_one_line(data, size):
    tree = get_config(size).to_json()
    del tree["vocab_size"]
    tree = data.draw(damaged({"size": size, **tree}))
    try:
        config = make_config({"data_dir": "d", "mixture": "m", "steps": 1, "batch_size": 1, "model": tree})
        model_config(config, SimpleNamespace(size=2304, image_id=7))
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 2000
