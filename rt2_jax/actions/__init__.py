"""Physical actions and the integers that stand for them: spaces, bins, embodiments and their cards. numpy only."""

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
from rt2_jax.actions.space import ARM, ActionSpace, arm_space

__all__ = [
    "ARM",
    "ActionBins",
    "ActionSpace",
    "ActionStatistics",
    "Embodiment",
    "action_statistics",
    "arm_space",
    "card_from_json",
    "card_to_json",
    "load_card",
    "save_card",
]
