"""How numbers and names read, on the page and in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

CONTROL_LABELS: dict[str, str] = {
    "wrong_instruction": "control: told to do something else",
    "other_image": "control: shown another scene",
}
_UNITS = {"cm": " cm", "deg": "°"}


def percent(value: float | None) -> str:
    """A share in whole percent; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.0f}%"


def interval_words(interval: Sequence[float]) -> str:
    """The ends of a share's interval."""
    return f"{100 * interval[0]:.0f}–{100 * interval[1]:.0f}%"


def measure_words(measure: Mapping[str, Any]) -> str:
    """A mean, and the ends of its interval where it has one."""
    ends = measure["interval"]
    return f"{measure['mean']:.4g}" + (f" ({ends[0]:.4g} to {ends[1]:.4g})" if ends else "")


def run_words(control: str | None) -> str:
    """What was run: the policy, or one of its controls."""
    return CONTROL_LABELS.get(control or "", "policy").removeprefix("control: ")


def spaced(name: str) -> str:
    """An identifier as words."""
    return name.replace("_", " ")


def unit_words(unit: str) -> str:
    """A unit as it follows its number."""
    return _UNITS.get(unit, f" {unit}" if unit else "")
