"""Held-out prepared data: greedy actions against the demonstrations', greedy answers against the web data's.

What a task is scored by follows from its name's ending (`KINDS`), the convention of the tabletop tasks; a task of
another name is scored as free text.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rt2_jax.actions.bins import ActionBins
from rt2_jax.data.reader import PreparedSplit
from rt2_jax.data.records import again
from rt2_jax.errors import UserError
from rt2_jax.evaluate import text_metrics
from rt2_jax.evaluate.results import ActionScores, DimensionError, Metric, Sample, WebScores
from rt2_jax.evaluate.statistics import wilson_interval
from rt2_jax.evaluate.text_scores import FROM_GRIPPER, exact_match
from rt2_jax.inputs.prompts import ACTION_MARKER, PLAN_MARKER, plan_prompt, robot_prompt
from rt2_jax.tokens.action_text import parse_action_text
from rt2_jax.tokens.vocabulary import Vocabulary

BATCH = 32
# A place in a plan: "pick red cube at 140 110".
_PLACE = re.compile(r" at \d+ \d+")
# Physical units in the report: name, factor.
_UNITS: dict[str, tuple[str, float]] = {"m": ("cm", 100.0), "rad": ("deg", 180.0 / np.pi)}
_NO_UNIT = ("1", 1.0)


class AnsweringPolicy(Protocol):
    """What the offline metrics need of `decode.policy.Policy`."""

    vocabulary: Vocabulary
    bins: ActionBins

    def act(self, images: np.ndarray, instructions: Sequence[str], mode: str = "action") -> Any:
        """uint8[B, N, H, W, 3] and B instructions -> bins int32[B, 8] and text of B strings."""

    def answer(self, images: np.ndarray, texts: Sequence[str], max_len: int) -> list[str]:
        """uint8[B, N, H, W, 3] and B prompts -> B answers."""


@dataclasses.dataclass(frozen=True)
class Example:
    """A held-out example as text: `images` is uint8[N, H, W, 3]."""

    images: np.ndarray
    prompt: str
    target: str


def read_examples(data_dir: Path, task: str, vocabulary: Vocabulary, count: int, split: str) -> list[Example]:
    """At most `count` examples, evenly spread over the prepared split, so that they come from many episodes.

    Raises:
      UserError: the split is not prepared or damaged, or was prepared with another vocabulary.
    """
    prepared = PreparedSplit(data_dir, task, split)
    if prepared.index.vocabulary != vocabulary.sha256:
        raise UserError(
            f"{task}/{split} was prepared with vocabulary {prepared.index.vocabulary[:12]}, the checkpoint has "
            f"{vocabulary.sha256[:12]}; with --vocabulary of the checkpoint, {again(data_dir, task)}"
        )
    keys = np.unique(np.linspace(0, len(prepared) - 1, min(count, len(prepared))).round().astype(int))
    return [
        Example(images, vocabulary.decode(record.prompt), vocabulary.decode(record.target))
        for record, images in prepared.read(keys.tolist())
    ]


def instruction_of(prompt: str, template: Callable[[str], str] = robot_prompt) -> str:
    """The instruction inside a prompt that `template` made.

    Raises:
      UserError: the prompt was not made by it.
    """
    before, after = template("\0").split("\0")
    if not (prompt.startswith(before) and prompt.endswith(after) and len(prompt) > len(before) + len(after)):
        raise UserError(f"prompt {prompt!r} is not of the form {template('...')!r}; prepare the task with that prompt")
    return prompt[len(before) : len(prompt) - len(after)]


def _batches(examples: Sequence[Example], size: int = BATCH) -> Iterator[tuple[np.ndarray, Sequence[Example]]]:
    """Images uint8[size, N, H, W, 3] and the examples in them; a short last batch repeats a frame to keep its size."""
    for start in range(0, len(examples), size):
        part = examples[start : start + size]
        padded = [*part, *[part[0]] * (min(size, len(examples)) - len(part))]
        yield np.stack([example.images for example in padded]), part


def _padded(texts: Sequence[str], count: int) -> list[str]:
    return [*texts, *[texts[0]] * (count - len(texts))]


def _act(policy: AnsweringPolicy, examples: Sequence[Example], mode: str) -> tuple[np.ndarray, list[str]]:
    """Decoded bins int32[n, 8] and texts of all examples."""
    template = plan_prompt if mode == "plan" else robot_prompt
    bins, texts = [], []
    for images, part in _batches(examples):
        instructions = _padded([instruction_of(example.prompt, template) for example in part], len(images))
        output = policy.act(images, instructions, mode=mode)
        bins.append(np.asarray(output.bins)[: len(part)])
        texts += output.text[: len(part)]
    return np.concatenate(bins), texts


def score_actions(policy: AnsweringPolicy, task: str, examples: Sequence[Example]) -> ActionScores:
    """Greedy actions against the demonstrations'. Errors are between decoded values: what the robot would have felt."""
    wanted = np.stack([parse_action_text(policy.vocabulary, example.target, policy.bins.width) for example in examples])
    decoded, _ = _act(policy, examples, "action")
    right = decoded == wanted
    wanted_values, values = policy.bins.decode(wanted), policy.bins.decode(decoded)
    stop, stops = wanted_values[:, 0] >= 0.5, values[:, 0] >= 0.5
    space = policy.bins.space
    dimensions = []
    for index, (name, unit) in enumerate(zip(space.names, space.units, strict=True)):
        if name == "terminate":
            continue
        shown, factor = _UNITS.get(unit, _NO_UNIT)
        error = np.abs(values[:, index] - wanted_values[:, index]) * factor
        dimensions.append(
            DimensionError(
                name=name,
                unit=shown,
                token_accuracy=float(right[:, index].mean()),
                mean_error=float(error.mean()),
                median_error=float(np.median(error)),
                p90_error=float(np.quantile(error, 0.9)),
            )
        )
    gripper = space.names.index("gripper")
    return ActionScores(
        task=task,
        examples=len(examples),
        token_accuracy=float(right.mean()),
        exact_match=float(right.all(axis=1).mean()),
        terminate_accuracy=float(right[:, 0].mean()),
        terminate_recall=float(stops[stop].mean()) if stop.any() else None,
        terminate_precision=float(stop[stops].mean()) if stops.any() else None,
        gripper_accuracy=float(((values[:, gripper] > 0) == (wanted_values[:, gripper] > 0)).mean()),
        dimensions=tuple(dimensions),
    )


