"""What groups of splits are called, and what the RT-2 paper measured on the splits that the tabletop imitates.

The paper's figures (arXiv 2307.15818, figures 4 and 6a, tables 4 and 5) come from a real mobile manipulator in office
kitchens, with other objects, instructions and judges. They stand beside a simulated evaluation for orientation only,
and the report says so wherever it shows them.
"""

from collections.abc import Mapping
from typing import Any

from rt2_jax.evaluate.run import TABLETOP

RT1 = "RT-1"
RT2_PALI_X = "RT-2-PaLI-X-55B"
RT2_PALM_E = "RT-2-PaLM-E-12B"
PAPER_MODELS: tuple[str, ...] = (RT1, RT2_PALI_X, RT2_PALM_E)

GROUPS: dict[str, str] = {
    "seen": "Seen tasks",
    "unseen": "Unseen objects, backgrounds, environments",
    "emergent": "Emergent: known from the web only",
    "other": "Tasks",
}
# Success rates in percent for `PAPER_MODELS`, in that order.
PAPER: dict[str, tuple[int, int, int]] = {
    "seen": (92, 91, 93),
    "unseen_objects_easy": (31, 70, 84),
    "unseen_objects_hard": (43, 62, 76),
    "unseen_backgrounds_easy": (71, 96, 75),
    "unseen_backgrounds_hard": (9, 48, 71),
    "unseen_environments_easy": (26, 63, 36),
    "unseen_environments_hard": (14, 35, 33),
    "symbols": (16, 82, 36),
    "reasoning": (16, 46, 43),
    "persons": (20, 53, 43),
}


def paper_figures(report: Mapping[str, Any], split: str) -> tuple[int, int, int] | None:
    """The paper's rates on a split of a report; None where the report is of another environment than the tabletop."""
    return PAPER.get(split) if report["environment"] == TABLETOP else None
