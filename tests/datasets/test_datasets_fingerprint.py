"""What counts of a function that makes examples, and what may change without anyone having to prepare again."""

import functools
import subprocess
import sys
import types

import pytest

from rt2_jax.datasets.fingerprint import fingerprint, fingerprints, home

MODULE = '''
"""Tasks of a team."""
import functools
import math
from math import floor as down

WORD = "one"
SCALE = {"x": 1}
SCALE["y"] = 2
WEIGHTS = {"mine": 0.5}


def helper(example):
    # Rounds.
    return (WORD, down(example) * SCALE["x"])


def other(example):
    return 2 * example


def steps(example):
    """What a robot did."""
    return helper(example)


def outer(lang, count=3):
    def inner(row, most=count):
        return lang, row[:most]

    return inner


class Prompt:
    LANG = "en"

    def __init__(self, lang):
        self.lang = lang

    def __call__(self, row):
        return self.ask(row)

    def ask(self, row):
        return self.lang, self.LANG, row


@functools.lru_cache
def cached(example):
    return other(example)


FUNCTIONS = {
    "steps": steps, "inner": outer("en"), "partial": functools.partial(other, 2), "prompt": Prompt("de"),
    "method": Prompt("de").ask, "lambda": lambda row: f"{WORD} {math.pi}", "cached": cached,
}


def register():
    return [steps, outer, WEIGHTS]
'''


@pytest.fixture
def functions(tmp_path):
    """The functions of a module of the given text, each time in another file."""

    def load(text):
        path = tmp_path / f"module_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        module = types.ModuleType("team")
        exec(compile(text, path, "exec"), module.__dict__)
        return module.FUNCTIONS

    return load


def changed(functions, old, new):
    assert MODULE.count(old) == 1
    one, other = functions(MODULE), functions(MODULE.replace(old, new))
    return {name for name in one if fingerprint(one[name]) != fingerprint(other[name])}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# Rounds.", "# Rounds down, as RT-2 did."),
        ('"""What a robot did."""', ""),
        ('"""What a robot did."""', '"""What it did."""'),
        ("return helper(example)", "return helper(\n        example,\n    )"),
        ('"""Tasks of a team."""', "\n\n\n\n"),
        ("from math import floor as down", "from math import ceil, floor as down"),
        ("import functools\nimport math", "import math, functools"),
        ('WEIGHTS = {"mine": 0.5}', 'WEIGHTS = {"mine": 0.7}'),
        ("return [steps, outer, WEIGHTS]", "return [steps, outer]"),
        ("def register", "def more(example):\n    return steps(example)\n\n\ndef register"),
    ],
)
def test_what_changes_no_example_does_not_count(functions, old, new):
    assert changed(functions, old, new) == set()


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("return helper(example)", "return helper(example + 1)", {"steps"}),
        ('WORD = "one"', 'WORD = "two"', {"steps", "lambda"}),
        ('SCALE["y"] = 2', 'SCALE["x"] = 2', {"steps"}),
        ("import floor as", "import ceil as", {"steps"}),
        ("return 2 * example", "return 3 * example", {"partial", "cached"}),
        ("partial(other, 2)", "partial(other, 4)", {"partial"}),
        ('outer("en")', 'outer("de")', {"inner"}),
        ('outer("en")', 'outer("en", 4)', {"inner"}),
        ('LANG = "en"', 'LANG = "fr"', {"prompt", "method"}),
        ('"prompt": Prompt("de")', '"prompt": Prompt("fr")', {"prompt"}),
        ("self.lang, self.LANG, row", "self.LANG, self.lang, row", {"prompt", "method"}),
        ("{WORD} {math.pi}", "{WORD}  {math.pi}", {"lambda"}),
    ],
)
def test_what_may_change_examples_counts(functions, old, new, names):
    assert changed(functions, old, new) == names


def test_a_process_has_no_say(tmp_path):
    (tmp_path / "team_tasks.py").write_text(MODULE + 'FUNCTIONS["sets"] = functools.partial(other, {"a", "b", "c"})\n')
    code = (
        "from rt2_jax.datasets.fingerprint import fingerprints; import team_tasks; "
        "print(sorted(fingerprints(team_tasks.FUNCTIONS).items()))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}", "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1] and found[0].count("(") == 8


def test_a_function_without_source_counts_by_its_name():
    space: dict = {}
    exec("def one(row):\n    return 1\n\ndef two(row):\n    return 1", space)
    same: dict = {}
    exec("def one(row):\n    return 2", same)
    assert fingerprint(space["one"]) == fingerprint(same["one"]) != fingerprint(space["two"])
    assert fingerprint(str) == fingerprint(str) != fingerprint(repr)


def test_functions_that_hold_each_other_and_themselves_have_an_end():
    def first(row):
        return second(row)

    def second(row):
        return first(row), held

    held = [first]
    held.append(held)
    assert len(fingerprint(first)) == 64


def test_settings_stand_as_they_are():
    made_by = {"steps": home, "use_last_step": True, "most": None}
    assert fingerprints(made_by) == {"steps": fingerprint(home), "use_last_step": "True", "most": "None"}
    assert home(functools.partial(home)) == "rt2_jax.datasets.fingerprint" and home(str) == "builtins"
