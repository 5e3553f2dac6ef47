"""Held-out prepared data: greedy actions against the demonstrations', greedy answers against the web data's."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.data.records import PreparedIndex
from rt2_jax.evaluate import text_metrics
from rt2_jax.evaluate.action_metrics import score_dimensions
from rt2_jax.evaluate.examples import Example, batches, padded
from rt2_jax.evaluate.results import ActionScores, Metric, Sample, WebScores
from rt2_jax.evaluate.statistics import wilson_interval
from rt2_jax.evaluate.text_scores import FROM_GRIPPER, exact_match
from rt2_jax.inputs.prompts import ACTION_MARKER, PLAN_MARKER
from rt2_jax.tokens.action_text import parse_action_text
from rt2_jax.tokens.vocabulary import Vocabulary

ACTION, PLAN, TEXT = "action", "plan", "text"
# A place in a plan: "pick red cube at 140 110".
_PLACE = re.compile(r" at \d+ \d+")


class AnsweringModel(Protocol):
    """What the metrics of text need of `policy.policy.TextModel`."""

    def answer(self, images: np.ndarray, texts: Sequence[str], max_len: int) -> list[str]:
        """uint8[B, N, H, W, 3] and B prompts -> B answers."""
        ...


class AnsweringPolicy(AnsweringModel, Protocol):
    """What the metrics of actions and plans need of `policy.policy.Policy`."""

    vocabulary: Vocabulary

    def embodiment(self) -> Embodiment:
        """Whose actions it decodes."""
        ...

    def act_on_prompts(self, images: np.ndarray, texts: Sequence[str], mode: str = "action") -> Any:
        """uint8[B, N, H, W, 3] and B prompts -> chunk_bins int32[B, chunk, width] and text of B strings."""
        ...


def _act(policy: AnsweringPolicy, examples: Sequence[Example], mode: str) -> tuple[np.ndarray, list[str]]:
    """Decoded integers int32[n, chunk, width] and texts of all examples."""
    bins, texts = [], []
    for images, part in batches(examples):
        # The prompts as they were prepared: with whatever words name the robot, and its state.
        output = policy.act_on_prompts(images, padded([example.prompt for example in part], len(images)), mode=mode)
        bins.append(np.asarray(output.chunk_bins)[: len(part)])
        texts += output.text[: len(part)]
    return np.concatenate(bins), texts


def _wanted(policy: AnsweringPolicy, texts: Sequence[str]) -> np.ndarray:
    """int32[n, chunk, width] of action strings."""
    robot = policy.embodiment()
    rows = [parse_action_text(policy.vocabulary, text, robot.num_integers) for text in texts]
    return np.stack(rows).reshape(len(texts), robot.chunk, robot.bins.width)


def score_actions(policy: AnsweringPolicy, task: str, examples: Sequence[Example]) -> ActionScores:
    """Greedy actions against the demonstrations'; of a chunk every action counts."""
    wanted = _wanted(policy, [example.target for example in examples])
    decoded, _ = _act(policy, examples, "action")
    right, bins = decoded == wanted, policy.embodiment().bins
    return ActionScores(
        task=task,
        examples=len(examples),
        token_accuracy=float(right.mean()),
        exact_match=float(right.all(axis=(1, 2)).mean()),
        dimensions=score_dimensions(bins, wanted.reshape(-1, bins.width), decoded.reshape(-1, bins.width)),
    )


def _split_plan(text: str) -> tuple[str, str]:
    """(plan, action string) of a chain-of-thought text; the plan is empty where the text has no marker."""
    plan, marker, action = text.partition(ACTION_MARKER)
    return plan.strip().removeprefix(PLAN_MARKER).strip(), action.strip() if marker else text.strip()