def _split_plan(text: str) -> tuple[str, str]:
    """(plan, action string) of a chain-of-thought text; the plan is empty where the text has no marker."""
    plan, marker, action = text.partition(ACTION_MARKER)
    return plan.strip().removeprefix(PLAN_MARKER).strip(), action.strip() if marker else text.strip()


def _score_plans(
    policy: AnsweringPolicy, examples: Sequence[Example], max_len: int
) -> tuple[tuple[Metric, ...], list[str]]:
    """Chain of thought: the plan's words, its places left out, and the eight tokens after it.

    The policy has a length limit of its own.
    """
    decoded, texts = _act(policy, examples, "plan")
    targets = [_split_plan(example.target) for example in examples]
    wanted = np.stack([parse_action_text(policy.vocabulary, action, policy.bins.width) for _, action in targets])
    pairs = zip(texts, targets, strict=True)
    hits = sum(exact_match(_PLACE.sub("", _split_plan(text)[0]), _PLACE.sub("", plan)) for text, (plan, _) in pairs)
    share = hits / len(examples)
    return (
        Metric("plan's words right", share, "fraction", wilson_interval(hits, len(examples))),
        Metric("action tokens right", float((decoded == wanted).mean()), "fraction", None),
    ), texts


def _score_text(
    measure: Callable[[Sequence[str], Sequence[str]], tuple[Metric, ...]],
    policy: AnsweringPolicy,
    examples: Sequence[Example],
    max_len: int,
) -> tuple[tuple[Metric, ...], list[str]]:
    answers: list[str] = []
    for images, part in _batches(examples):
        prompts = _padded([example.prompt for example in part], len(images))
        answers += policy.answer(images, prompts, max_len)[: len(part)]
    return measure(answers, [example.target for example in examples]), answers


@dataclasses.dataclass(frozen=True)
class Kind:
    """How a task whose name ends so is shown and scored: (policy, examples, max_len) -> metrics, answers."""

    skill: str
    score: Callable[[AnsweringPolicy, Sequence[Example], int], tuple[tuple[Metric, ...], list[str]]]


_detections_from_gripper = functools.partial(text_metrics.detections, most=FROM_GRIPPER)
_locations_from_gripper = functools.partial(text_metrics.locations, most=FROM_GRIPPER)
# In the order in which the report shows them: seeing first.
KINDS: dict[str, Kind] = {
    "_detect": Kind("detection", functools.partial(_score_text, text_metrics.detections)),
    "_locate": Kind("pointing", functools.partial(_score_text, text_metrics.locations)),
    "_detect_from_gripper": Kind("detection from gripper", functools.partial(_score_text, _detections_from_gripper)),
    "_locate_from_gripper": Kind("pointing from gripper", functools.partial(_score_text, _locations_from_gripper)),
    "_vqa": Kind("questions", functools.partial(_score_text, text_metrics.answers)),
    "_caption": Kind("captions", functools.partial(_score_text, text_metrics.descriptions)),
    "_alt_text": Kind("alt text", functools.partial(_score_text, text_metrics.descriptions)),
    "_plan": Kind("planning", _score_plans),
}
ACTION_ENDING = "_action"


def is_action_task(task: str) -> bool:
    return task.endswith(ACTION_ENDING)


def report_order(task: str) -> tuple[int, str]:
    """Sorts tasks by their kinds' order in `KINDS`, others last, by name."""
    endings = [index for index, ending in enumerate(KINDS) if task.endswith(ending)]
    return (endings[0] if endings else len(KINDS)), task


def kind_of(task: str) -> Kind:
    """The task's kind by its name's ending; free text, named after the task, where no ending fits."""
    for ending, kind in KINDS.items():
        if task.endswith(ending):
            return kind
    return Kind(task, functools.partial(_score_text, text_metrics.answers))


def score_web(
    policy: AnsweringPolicy, task: str, examples: Sequence[Example], max_len: int, samples: int = 6
) -> WebScores:
    """One task's scores, with `samples` of the questions and answers, evenly spread, to read.

    Args:
      max_len: tokens that an answer may have, EOS included.
    """
    kind = kind_of(task)
    metrics, answers = kind.score(policy, examples, max_len)
    shown = np.unique(np.linspace(0, len(examples) - 1, min(samples, len(examples))).round().astype(int))
    return WebScores(
        task=task,
        skill=kind.skill,
        examples=len(examples),
        metrics=metrics,
        samples=tuple(Sample(examples[i].prompt, examples[i].target, answers[i]) for i in shown),
    )
