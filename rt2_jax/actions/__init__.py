"""Physical actions and their 256 bins: spaces, binning, dataset cards. numpy only."""

from rt2_jax.actions.bins import ActionBins
from rt2_jax.actions.card import (
    ActionStatistics,
    DatasetCard,
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
    "DatasetCard",
    "action_statistics",
    "arm_space",
    "card_from_json",
    "card_to_json",
    "load_card",
    "save_card",
]