def _score_plans(
    policy: AnsweringPolicy, examples: Sequence[Example], max_len: int
) -> tuple[tuple[Metric, ...], list[str]]:
    """Chain of thought: the plan's words, its places left out, and the tokens of the action after it.

    The policy has a length limit of its own.
    """
    decoded, texts = _act(policy, examples, "plan")
    targets = [_split_plan(example.target) for example in examples]
    wanted = _wanted(policy, [action for _, action in targets])
    pairs = zip(texts, targets, strict=True)
    hits = sum(exact_match(_PLACE.sub("", _split_plan(text)[0]), _PLACE.sub("", plan)) for text, (plan, _) in pairs)
    share = hits / len(examples)
    return (
        Metric("plan's words right", share, "fraction", wilson_interval(hits, len(examples))),
        Metric("action tokens right", float((decoded == wanted).mean()), "fraction", None),
    ), texts


def _score_text(
    measure: Callable[[Sequence[str], Sequence[str]], tuple[Metric, ...]],
    policy: AnsweringModel,
    examples: Sequence[Example],
    max_len: int,
) -> tuple[tuple[Metric, ...], list[str]]:
    answers: list[str] = []
    for images, part in batches(examples):
        prompts = padded([example.prompt for example in part], len(images))
        answers += policy.answer(images, prompts, max_len)[: len(part)]
    return measure(answers, [example.target for example in examples]), answers


@dataclasses.dataclass(frozen=True)
class Kind:
    """How tasks of a kind are shown and scored: (policy, examples, max_len) -> metrics, answers.

    An empty `skill` is the task's name. Plans are an `AnsweringPolicy`'s, texts any `AnsweringModel`'s.
    """

    skill: str
    score: Callable[[Any, Sequence[Example], int], tuple[tuple[Metric, ...], list[str]]]


_detections_from_gripper = functools.partial(text_metrics.detections, most=FROM_GRIPPER)
_locations_from_gripper = functools.partial(text_metrics.locations, most=FROM_GRIPPER)
# All kinds but actions, in the order in which the report shows them: seeing first.
TEXT_KINDS: dict[str, Kind] = {
    "detect": Kind("detection", functools.partial(_score_text, text_metrics.detections)),
    "locate": Kind("pointing", functools.partial(_score_text, text_metrics.locations)),
    "detect_from_gripper": Kind("detection from gripper", functools.partial(_score_text, _detections_from_gripper)),
    "locate_from_gripper": Kind("pointing from gripper", functools.partial(_score_text, _locations_from_gripper)),
    "vqa": Kind("questions", functools.partial(_score_text, text_metrics.answers)),
    "caption": Kind("captions", functools.partial(_score_text, text_metrics.descriptions)),
    "alt_text": Kind("alt text", functools.partial(_score_text, text_metrics.descriptions)),
    PLAN: Kind("planning", _score_plans),
    TEXT: Kind("", functools.partial(_score_text, text_metrics.answers)),
}


def scored_as(index: PreparedIndex) -> str:
    """How a prepared task's examples are scored: as "action", or as one of `TEXT_KINDS`, "text" where it is no other.

    A task whose integers are actions is "action" or "plan", whatever else it says of itself; no other task is.
    """
    if index.embodiment is not None:
        return PLAN if index.kind == PLAN else ACTION
    return index.kind if index.kind in TEXT_KINDS and index.kind != PLAN else TEXT


def score_web(
    policy: AnsweringModel, task: str, kind: str, examples: Sequence[Example], max_len: int, samples: int = 6
) -> WebScores:
    """One task's scores, with `samples` of the questions and answers, evenly spread, to read.

    Args:
      kind: of `TEXT_KINDS`.
      max_len: tokens that an answer may have, EOS included.
    """
    scored = TEXT_KINDS[kind]
    metrics, answers = scored.score(policy, examples, max_len)
    shown = np.unique(np.linspace(0, len(examples) - 1, min(samples, len(examples))).round().astype(int))
    return WebScores(
        task=task,
        skill=scored.skill or task,
        examples=len(examples),
        metrics=metrics,
        samples=tuple(Sample(examples[i].prompt, examples[i].target, answers[i]) for i in shown),
    )
