"""Physical actions and the integers that stand for them: spaces, bins, embodiments and their cards. numpy only.

Names are looked up when they are used: `envelope` is imported on robots' computers, which need not have msgspec.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rt2_jax.actions.bins import ActionBins
    from rt2_jax.actions.embodiment import (
        ActionStatistics,
        Embodiment,
        action_statistics,
        card_from_json,
        card_to_json,
        load_card,
        save_card,
    )
    from rt2_jax.actions.envelope import Bounds, Envelope, Guard, Guarded
    from rt2_jax.actions.space import ARM, ActionSpace, arm_space

__all__ = [
    "ARM",
    "ActionBins",
    "ActionSpace",
    "ActionStatistics",
    "Bounds",
    "Embodiment",
    "Envelope",
    "Guard",
    "Guarded",
    "action_statistics",
    "arm_space",
    "card_from_json",
    "card_to_json",
    "load_card",
    "save_card",
]

_HOMES = {
    "bins": ("ActionBins",),
    "envelope": ("Bounds", "Envelope", "Guard", "Guarded"),
    "space": ("ARM", "ActionSpace", "arm_space"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "embodiment")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
