"""`evaluate` from a bundle to the two files, with a real but very small model."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from rt2_jax.actions import load_card
from rt2_jax.bundle.spec import bundle_spec
from rt2_jax.bundle.store import load_bundle, save_bundle
from rt2_jax.data.writer import write_frames, write_split
from rt2_jax.errors import UserError
from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.inputs.prompts import locate_prompt, robot_prompt
from rt2_jax.models.backbone import make_backbone
from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig, VitConfig
from rt2_jax.report.report import read_report
from rt2_jax.report.run import describe_checkpoint, evaluate
from rt2_jax.tokens.action_text import action_text
from rt2_jax.tokens.vocabulary import Vocabulary

CARD = "tabletop"
SIZE = 24


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Two bundles of a model of a few thousand parameters, and two prepared tasks of a few examples."""
    root = tmp_path_factory.mktemp("evaluate")
    vocabulary, card = Vocabulary.load(), load_card(CARD)
    config = ModelConfig(
        name="speck",
        vision=VitConfig(patch_size=12, width=8, layers=1, heads=1, head_dim=8, mlp=8),
        text=EncoderDecoderConfig(width=8, encoder_layers=1, decoder_layers=1, heads=1, head_dim=8, mlp=8),
        image_size=SIZE,
        vocab_size=vocabulary.size,
    )
    backbone = make_backbone(config)
    spec = bundle_spec(config, vocabulary, {card.name: card}, prompt_len=48, target_len=24, step=7)
    for seed, name in enumerate(("policy", "reference")):
        save_bundle(root / name, backbone.init(jax.random.key(seed)), spec, vocabulary)
    rng = np.random.default_rng(0)
    image = encode_jpeg(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8))
    pairs = {
        "tabletop_robot_action": (robot_prompt("pick red cube"), action_text(vocabulary, np.array([1, *[128] * 6, 0]))),
        "tabletop_web_locate": (locate_prompt("red cube"), "34 56"),
    }
    for task, (prompt, target) in pairs.items():
        frames = write_frames(root / "data", task, "validation", ["image"], [{"image": [image]}], task=task)
        ids = np.array([*vocabulary.encode(target), vocabulary.eos_id], np.int32)
        example = ([image], np.array(vocabulary.encode(prompt), np.int32), ids, "")
        meaning = {"embodiment": card} if task == "tabletop_robot_action" else {}
        write_split(root / "data", task, "validation", [example] * 4, frames, vocabulary=vocabulary.sha256, **meaning)
    return root


def test_everything_from_a_bundle_to_the_files(workplace, tmp_path, capsys):
    lines = [{"step": step, "split": "train", "loss": 5.0 - step} for step in range(3)]
    metrics = workplace / "policy" / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    report = evaluate(
        workplace / "policy",
        tmp_path / "out",
        workplace / "data",
        reference=workplace / "reference",
        splits=["symbols", "unseen_objects_easy"],
        skills=["place"],
        episodes=1,
        examples=3,
        command="rt2 eval --checkpoint policy",
        progress=False,
    )
    printed = capsys.readouterr().out.rstrip().splitlines()
    json_path, html_path = tmp_path / "out" / "report.json", tmp_path / "out" / "report.html"
    assert printed[-1] == f"report: {json_path} {html_path}"
    assert any("Closed loop" in line for line in printed)
    assert read_report(json_path) == report
    # Controls run where they tell most, and nowhere else.
    assert [(row["split"], row["control"], row["episodes"]) for row in report["closed_loop"]] == [
        ("symbols", None, 1),
        ("symbols", "wrong_instruction", 1),
        ("symbols", "other_image", 1),
        ("unseen_objects_easy", None, 1),
    ]
    assert [scores["examples"] for scores in report["actions"]] == [3]
    assert [score["task"] for score in report["web"]] == ["tabletop_web_locate"]
    assert [score["task"] for score in report["forgetting"]["web"]] == ["tabletop_web_locate"]
    assert report["checkpoint"]["model"] == "speck" and report["checkpoint"]["step"] == 7
    assert report["checkpoint"]["sha256"] != report["forgetting"]["checkpoint"]["sha256"]
    assert report["title"] == "policy" and report["command"] == "rt2 eval --checkpoint policy"
    assert {"python", "jax", "mujoco", "numpy"} <= report["versions"].keys()
    assert report["timing"]["control_steps"] == sum(
        episode["steps"] for row in report["closed_loop"] for episode in row["episode_results"]
    )
    page = html_path.read_text(encoding="utf-8")
    assert page.count("<figure") == 4 and "How it was trained" in page


