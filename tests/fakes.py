"""Reports, films and policies to test with, made without a model."""

import types

import numpy as np

from rt2_jax.actions import ActionBins, arm_space
from rt2_jax.evaluate.results import (
    ActionScores,
    ClosedLoopResult,
    DimensionScores,
    EpisodeOutcome,
    Film,
    Metric,
    Sample,
    SkillResult,
    Timing,
    WebScores,
)
from rt2_jax.evaluate.statistics import wilson_interval
from rt2_jax.report import document

BINS = ActionBins(arm_space(translation=0.04, rotation=0.3))
STAY = np.array([0, 0, 0, 0, 0, 0, 0, -1], np.float32)


def acting(actions):
    """What Policy.act returns, for float32[B, 8]."""
    bins = BINS.encode(np.asarray(actions, np.float32))
    texts = [" ".join(map(str, row)) for row in bins]
    return types.SimpleNamespace(actions=BINS.decode(bins), bins=bins, text=texts)


def outcomes(successes, episodes, told="reach the red cube"):
    return tuple(
        EpisodeOutcome(seed, seed < successes, 7, seed % 2 == 0, "reach the red cube", told) for seed in range(episodes)
    )


# Label and group of a few splits.
SPLITS = {
    "seen": ("Seen", "seen"),
    "unseen_objects_easy": ("Objects, easy", "unseen"),
    "unseen_objects_hard": ("Objects, hard", "unseen"),
    "symbols": ("Symbols", "emergent"),
}


def skill_result(split, skill, control, successes, episodes):
    told = "reach the blue ball" if control == "wrong_instruction" else "reach the red cube"
    return SkillResult(split, *SPLITS[split], skill, control, "action", 40, outcomes(successes, episodes, told))


def film(
    split="seen", skill="reach", control=None, success=True, frames=5, seed=0, text="1 128", instruction="reach it"
):
    rng = np.random.default_rng(seed)
    # Smooth pictures, as rendered ones are: WebP keeps them closely.
    base = np.linspace(0, 200, 24, dtype=np.uint8)
    images = np.stack([np.broadcast_to(base[:, None, None] + 2 * t, (24, 24, 3)) for t in range(frames)])
    actions = np.clip(rng.normal(0, 0.01, (frames, 8)), -0.03, 0.03).astype(np.float32)
    actions[:, 0] = 0
    output = acting(actions)
    outcome = EpisodeOutcome(seed, success, frames, True, instruction, instruction)
    steps = np.arange(frames, dtype=np.int32)
    return Film(
        split=split,
        label=SPLITS[split][0],
        skill=skill,
        control=control,
        outcome=outcome,
        frames=images,
        steps=steps,
        actions=output.actions,
        bins=output.bins,
        names=BINS.space.names,
        units=BINS.space.units,
        kinds=BINS.space.kinds,
        texts=(text,) * frames,
    )


def web_scores(share=0.8):
    hits = round(100 * share)
    headline = Metric("exact match", share, "fraction", wilson_interval(hits, 100))
    distance = Metric("mean distance", 4.2, "percent of frame", None, higher_is_better=False)
    return (
        WebScores("tabletop_web_vqa", "questions", 100, (headline,), (Sample("what is <b>it</b>?", "red", "blue"),)),
        WebScores("tabletop_web_locate", "pointing", 100, (headline, distance), ()),
    )


def make_report(seen=18, unseen=12, emergent=9, share=0.8, with_data=True, title="tiny <test>"):
    """A report of 20 episodes a skill in three splits, with controls on the seen one."""
    skills = (
        skill_result("seen", "reach", None, seen, 20),
        skill_result("seen", "pick", None, seen, 20),
        skill_result("seen", "reach", "wrong_instruction", 1, 20),
        skill_result("seen", "reach", "other_image", 0, 20),
        skill_result("unseen_objects_hard", "reach", None, unseen, 20),
        skill_result("symbols", "place", None, emergent, 20),
    )
    checkpoint = document.Checkpoint("runs/tiny", "ab" * 32, "tiny", 1_500_000, 1000)
    provenance = document.Provenance(
        title=title,
        created="2026-01-02T03:04:05Z",
        command="rt2 eval --checkpoint runs/tiny",
        wall_seconds=12.5,
        checkpoint=checkpoint,
        data_path="DATA" if with_data else None,
        data_split="validation",
        machine=document.describe_machine("cpu", ["cpu"]),
        versions=document.installed_versions(),
    )
    dimensions = (
        DimensionScores("terminate", "flag", "terminate", 0.98, recall=0.9),
        DimensionScores("dx", "cm", "continuous", 0.4, 0.3, 0.2, 0.9, 0.97),
        DimensionScores("dyaw", "deg", "continuous", 0.6, 0.8, 0.4, 2.0),
    )
    actions = ActionScores("tabletop_robot_action", 64, 0.7, 0.1, dimensions)
    run = ClosedLoopResult(skills, (), Timing(1.0, 2.0, 3.0, 700, 60))
    if not with_data:
        return document.build_report(provenance, [run], environment="tabletop")
    reference = document.Checkpoint("runs/web", "cd" * 32, "tiny", 1_500_000, None)
    return document.build_report(
        provenance, [run], [actions], web_scores(share), (reference, web_scores(0.9)), environment="tabletop"
    )
