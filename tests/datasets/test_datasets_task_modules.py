import itertools

import pytest

from rt2_jax.datasets.task_modules import registered_by
from rt2_jax.errors import UserError

NUMBERS = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of the given text and gives its name, another one each time."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text):
        name = f"tasks_of_a_user_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("raise ValueError('no\\nsense')", r"cannot be imported \(ValueError: no at .*\.py:1\)"),
        ("import sys\nsys.exit(0)", r"cannot be imported \(SystemExit: 0 at .*\.py:2\)"),
        ("def register(:", r"cannot be imported \(SyntaxError: "),
        ("\0", r"cannot be imported \("),
        ("import no_such_thing", r"No module named 'no_such_thing'"),
        ("from json import no_such_name", r"cannot be imported \(ImportError: "),
        ("class Odd(Exception):\n    pass\nraise Odd", r"\(Odd: no message at "),
        ("", "has no register"),
        ("register = 5", "has no register"),
        ("def register():\n    return []", "register raised TypeError: "),
        (
            "def register(data_dir, vocabulary):\n    return 1 / 0",
            r"register raised ZeroDivisionError: .*\.py:2; fix it",
        ),
        ("def register(data_dir, vocabulary):\n    raise SystemExit", "register raised SystemExit: "),
        ("def register(data_dir, vocabulary):\n    register(data_dir, vocabulary)", "register raised RecursionError"),
        ("def register(data_dir, vocabulary):\n    return 'name'", "register returned 'name', needs a list"),
        ("def register(data_dir, vocabulary):\n    return [1]", r"register returned '\[1\]', needs a list"),
        ("def register(data_dir, vocabulary):\n    return 5", "register returned '5', needs a list"),
    ],
)
def test_whatever_is_wrong_is_one_line(module, tmp_path, text, named):
    name = module(text)
    with pytest.raises(UserError, match=named) as caught:
        registered_by(name, tmp_path, None)
    assert str(caught.value).startswith(f"task module {name!r}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_module", "no.such", "a/b", ".relative", ".."])
def test_a_name_that_is_no_module_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="cannot be imported"):
        registered_by(name, tmp_path, None)


def test_names_come_back(module, tmp_path):
    assert registered_by(module("def register(d, v):\n    return ('a', 'b')"), tmp_path, None) == ["a", "b"]
    assert registered_by(module("def register(d, v):\n    pass"), tmp_path, None) == []
    with pytest.raises(UserError, match="^the user's own words$"):
        text = 'from rt2_jax.errors import UserError\ndef register(d, v):\n    raise UserError("the user\'s own words")'
        registered_by(module(text), tmp_path, None)