def test_the_identity_is_of_the_content(workplace, tmp_path):
    bundle = load_bundle(workplace / "policy")
    shutil.copytree(workplace / "policy", tmp_path / "copy")
    assert describe_checkpoint(load_bundle(tmp_path / "copy")).sha256 == bundle.identity
    nudged = jax.tree.map(lambda leaf: leaf + 1e-6 * (leaf.ndim == 1), bundle.params)
    card = bundle.embodiments["tabletop"]
    other = dataclasses.replace(card, bins=dataclasses.replace(card.bins, decoding="rt1"))
    other_bins = dataclasses.replace(bundle.spec, embodiments={"tabletop": other})
    identities = {
        bundle.identity,
        save_bundle(tmp_path / "nudged", nudged, bundle.spec, bundle.vocabulary),
        save_bundle(tmp_path / "bins", bundle.params, other_bins, bundle.vocabulary),
    }
    assert len(identities) == 3


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"episodes": 0}, "nothing to evaluate"),
        ({"episodes": -1}, "episodes is -1"),
        ({"episodes": 1, "reference": "reference"}, "a reference is compared on prepared data"),
        ({"splits": ["nowhere"]}, "nowhere"),
        ({"splits": ["symbols"], "skills": ["push"]}, "none of the splits symbols tests push"),
        ({"data_dir": "empty", "episodes": 0}, "holds no prepared validation split"),
        ({"episodes": 1, "tasks": ["nope"]}, "the tasks nope are prepared data, and there is none; give --data"),
        ({"episodes": 1, "splits": ["symbols"], "skills": ["fly"]}, "skill 'fly' is unknown"),
        ({"episodes": 0, "data_dir": "empty", "splits": ["symbols"]}, "symbols would be driven in episodes"),
        ({"episodes": 0, "data_dir": "empty", "skills": ["fly"]}, "fly would be driven in episodes"),
    ],
)
def test_mistakes_are_one_line(workplace, tmp_path, settings, named):
    settings = {key: tmp_path / value if key == "data_dir" else value for key, value in settings.items()}
    with pytest.raises(UserError, match=named) as caught:
        evaluate(workplace / "policy", tmp_path / "out", progress=False, **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_only_the_tasks_named_are_scored(workplace, tmp_path):
    def scored(task):
        return evaluate(
            workplace / "policy", tmp_path / "out", workplace / "data", tasks=[task], episodes=0, examples=2
        )

    report = scored("tabletop_web_locate")
    assert report["actions"] == [] and [score["task"] for score in report["web"]] == ["tabletop_web_locate"]
    with pytest.raises(UserError, match="'tabletop_web_vqa' is not prepared in .*; choose from tabletop_robot_action"):
        scored("tabletop_web_vqa")


def test_actions_of_other_bounds_are_not_compared(workplace, tmp_path):
    bundle = load_bundle(workplace / "policy")
    card = load_card("fractal20220817_data")
    spec = bundle_spec(bundle.backbone.config, bundle.vocabulary, {card.name: card}, prompt_len=48, target_len=24)
    save_bundle(tmp_path / "other", bundle.params, spec, bundle.vocabulary)
    with pytest.raises(
        UserError, match=r"tabletop_robot_action was prepared with other action bounds \(card tabletop\)"
    ):
        evaluate(tmp_path / "other", tmp_path / "out", workplace / "data", episodes=0, examples=2, progress=False)


def test_a_damaged_reference_is_found_before_the_work(workplace, tmp_path, monkeypatch):
    shutil.copytree(workplace / "reference", tmp_path / "damaged")
    weights = next((tmp_path / "damaged" / "params").glob("ocdbt.process_*/d/*"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    monkeypatch.setattr("rt2_jax.report.run.run_offline", None)
    with pytest.raises(UserError, match="has changed since it was written"):
        evaluate(workplace / "policy", tmp_path / "out", workplace / "data", reference=tmp_path / "damaged", episodes=0)


def test_weights_that_were_shown_no_robot_are_scored_in_text(workplace, tmp_path):
    bundle = load_bundle(workplace / "policy")
    spec = dataclasses.replace(bundle.spec, embodiments={}, grammar=None)
    save_bundle(tmp_path / "vlm", bundle.params, spec, bundle.vocabulary)
    report = evaluate(tmp_path / "vlm", tmp_path / "out", workplace / "data", episodes=0, examples=2, progress=False)
    assert report["actions"] == [] and [score["task"] for score in report["web"]] == ["tabletop_web_locate"]
    with pytest.raises(UserError, match="know no robot"):
        evaluate(tmp_path / "vlm", tmp_path / "out", episodes=1, splits=["seen"], progress=False)


def never(*_, **__):
    pytest.fail("the work began")


def test_a_wrong_reference_is_found_before_the_work(workplace, tmp_path, monkeypatch):
    monkeypatch.setattr("rt2_jax.report.run.load_bundle", never)
    other = tmp_path / "other"
    shutil.copytree(workplace / "reference", other)
    meta = json.loads((other / "bundle.json").read_text())

    def evaluated(**changes):
        (other / "bundle.json").write_text(json.dumps(meta | changes))
        return evaluate(workplace / "policy", tmp_path / "out", workplace / "data", reference=other, episodes=0)

    with pytest.raises(UserError, match="was prepared with vocabulary .*other has 0000"):
        evaluated(vocabulary={**meta["vocabulary"], "sha256": "0" * 64})
    with pytest.raises(UserError, match="it has grammar of what an action needs, and not the rest"):
        evaluated(embodiments={})
    with pytest.raises(UserError, match="bundle.json has changed since it was written|instead of"):
        evaluated(step=8)
    with pytest.raises(UserError, match="no bundle.json"):
        evaluate(workplace / "policy", tmp_path / "out", workplace / "data", reference=tmp_path, episodes=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["file", "file/below", "loop", "n" * 300, "taken"])
def test_a_place_that_cannot_be_written_is_found_before_the_work(workplace, tmp_path, monkeypatch, out):
    monkeypatch.setattr("rt2_jax.report.run.load_bundle", never)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="cannot write"):
        evaluate(workplace / "policy", tmp_path / out, workplace / "data", episodes=0, progress=False)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "file").read_text() == "kept"
