"""The model card that goes with each export, as JSON and as Markdown: what is known of the weights, and what is not.

Everything in it comes from the bundle, and from a report of `rt2 eval` where one is given. What nobody told is said to
be unknown; nothing is guessed.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.bundle.params import tree_bytes
from rt2_jax.bundle.spec import BundleSpec
from rt2_jax.errors import UserError
from rt2_jax.export.program import prompt_len

CARD_JSON, CARD_MARKDOWN = "model_card.json", "model_card.md"
SCHEMA = "rt2_jax/model_card"
UNKNOWN = "unknown"


def card_texts(
    spec: BundleSpec,
    params: Any,
    *,
    form: str,
    identities: Sequence[str | None],
    license: str | None = None,
    report: Mapping[str, Any] | None = None,
    changes: Sequence[str] = (),
) -> dict[str, str]:
    """The card's two files, name -> content.

    Args:
        spec: of the bundle that is exported.
        params: its weights as they go out, or their shapes and dtypes.
        form: what the export is: "bundle", "jax", ...
        identities: of the checkpoint that it is exported from, and of what that one was exported from.
        license: of the weights, in the words of who gives them; None is unknown.
        report: the content of a report.json of `rt2 eval`, checked.
        changes: what was done to the weights since that checkpoint, such as "int8 weights".

    Raises:
        UserError: the report is about other weights.
    """
    card = make_card(spec, params, form=form, identities=identities, license=license, report=report, changes=changes)
    return {CARD_JSON: json.dumps(card, indent=2) + "\n", CARD_MARKDOWN: to_markdown(card)}


def make_card(
    spec: BundleSpec,
    params: Any,
    *,
    form: str,
    identities: Sequence[str | None],
    license: str | None = None,
    report: Mapping[str, Any] | None = None,
    changes: Sequence[str] = (),
) -> dict[str, Any]:
    """The card as plain JSON values; arguments and errors as `card_texts`."""
    model = spec.model
    leaves = jax.tree.leaves(params)
    return {
        "schema": SCHEMA,
        "version": 1,
        "form": form,
        "license": license or UNKNOWN,
        "model": {
            "name": model.name,
            "parameters": sum(leaf.size for leaf in leaves),
            "bytes": tree_bytes(params),
            "weights": sorted({str(leaf.dtype) for leaf in leaves}),
            "compute_dtype": model.compute_dtype,
            "config": model.to_json(),
        },
        "training": {
            "steps": spec.step,
            "mixture": None if spec.tasks is None else dict(spec.tasks),
            "sources": list(spec.sources),
        },
        "exported_from": identities[0],
        "changes": list(changes),
        "embodiments": {name: _embodiment(robot) for name, robot in spec.embodiments.items()},
        "limits": {
            "image_size": model.image_size,
            "images": model.num_images,
            "prompt_tokens": prompt_len(spec),
            "answer_tokens": spec.target_len,
        },
        "vocabulary": {"sha256": spec.vocabulary and spec.vocabulary.sha256},
        "grammar": {"sha256": spec.grammar and spec.grammar.sha256},
        "evaluation": None if report is None else _evaluation(report, identities),
        "not_tested": _not_tested(report, changes),
    }


def _embodiment(robot: Embodiment) -> dict[str, Any]:
    def dimensions(space: Any) -> list[dict[str, Any]]:
        fields = (space.names, space.low, space.high, space.units, space.kinds)
        rows = zip(*fields, strict=True)
        return [dict(zip(("name", "low", "high", "unit", "kind"), row, strict=True)) for row in rows]

    return {
        "sha256": robot.sha256,
        "description": robot.description,
        "robot": robot.robot,
        "gripper": robot.gripper,
        "cameras": list(robot.cameras),
        "history": robot.history,
        "chunk": robot.chunk,
        "control_hz": robot.control_hz,
        "action": dimensions(robot.space),
        "bins": robot.bins.num_bins,
        "state": robot.proprioception and dimensions(robot.proprioception.space),
        "episodes": robot.num_episodes,
        "steps": robot.num_steps,
    }


def _evaluation(report: Mapping[str, Any], identities: Sequence[str | None]) -> dict[str, Any]:
    judged = report["checkpoint"]["sha256"]
    if judged not in identities:
        raise UserError(
            f"the report is about weights {judged[:12]}, exported are {str(identities[0])[:12]}; run rt2 eval on "
            "them, or leave --report out"
        )
    return {
        "weights": judged,
        "created": report["created"],
        "command": report["command"],
        "environment": report["environment"],
        "closed_loop": [
            {key: row[key] for key in ("split", "control", "mode", "episodes", "successes", "rate", "interval")}
            for row in report["summary"]
        ],
        "actions": [
            {key: row[key] for key in ("task", "examples", "token_accuracy", "exact_match")}
            for row in report["actions"]
        ],
        "web": [
            {
                "task": row["task"],
                "examples": row["examples"],
                "metrics": {metric["name"]: metric["value"] for metric in row["metrics"]},
            }
            for row in report["web"]
        ],
    }


def _not_tested(report: Mapping[str, Any] | None, changes: Sequence[str]) -> list[str]:
    said = []
    if report is None:
        said.append("No evaluation was given with this export: how well the model acts is not said here.")
    elif changes:
        said.append(
            "The evaluation is of the weights before these changes: " + ", ".join(changes) + ". After them the model "
            "was not evaluated here."
        )
    said.append("Robots, cameras, objects and instructions unlike those of the training mixture.")
    said.append("Safety: actions stay within the bounds below, and nothing here knows what stands in their way.")
    return said


def to_markdown(card: Mapping[str, Any]) -> str:
    """The card for people, as hubs show it."""
    model, training, limits = card["model"], card["training"], card["limits"]
    lines = [
        "---",
        f"license: {json.dumps(card['license'])}",
        "library_name: rt2_jax",
        "pipeline_tag: robotics",
        "---",
        "",
        f"# {model['name']}",
        "",
        f"A vision-language-action model of rt2_jax, as a {card['form']}: {model['parameters']:,} numbers in "
        f"{model['bytes'] / 1e6:,.1f} MB ({', '.join(model['weights'])}), computing in {model['compute_dtype']}.",
        "",
        *_table(
            ("What", "Value"),
            [
                ("License of the weights", card["license"]),
                ("Exported from", f"`{card['exported_from']}`"),
                ("Changed since", ", ".join(card["changes"]) or "nothing"),
                ("Steps of training", f"{training['steps']:,}"),
                ("Converted from", ", ".join(f"`{source}`" for source in training["sources"]) or "-"),
                ("Vocabulary", f"`{card['vocabulary']['sha256']}`"),
                ("Grammar", f"`{card['grammar']['sha256']}`"),
            ],
        ),
        "## Data",
        "",
        *_mixture(training["mixture"]),
        "## Evaluation",
        "",
        *_results(card["evaluation"]),
        "## Limits",
        "",
        f"- Frames: {limits['images']} of {limits['image_size']} x {limits['image_size']} pixels, RGB; others are "
        "resized.",
        f"- Prompts: at most {limits['prompt_tokens']} tokens.",
        *([f"- Answers: at most {limits['answer_tokens']} tokens."] if limits["answer_tokens"] else []),
        "- Not tested:",
        *[f"    - {text}" for text in card["not_tested"]],
        "",
    ]
    for name, robot in card["embodiments"].items():
        lines += _robot(name, robot)
    return "\n".join(lines).rstrip() + "\n"


def _mixture(mixture: Mapping[str, float] | None) -> list[str]:
    if not mixture:
        return ["The mixture that these weights were trained on is not recorded in them.", ""]
    total = sum(mixture.values())
    return _table(("Task", "Share"), [(f"`{task}`", f"{weight / total:.1%}") for task, weight in mixture.items()])


def _results(evaluation: Mapping[str, Any] | None) -> list[str]:
    if evaluation is None:
        return ["None was given with this export.", ""]
    lines = [f"Of weights `{evaluation['weights'][:12]}`, {evaluation['created']}: `{evaluation['command']}`", ""]
    rows = [
        (row["split"], row["control"] or "-", row["mode"], f"{row['successes']} of {row['episodes']}", _rate(row))
        for row in evaluation["closed_loop"]
    ]
    lines += _table(("Split", "Control", "Mode", "Successes", "Rate (95%)"), rows) if rows else []
    rows = [
        (f"`{row['task']}`", str(row["examples"]), f"{row['token_accuracy']:.1%}", f"{row['exact_match']:.1%}")
        for row in evaluation["actions"]
    ]
    lines += _table(("Held-out actions", "Examples", "Token accuracy", "Whole action"), rows) if rows else []
    rows = [
        (
            f"`{row['task']}`",
            str(row["examples"]),
            ", ".join(f"{name} {value}" for name, value in row["metrics"].items()),
        )
        for row in evaluation["web"]
    ]
    return lines + (_table(("Held-out web task", "Examples", "Metrics"), rows) if rows else [])


def _rate(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return "-" if row["rate"] is None else f"{row['rate']:.0%} ({low:.0%} to {high:.0%})"


def _robot(name: str, robot: Mapping[str, Any]) -> list[str]:
    rate = f"{robot['control_hz']:g} actions a second" if robot["control_hz"] else "control rate unknown"
    lines = [
        f"## Embodiment {name}",
        "",
        *([robot["description"], ""] if robot["description"] else []),
        f"Cameras {', '.join(robot['cameras'])}; {robot['history']} moment(s) each; {robot['chunk']} action(s) an "
        f"answer; {rate}. Digest `{robot['sha256']}`.",
        "",
    ]
    header = ("Dimension", "Lowest", "Highest", "Unit", "Kind")
    for what, dimensions in (("Action", robot["action"]), ("State", robot["state"])):
        if dimensions:
            rows = [(d["name"], f"{d['low']:g}", f"{d['high']:g}", d["unit"], d["kind"]) for d in dimensions]
            lines += [f"{what}:", "", *_table(header, rows)]
    return lines


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    clean = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in clean),
        "",
    ]
