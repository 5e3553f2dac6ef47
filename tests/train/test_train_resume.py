"""What may change between the starts of a run, what may not, and what is written down of it."""

import hashlib
import json
import shutil

import pytest

from rt2_jax.actions.bins import ActionBins
from rt2_jax.actions.embodiment import Embodiment, load_card, with_hash
from rt2_jax.actions.space import arm_space
from rt2_jax.bundle.spec import BundleSpec, bundle_spec
from rt2_jax.bundle.steps import step_identity
from rt2_jax.errors import UserError
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.train.config import make_config
from rt2_jax.train.history import read_history, record_start
from rt2_jax.train.loop import train
from rt2_jax.train.resolve import model_config, task_weights
from rt2_jax.train.resume import check_changes, check_meaning, find_changes, step_facts


def saved(fields):
    """The progress of a step of a run with these fields, as JSON gives it back."""
    config, vocabulary = make_config(fields), Vocabulary.load(fields.get("vocabulary") or Vocabulary.load().path)
    weights = task_weights(config)
    robots = {"tabletop": load_card("tabletop")}
    spec = bundle_spec(model_config(config, vocabulary), vocabulary, robots, prompt_len=8, target_len=12, tasks=weights)
    meta = spec.to_json()
    return json.loads(json.dumps({"step": 3, "example": 24, "bundle": meta, **step_facts(config, weights)}))


def resume(before, fields):
    now = saved(fields)
    changes = find_changes(before, now, now["bundle"])
    check_changes(changes, make_config(fields).may_change, "run at step 3")
    return changes


@pytest.fixture(scope="module")
def before(small_fields):
    return saved(small_fields)


def changed(fields, name, value):
    """The fields with one of them, given by its dotted name, changed."""
    head, _, rest = name.partition(".")
    return {**fields, head: changed(fields.get(head, {}), rest, value) if rest else value}


FREE = {
    "steps": 99, "log_every": 7, "eval_every": 7, "eval_batches": 7, "checkpoint_every": 7, "keep": 7,
    "tensorboard": True, "mesh": {"data": 1}, "microbatches": 2, "init_from": "somewhere",
    "may_change": ["dropout"], "model.name": "other", "model.remat": "full", "model.scan_unroll": True,
}  # fmt: skip


def test_what_leaves_the_result_alone_may_always_change(before, small_fields):
    fields = small_fields
    for name, value in FREE.items():
        fields = changed(fields, name, value)
    assert {name.removesuffix(".data") for name in resume(before, fields)} == FREE.keys()


def test_nothing_changed_is_nothing(before, small_fields):
    assert resume(before, small_fields) == {}


DECLARED = {
    "optimizer.learning_rate": 0.5, "optimizer.schedule": "constant", "optimizer.warmup_steps": 9,
    "optimizer.weight_decay": 0.5, "optimizer.clip_norm": 0.5, "z_loss": 0.5, "dropout": 0.5,
    "augment.brightness": 0.5, "augment.contrast": 0.5, "augment.shift": 5, "model.compute_dtype": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARED)
def test_what_is_declared_may_change(before, small_fields, name):
    fields = changed(small_fields, name, DECLARED[name])
    with pytest.raises(
        UserError, match=rf"with {name} = .*; put it back, declare it with may_change = \(\"{name}\",\)"
    ):
        resume(before, fields)
    fields["may_change"] = [name]
    assert resume(before, fields).keys() == {name, "may_change"}


