"""Types at the door: configs and JSON files become dataclasses whose every field has its type and lies in its limits.

A frozen dataclass says with its annotations what it takes: ``int``, ``float | None``, ``tuple[str, ...]``,
``dict[str, float]``, ``Literal["gelu", "silu"]``, another dataclass, and ``Annotated[int, msgspec.Meta(ge=1, le=64)]``
for limits. `check_fields` in its ``__post_init__`` holds it to them however it is made; `build` makes it from a mapping
and says where in the file the wrong value stands. An int stands for a float and a list for a tuple; nothing else is
converted: no bool is a number, no number with a fraction an int, and every number is finite.
"""

import dataclasses
import difflib
import functools
import math
import os
import pathlib
import reprlib
import stat
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec

from rt2_jax.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

# What every accelerator's index type holds.
INT_MAX = 2**31 - 1
Count = Annotated[int, msgspec.Meta(ge=1, le=INT_MAX)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
NotNegative = Annotated[float, msgspec.Meta(ge=0.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]
# No file system takes a longer path.
PathText = Annotated[str, msgspec.Meta(max_length=4096)]

MAX_JSON_BYTES = 256 << 20
MAX_DEPTH = 64
_SHOWN = 60


def check_fields(instance: Any, where: str, path: str = "") -> None:
    """Holds a frozen dataclass to its annotations; ints and lists that stand for floats and tuples are replaced.

    Args:
        instance: the dataclass, in its ``__post_init__``.
        where: what it is, for the message: "config".
        path: the field that holds it, where it is a part of something: "optimizer".

    Raises:
        UserError: one line that names the field, its value and what it needs.
    """
    for name, hint in _hints(type(instance)).items():
        value = getattr(instance, name)
        typed = _convert(value, hint, where, join(path, name))
        if typed is not value:
            object.__setattr__(instance, name, typed)


def build(cls: type[T], tree: Any, where: str, path: str = "", extra: bool = False) -> T:
    """The dataclass of a mapping of its fields, parts that are dataclasses included.

    Args:
        cls: a dataclass.
        tree: the mapping, as from JSON; an instance of `cls` passes as it is.
        where: the file or the like, for the message.
        path: the field of it that `tree` is.
        extra: fields that `cls` has not are passed over, as in a file that is made for more readers than us.

    Raises:
        UserError: an unknown or missing field, a wrong type or a value out of range; what the dataclass itself refuses.
    """
    if isinstance(tree, cls):
        return tree
    if not isinstance(tree, Mapping):
        raise _wrong_type(tree, cls, where, path)
    hints = _hints(cls)
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in () if extra else tree:
        if key not in known:
            raise UserError(f"{where}: unknown key {join(path, key)} = {shown(tree[key])}; {_hint(key, known, path)}")
    values = {}
    for name, field in known.items():
        if name in tree:
            values[name] = _convert(tree[name], hints[name], where, join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(
                f"{where}: {join(path, name)} is missing; set it to a value of type {_described(hints[name])}"
            )
    try:
        return cls(**values)
    except UserError as error:
        if str(error).startswith(f"{where}: "):
            raise
        raise UserError(f"{where}: {error}") from error


def read_json(path: str | pathlib.Path, what: str = "", fix: str = "write it anew") -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        what: what it is, for the message: "card".
        fix: how to get a right one.

    Raises:
        UserError: no such file, one that cannot be read, or anything but one JSON object.
    """
    where = f"{what} {shown_path(path)}".lstrip()
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{where} cannot be read (it is no file); {fix}")
            if status.st_size > MAX_JSON_BYTES:
                raise UserError(f"{where} has {status.st_size} bytes, at most {MAX_JSON_BYTES} are read; {fix}")
            data = file.read(MAX_JSON_BYTES)
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror}); {fix}") from error
    except ValueError as error:  # a path that no system call takes
        raise UserError(f"{where} cannot be read ({one_line(error)}); {fix}") from error
    tree = parse_json(data, where, fix)
    if not isinstance(tree, dict):
        raise UserError(f"{where} holds a {type(tree).__name__}, it must hold one JSON object; {fix}")
    return tree


def parse_json(data: bytes | str, where: str, fix: str = "write it anew") -> Any:
    """The value of a JSON text; NaN and infinities are none.

    Raises:
        UserError: no JSON, no UTF-8, or nested more than `MAX_DEPTH` levels deep.
    """
    try:
        tree = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise UserError(f"{where} is not JSON ({one_line(error)}); {fix}") from error
    except RecursionError as error:
        raise UserError(f"{where} is nested more than {MAX_DEPTH} levels deep; {fix}") from error
    if _deeper(tree, MAX_DEPTH):
        raise UserError(f"{where} is nested more than {MAX_DEPTH} levels deep; {fix}")
    return tree


def shown(value: Any) -> str:
    """A value in a message: one line of 60 characters at most."""
    return _cut(_SHORT.repr(value))


def shown_path(path: str | pathlib.Path) -> str:
    """A path in a message: whole where it can be one line."""
    text = str(path)
    return text if text.isprintable() and len(text) <= 300 else shown(text)


def join(path: str, key: Any) -> str:
    """The path of a field, "optimizer.learning_rate", in a message; a key of any kind is shown in one short line."""
    name = key if isinstance(key, str) and key.isprintable() and len(key) <= _SHOWN else shown(key)
    return f"{path}.{name}" if path else str(name)


def one_line(error: BaseException) -> str:
    """What an exception says, in one line of 200 characters at most."""
    text = str(error).strip() or type(error).__name__
    return "".join(char if char.isprintable() else " " for char in text.splitlines()[0][:200])


# --- from a value to its type -----------------------------------------------------------------------------------------


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _convert(value: Any, hint: Any, where: str, path: str) -> Any:
    """`value` as the annotated type; UserError that names `where` and `path`."""
    base, limits = _bare(hint)
    origin = typing.get_origin(base)
    if base is Any:
        return value
    if isinstance(base, type) and dataclasses.is_dataclass(base):
        return build(base, value, where, path)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(base)
        fitting = next((option for option in options if _outline(value, option)), None)
        if fitting is None:
            raise _wrong_type(value, base, where, path)
        return _convert(value, fitting, where, path)
    if not _outline(value, base):
        raise _wrong_type(value, base, where, path)
    if origin is dict:
        result = _typed_dict(value, base, where, path)
    elif origin is tuple:
        result = _typed_tuple(value, base, where, path)
    else:
        result = _typed_leaf(value, base, where, path)
    _check_limits(result, value, hint, limits, where, path)
    return result


def _bare(hint: Any) -> tuple[Any, tuple[msgspec.Meta, ...]]:
    if typing.get_origin(hint) is Annotated:
        return hint.__origin__, tuple(meta for meta in hint.__metadata__ if isinstance(meta, msgspec.Meta))
    return hint, ()


def _outline(value: Any, hint: Any) -> bool:
    """Whether a value is of the annotated kind, whatever it holds: which option of a union it is meant to be."""
    base, _ = _bare(hint)
    if dataclasses.is_dataclass(base):
        return isinstance(value, base | Mapping)
    origin = typing.get_origin(base)
    if origin is Literal:
        return isinstance(value, tuple(type(option) for option in typing.get_args(base)))
    if origin is dict:
        return isinstance(value, Mapping)
    if origin is tuple:
        return isinstance(value, tuple | list)
    if base is types.NoneType:
        return value is None
    if base is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if base is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, base)


def _typed_dict(value: Mapping[Any, Any], base: Any, where: str, path: str) -> dict[Any, Any]:
    key_hint, item_hint = typing.get_args(base)
    typed = {}
    for key, item in value.items():
        key = _convert(key, key_hint, where, path)
        typed[key] = _convert(item, item_hint, where, join(path, key))
    return typed


def _typed_tuple(value: Sequence[Any], base: Any, where: str, path: str) -> tuple[Any, ...]:
    hints = typing.get_args(base)
    hints = (hints[0],) * len(value) if hints[-1] is Ellipsis else hints
    if len(value) != len(hints):
        raise _wrong_type(value, base, where, path)
    typed = tuple(_convert(*pair, where, f"{path}[{i}]") for i, pair in enumerate(zip(value, hints, strict=True)))
    # The very object where nothing changed: `check_fields` then has nothing to replace.
    if isinstance(value, tuple) and all(new is old for new, old in zip(typed, value, strict=True)):
        return value
    return typed


def _typed_leaf(value: Any, base: Any, where: str, path: str) -> Any:
    # msgspec takes plain types alone, not those derived from them, as numpy's float64 is from float.
    plain = next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), None)
    value = plain(value) if plain is not None and type(value) is not plain else value
    try:
        typed = msgspec.convert(value, base, strict=True)
    except (msgspec.MsgspecError, OverflowError, UnicodeError) as error:
        if typing.get_origin(base) is Literal:
            allowed = ", ".join(str(option) for option in typing.get_args(base))
            raise UserError(f"{where}: {path} is {shown(value)}; allowed: {allowed}") from error
        raise _wrong_type(value, base, where, path) from error
    if isinstance(typed, float) and isinstance(value, int) and int(typed) != value:
        raise UserError(f"{where}: {path} is {shown(value)}, which no float holds exactly; change the value")
    if isinstance(typed, str) and any(char == "\0" or "\ud800" <= char <= "\udfff" for char in typed):
        raise UserError(f"{where}: {path} is {shown(value)}, which holds a character that is no text; change the value")
    return typed


def _check_limits(typed: Any, value: Any, hint: Any, limits: tuple[msgspec.Meta, ...], where: str, path: str) -> None:
    finite = not isinstance(typed, float) or math.isfinite(typed)
    inside = finite
    if finite and limits:
        if isinstance(typed, tuple | dict):
            inside = all((meta.min_length or 0) <= len(typed) <= (meta.max_length or len(typed)) for meta in limits)
        else:
            try:
                msgspec.convert(typed, hint, strict=True)
            except msgspec.ValidationError:
                inside = False
    if not inside:
        allowed = ", ".join([*(_limit(meta, typed) for meta in limits), *(() if finite else ("finite",))])
        raise UserError(f"{where}: {path} is {shown(value)}, allowed: {allowed}; change the value")


# --- words for messages -----------------------------------------------------------------------------------------------


def _wrong_type(value: Any, hint: Any, where: str, path: str) -> UserError:
    kind = type(value).__name__
    if not path:
        return UserError(f"{where}: holds a {kind}, needs {_described(hint)}")
    said = shown(value) if value is None else f"{shown(value)} ({kind})"
    if dataclasses.is_dataclass(hint):
        said = shown(value)
    return UserError(f"{where}: {path} is {said}, needs {_described(hint)}; change the value")


def _described(hint: Any) -> str:
    base, limits = _bare(hint)
    origin, arguments = typing.get_origin(base), typing.get_args(base)
    if isinstance(base, type) and dataclasses.is_dataclass(base):
        return f"a group of the fields of {base.__name__}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_described(option) for option in arguments)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is dict:
        return f"a dict of {_described(arguments[1])}"
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list of {_described(arguments[0])}"
        return f"a list of {len(arguments)} ({', '.join(map(_described, arguments))})"
    name = {types.NoneType: "None", Any: "any value"}.get(base) or base.__name__
    numbers = [_limit(meta, 0) for meta in limits if base in (int, float)]
    return f"{name} {' and '.join(numbers)}" if numbers else name


def _limit(meta: msgspec.Meta, value: Any) -> str:
    if isinstance(value, str | tuple | dict):
        things = "characters" if isinstance(value, str) else "entries"
        low, high = meta.min_length, meta.max_length
        return f"at least {low} {things}" if high is None else f"{low or 0} to {high} {things}"
    low = meta.ge if meta.gt is None else f"above {meta.gt}"
    high = meta.le if meta.lt is None else f"below {meta.lt}"
    if high is None:
        return low if isinstance(low, str) else f"at least {low}"
    if low is None:
        return high if isinstance(high, str) else f"at most {high}"
    return f"{low} to {high}"


def _hint(key: Any, known: Iterable[str], path: str) -> str:
    # A key of any length can come in; none close to a name is longer than this.
    close = difflib.get_close_matches(str(key)[:_SHOWN], known, n=1)
    return f"did you mean {join(path, close[0])}?" if close else f"allowed: {', '.join(sorted(known))}"


class _Short(reprlib.Repr):
    """Short whatever the value: a number of a million digits, a list that holds itself."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, _SHOWN, _SHOWN

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write out integers of more than some thousands of digits."""
        if x.bit_length() > 200:
            return f"{'-' if x < 0 else ''}2**{x.bit_length() - 1} or more"
        return repr(x)


_SHORT = _Short()


def _cut(text: str) -> str:
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _deeper(tree: Any, limit: int) -> bool:
    """Whether lists and dicts are nested more than `limit` levels deep; without recursion."""
    level = [tree] if isinstance(tree, dict | list) else []
    for _ in range(limit):
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, dict | list)]
    return bool(level)
