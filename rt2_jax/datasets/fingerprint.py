"""What a function does, as one hash: prepared data tell by it that a function which makes their examples has changed.

What counts of a function: its syntax tree, without comments, formatting and docstrings; all of its module that it
reaches by name, such as helpers and constants; of a method, its class; and of what it holds (closure, defaults, the
arguments of a `functools.partial`) the functions and the plain values: numbers, texts, None, and tuples, lists, sets
and dicts of them. Whatever else the module has may change: other tasks, the mixtures' weights.

What cannot be seen: what another module does that this one imports; other values that it holds, such as arrays; what
code elsewhere assigns to a name of the module while it runs. A function without source (one that is typed into an
interpreter, or not written in Python) counts by its name alone.
"""

import ast
import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_PLAIN = (bool, int, float, str, bytes, type(None))
_END = object()
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def fingerprints(made_by: Mapping[str, Any]) -> dict[str, str]:
    """What is compared of that which something is made by: of functions their `fingerprint`, plain values as text."""
    return {name: fingerprint(value) if callable(value) else repr(value) for name, value in made_by.items()}


def fingerprint(function: Callable[..., Any]) -> str:
    """SHA-256, in hexadecimal, of what counts of a function."""
    return _digest(function, {})


def home(function: Callable[..., Any]) -> str:
    """The module that a function is defined in."""
    while isinstance(function, functools.partial | types.MethodType):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return getattr(function, "__module__", None) or type(function).__module__


def _digest(value: Any, seen: dict[int, tuple[Any, str]]) -> str:
    """What counts of a value. `seen` holds what is done: by its id, and itself, so that no other gets its id."""
    if type(value) in _PLAIN:
        return repr(value)
    if id(value) not in seen:
        seen[id(value)] = value, "itself"
        text = _told(value, functools.partial(_digest, seen=seen))
        seen[id(value)] = value, hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return seen[id(value)][1]


def _told(value: Any, digest: Callable[[Any], str]) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(digest, value))}]"
    if isinstance(value, set | frozenset):
        return f"set [{', '.join(sorted(map(digest, value)))}]"
    if isinstance(value, dict):
        return f"dict [{', '.join(f'{digest(key)}: {digest(item)}' for key, item in value.items())}]"
    if isinstance(value, functools.partial):
        return digest([value.func, value.args, value.keywords])
    if isinstance(value, types.MethodType):
        return digest([value.__func__, getattr(value.__self__, "__dict__", None)])
    if isinstance(value, types.FunctionType):
        return f"{_source(value)} holding {digest(_held(value))}"
    if not callable(value):
        return "?"
    wrapped = getattr(value, "__wrapped__", None)
    if wrapped is not None:
        return digest(wrapped)
    call = inspect.getattr_static(type(value), "__call__")
    if isinstance(call, types.FunctionType):
        return digest([call, getattr(value, "__dict__", None)])
    return _name(value)


def _held(function: types.FunctionType) -> list[Any]:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            cells.append(None)
    return [cells, function.__defaults__, function.__kwdefaults__]


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _source(function: types.FunctionType) -> str:
    try:
        tree = _parsed("".join(inspect.findsource(function)[0]))
    except (OSError, TypeError, ValueError, SyntaxError, RecursionError):
        return _name(function)
    return " ".join(token for node in _reached(tree, _nodes(tree, function.__code__)) for token in _syntax(node))


@functools.lru_cache(maxsize=16)
def _parsed(source: str) -> ast.Module:
    """A module, with an import of several names as one each: which others are imported does not count."""
    tree, body = ast.parse(source), list[ast.stmt]()
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            body += [ast.Import([alias]) for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            body += [ast.ImportFrom(statement.module, [alias], statement.level) for alias in statement.names]
        else:
            body.append(statement)
    return ast.Module(body, [])


def _nodes(tree: ast.Module, code: types.CodeType) -> list[ast.AST]:
    """Where a function is defined: its node, of a method its class's, and the whole module where neither is found."""
    found = [node for node in ast.walk(tree) if _is_of(node, code)]
    for one in ast.walk(tree):
        if isinstance(one, ast.ClassDef) and any(node in found for node in ast.walk(one)):
            return [one]
    return found or list(tree.body)


def _is_of(node: ast.AST, code: types.CodeType) -> bool:
    if isinstance(node, ast.Lambda):  # all those of a line, which nothing tells apart
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name != code.co_name:
        return False
    return code.co_firstlineno == min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _reached(tree: ast.Module, start: list[ast.AST]) -> list[ast.AST]:
    """The nodes that one starts from, and the module's statements that give a meaning to a name in what is reached."""
    reached, names = list(start), set[str]()
    left = [statement for statement in tree.body if statement not in start]
    for node in reached:  # which grows
        names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        reached += [statement for statement in left if names & _bound(statement)]
        left = [statement for statement in left if statement not in reached]
    return [*start, *(statement for statement in tree.body if statement in reached and statement not in start)]


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement gives a meaning, or changes, as in ``table["x"] = 1`` and ``table.update(...)``."""
    if isinstance(statement, Definition):
        return {statement.name}
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, Definition):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        # An expression that stands alone is there for what it does to what it names.
        elif isinstance(node, ast.Expr) or not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return names


def _syntax(node: ast.AST) -> Iterator[str]:
    """The tokens of a syntax tree, the same in every release of Python; long sums nest deeper than Python recurses."""
    stack: list[Any] = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, ast.AST):
            fields = [
                (name, value)
                for name, value in ast.iter_fields(item)
                # Fields that a release adds are empty where its syntax is not used.
                if value is not None and value != [] and name not in ("kind", "type_comment")
            ]
            yield f"{type(item).__name__}("
            stack.append(_END)
            stack.extend(value for _, value in reversed(fields))
            yield ",".join(name for name, _ in fields)
        elif isinstance(item, list):
            yield "["
            stack.append(_END)
            stack.extend(value for value in reversed(item) if not _is_text_alone(value))
        else:
            yield ")" if item is _END else repr(item)


def _is_text_alone(node: Any) -> bool:
    """Whether a statement is a docstring, or another text that does nothing."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