REFUSED = {
    "batch_size": (16, "batch_size = 8, now it is 16; put it back, or choose a new workdir"),
    "seed": (1, "seed = 0, now it is 1"),
    "mixture": ({"name": 1.0, "reach": 3.0}, r"mixture = \[\['reach', 3.0\], \['name', 1.0\]\], now it is"),
    "prompt_len": (9, "prompt_len = 8, now it is 9"),
    "target_len": (13, "target_len = 12, now it is 13"),
    "model.text.mlp": (64, "model.text.mlp = 32, now it is 64"),
    "optimizer.name": ("muon", "optimizer.name = 'adamw', now it is 'muon'"),
    "optimizer.beta2": (0.5, "optimizer.beta2 = 0.999, now it is 0.5"),
    "freeze": ([["vision/.*", "frozen"], [".*", "train"]], r"freeze = \[\], now it is \[\['vision"),
    "frozen_dtype": ("bfloat16", "frozen_dtype = 'float32', now it is 'bfloat16'"),
    "ordered_integers": (True, "ordered_integers = False, now it is True"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_it_another_run_may_not(before, small_fields, name):
    value, message = REFUSED[name]
    with pytest.raises(UserError, match="run at step 3 was trained with " + message):
        resume(before, changed(small_fields, name, value))


def test_lora_that_comes_later_is_refused(before, small_fields):
    fields = {**small_fields, "lora": {"pattern": ".*query", "rank": 2, "alpha": 2.0}, "init_from": "somewhere"}
    with pytest.raises(UserError, match=r"lora = None, now it is '\(not set\)' \(and lora.alpha"):
        resume(before, fields)


def test_a_name_may_change_for_what_it_stands_for(before, small_fields, data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "copy")
    shutil.copy(Vocabulary.load().path, tmp_path / "other.model")
    fields = {**small_fields, "data_dir": str(tmp_path / "copy"), "vocabulary": str(tmp_path / "other.model")}
    assert resume(before, fields).keys() == {"data_dir"}


def test_other_data_are_refused(before, small_fields, prepared, data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "prepared" / "name" / "train")
    prepared.write_split(tmp_path / "copy", "name", "train", 41, 0)
    with pytest.raises(UserError, match="with data.name.num_examples = 40, now it is 41"):
        resume(before, {**small_fields, "data_dir": str(tmp_path / "copy")})


def test_fields_that_a_release_does_not_know_are_at_their_default(before, small_fields):
    older = {**before, "config": {name: value for name, value in before["config"].items() if name != "z_loss"}}
    assert resume(older, small_fields) == {}
    with pytest.raises(UserError, match="z_loss = 0.0001, now it is 0.5"):
        resume(older, {**small_fields, "z_loss": 0.5})


def test_actions_that_mean_something_else_are_refused(before):
    robots, where = {"tabletop": load_card("tabletop")}, "run at step 3"
    check_meaning(BundleSpec.from_json(before["bundle"]), robots, where)
    check_meaning(BundleSpec.from_json(before["bundle"]), {}, where)
    space = arm_space(0.08, 0.3)
    other = before["bundle"] | {"embodiments": {"tabletop": with_hash(Embodiment("tabletop", ActionBins(space)))}}
    with pytest.raises(
        UserError, match=f"{where} was trained with actions of tabletop of which the lower bound of dx is -0.08"
    ):
        check_meaning(BundleSpec.from_json(other), robots, where)
    with pytest.raises(UserError, match="of which dimensions is None"):
        check_meaning(BundleSpec.from_json(before["bundle"] | {"embodiments": {}, "grammar": None}), robots, where)


def before_embodiments(bundle, version):
    """The content of a bundle.json as the first two formats had it."""
    bundle = json.loads(json.dumps(bundle))
    (card,) = (one["card"] for one in bundle.pop("embodiments").values())
    bins = card["bins"]
    keep = ("name", "description", "statistics", "num_episodes", "num_steps", "image_size", "instructions")
    first = {"format": 1, "space": bins["space"]} | {name: card[name] for name in keep}
    return bundle | {"format": version, "card": first, "bins": bins}


def test_a_step_of_the_release_before_embodiments_goes_on(before, small_fields):
    card = load_card("tabletop")
    old = before | {"bundle": before_embodiments(before["bundle"], 2)}
    # What that release hashed: the bins, as they were written.
    digest = hashlib.sha256(json.dumps(old["bundle"]["bins"], sort_keys=True).encode()).hexdigest()
    assert old["data"]["reach"]["bins"] == digest
    assert resume(old, small_fields) == {}
    check_meaning(BundleSpec.from_json(old["bundle"]), {"tabletop": card}, "run")


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def three_steps(small_fields, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    assert train(make_config({**small_fields, "steps": 3}), workdir) == 0
    return workdir


def test_a_refused_start_changes_nothing_and_every_other_is_recorded(three_steps, small_fields):
    before = contents(three_steps)
    for change in ({"batch_size": 16}, {"seed": 1}, {"optimizer": {**small_fields["optimizer"], "name": "adafactor"}}):
        with pytest.raises(UserError, match="at step 3 was trained with"):
            train(make_config({**small_fields, **change}), three_steps)
    assert contents(three_steps) == before

    identity = step_identity(three_steps / "checkpoints" / "3")
    rate = {**small_fields["optimizer"], "learning_rate": 1e-3}
    fields = {**small_fields, "steps": 4, "optimizer": rate, "may_change": ["optimizer.learning_rate"]}
    assert train(make_config(fields), three_steps) == 0
    first, second = read_history(three_steps)
    assert (first["step"], first["identity"], first["changes"]) == (0, None, {})
    assert (second["step"], second["identity"], second["hosts"], second["release"]) == (3, identity, 1, "0.1.0")
    assert second["changes"] == {
        "may_change": [[], ["optimizer.learning_rate"]],
        "optimizer.learning_rate": [3e-3, 1e-3],
        "steps": [3, 4],
    }


def test_actions_of_another_card_are_refused_by_a_run(three_steps, small_fields, prepared, data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "prepared" / "reach")
    for split, count in (("train", 40), ("validation", 10)):
        prepared.write_split(tmp_path / "data", "reach", split, count, 0, card="fractal20220817_data")
    before = contents(three_steps)
    with pytest.raises(UserError, match="was trained with actions of fractal.* of which .* in the prepared data it is"):
        train(make_config({**small_fields, "data_dir": str(tmp_path / "data")}), three_steps)
    assert contents(three_steps) == before


def test_a_run_of_an_earlier_release_goes_on_with_a_note(three_steps, small_fields, tmp_path, capfd):
    shutil.copytree(three_steps, tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").iterdir(), key=lambda path: int(path.name))
    (newest / "manifest.json").unlink()
    path = newest / "progress" / "metadata"
    progress = json.loads(path.read_text())
    progress["bundle"] = before_embodiments(progress["bundle"], 1)
    path.write_text(json.dumps({name: progress[name] for name in ("step", "example", "bundle")}))
    assert train(make_config({**small_fields, "steps": int(newest.name) + 1}), tmp_path / "run") == 0
    assert f"note: step {newest.name} was saved by an earlier release, without its config" in capfd.readouterr().err
    assert read_history(tmp_path / "run")[-1]["changes"] is None


def test_damaged_lines_of_a_history_are_skipped_and_stay(tmp_path):
    record_start(tmp_path, 0, None, {})
    path = tmp_path / "history.jsonl"
    damage = b'\xff\xfe\n[1]\n{"step": "x"}\n{"step": 4, "ti'
    path.write_bytes(path.read_bytes() + damage)
    record_start(tmp_path, 5, "ab", {"steps": (1, 2)})
    assert [(line["step"], line["changes"]) for line in read_history(tmp_path)] == [(0, {}), (5, {"steps": [1, 2]})]
    assert damage in path.read_bytes()


def test_a_step_that_should_have_its_config_and_has_none(before, small_fields):
    now = saved(small_fields)
    without = {key: value for key, value in before.items() if key not in ("config", "data")}
    assert find_changes(without, now, now["bundle"]) is None  # of an earlier release
    with pytest.raises(UserError, match="lacks the config"):
        find_changes(without | {"format": 2}, now, now["bundle"])
