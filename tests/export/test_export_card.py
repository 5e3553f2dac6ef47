"""The model card says what the bundle and the report say, and that the rest is not known."""

import json

import pytest

from rt2_jax.errors import UserError
from rt2_jax.export.card import card_texts, make_card, to_markdown


def test_what_nobody_told_is_unknown(shipped):
    card = make_card(shipped.spec, shipped.params, form="bundle", identities=(shipped.identity, None))
    assert card["license"] == "unknown" and card["evaluation"] is None and card["exported_from"] == shipped.identity
    assert card["training"] == {"steps": shipped.spec.step, "mixture": dict(shipped.spec.tasks), "sources": []}
    assert card["model"]["parameters"] == 2_038_528 or card["model"]["parameters"] > 2e6
    assert card["model"]["bytes"] == 4 * card["model"]["parameters"] and card["model"]["weights"] == ["float32"]
    assert card["limits"] == {
        "image_size": 96, "images": 1, "prompt_tokens": shipped.spec.prompt_len,
        "answer_tokens": shipped.spec.target_len,
    }  # fmt: skip
    robot = card["embodiments"]["tabletop"]
    assert robot["action"][1] == {"name": "dx", "low": -0.04, "high": 0.04, "unit": "m", "kind": "continuous"}
    assert card["not_tested"][0].startswith("No evaluation was given")
    json.dumps(card, allow_nan=False)


def test_markdown_has_every_part(shipped):
    texts = card_texts(
        shipped.spec, shipped.params, form="jax", identities=(shipped.identity,), license="CC-BY-4.0",
        changes=["int8 weights"],
    )  # fmt: skip
    assert sorted(texts) == ["model_card.json", "model_card.md"]
    page = texts["model_card.md"]
    assert page.startswith('---\nlicense: "CC-BY-4.0"\n') and to_markdown(json.loads(texts["model_card.json"])) == page
    for part in (
        "## Data",
        "## Evaluation",
        "None was given",
        "## Limits",
        "| dx | -0.04 | 0.04 | m |",
        "int8 weights",
    ):
        assert part in page
    for task in shipped.spec.tasks:
        assert f"| `{task}` | " in page


def test_a_report_of_these_weights_is_told(shipped, report):
    report["checkpoint"]["sha256"] = shipped.identity
    given = {"form": "bundle", "identities": (shipped.identity, None), "report": report}
    card = make_card(shipped.spec, shipped.params, **given)
    first = report["summary"][0]
    assert card["evaluation"]["closed_loop"][0] == {
        key: first[key] for key in ("split", "control", "mode", "episodes", "successes", "rate", "interval")
    }
    page = to_markdown(card)
    assert f"| {first['successes']} of {first['episodes']} |" in page and "tabletop_robot_action" in page
    changed = make_card(shipped.spec, shipped.params, **given, changes=["int8 weights"])
    assert "before these changes: int8 weights" in changed["not_tested"][0]


def test_a_report_of_other_weights_is_refused(shipped, report):
    with pytest.raises(UserError, match="the report is about weights ababab"):
        card_texts(shipped.spec, shipped.params, form="bundle", identities=("cd" * 32, None), report=report)
