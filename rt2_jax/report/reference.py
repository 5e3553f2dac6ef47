"""What a split is called, which group it belongs to, and what the RT-2 paper measured there.

The paper's figures (arXiv 2307.15818, figures 4 and 6a, tables 4 and 5) come from a real mobile manipulator in office
kitchens, with other objects, instructions and judges. They stand beside a simulated evaluation for orientation only,
and the report says so wherever it shows them.
"""

import dataclasses

RT1 = "RT-1"
RT2_PALI_X = "RT-2-PaLI-X-55B"
RT2_PALM_E = "RT-2-PaLM-E-12B"
PAPER_MODELS: tuple[str, ...] = (RT1, RT2_PALI_X, RT2_PALM_E)

GROUPS: dict[str, str] = {
    "seen": "Seen tasks",
    "unseen": "Unseen objects, backgrounds, environments",
    "emergent": "Emergent: known from the web only",
    "other": "Other splits",
}


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """How the report shows a split: `paper` has success rates in percent for `PAPER_MODELS`, in that order."""

    label: str
    group: str
    paper: tuple[int, int, int] | None = None


SPLITS: dict[str, SplitFacts] = {
    "seen": SplitFacts("Seen", "seen", (92, 91, 93)),
    "unseen_objects_easy": SplitFacts("Objects, easy", "unseen", (31, 70, 84)),
    "unseen_objects_hard": SplitFacts("Objects, hard", "unseen", (43, 62, 76)),
    "unseen_backgrounds_easy": SplitFacts("Backgrounds, easy", "unseen", (71, 96, 75)),
    "unseen_backgrounds_hard": SplitFacts("Backgrounds, hard", "unseen", (9, 48, 71)),
    "unseen_environments_easy": SplitFacts("Environments, easy", "unseen", (26, 63, 36)),
    "unseen_environments_hard": SplitFacts("Environments, hard", "unseen", (14, 35, 33)),
    "symbols": SplitFacts("Symbols", "emergent", (16, 82, 36)),
    "reasoning": SplitFacts("Reasoning", "emergent", (16, 46, 43)),
    "persons": SplitFacts("Persons", "emergent", (20, 53, 43)),
}


def split_facts(split: str) -> SplitFacts:
    """A split's facts; one that this table does not know keeps its name and has no figures beside it."""
    return SPLITS.get(split) or SplitFacts(split.replace("_", " ").capitalize(), "other")
