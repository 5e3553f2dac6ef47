"""A config is checked whole before any work, and what is wrong with it is named."""

import json
from types import SimpleNamespace

import ml_collections
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.errors import UserError
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.train.config import TrainConfig, load_config, make_config
from rt2_jax.train.resolve import model_config, task_weights

NEEDED = {"data_dir": "d", "mixture": {"a": 1}, "steps": 5, "batch_size": 4}


def test_defaults_fill_what_is_not_said():
    config = make_config(NEEDED)
    assert config.model == "tiny" and config.optimizer.name == "adafactor" and config.mixture == {"a": 1.0}


def test_json_comes_back_equal():
    config = make_config({**NEEDED, "freeze": [["a.*", "train"]], "optimizer": {"name": "adamw"}, "dropout": 0.1})
    assert make_config(json.loads(config.to_json())) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 5}, "unknown key stepz = 5; did you mean steps"),
        ({"optimizer": {"learning_rte": 1}}, "optimizer.learning_rte = 1; did you mean optimizer.learning_rate"),
        ({"steps": 0}, "steps is 0, allowed: 1 to"),
        ({"steps": 2.5}, r"steps is 2.5 \(float\), needs int"),
        ({"steps": True}, r"steps is True \(bool\), needs int"),
        ({"batch_size": "64"}, r"batch_size is '64' \(str\), needs int"),
        ({"batch_size": 6, "microbatches": 4}, "batch_size 6 does not divide into microbatches = 4"),
        ({"optimizer": {"name": "sgd"}}, "optimizer.name is 'sgd'; allowed: adafactor, adamw"),
        ({"optimizer": {"schedule": "step"}}, "optimizer.schedule is 'step'; allowed: rsqrt, constant, cosine"),
        ({"optimizer": {"warmup_steps": 0}}, "optimizer.warmup_steps is 0, allowed: at least 1"),
        ({"optimizer": 3}, "optimizer is 3, needs a group"),
        ({"mesh": {"model": 2}}, "mesh is 'model'; allowed: slice, data, fsdp, tensor"),
        ({"mixture": {}}, "mixture is {}; name one task"),
        ({"mixture": {"a": 0}}, "mixture.a is 0, allowed: above 0"),
        ({"mixture": 3}, "mixture is 3"),
        ({"dropout": 1.0}, "dropout is 1.0, allowed: 0.0 to 0.99"),
        ({"freeze": [["a(", "train"]]}, "is not a regular expression"),
        ({"freeze": [["a", "melt"]]}, r"freeze\[0\]\[1\] is 'melt'; allowed: train, frozen"),
        ({"freeze": [["a"]]}, r"freeze\[0\] is"),
        ({"seed": -1}, "seed is -1, allowed: 0 to"),
        ({"z_loss": float("nan")}, "z_loss is nan, allowed: at least 0.0"),
        ({"optimizer": {"learning_rate": float("inf")}}, "learning_rate is inf"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(UserError, match=message):
        make_config({**NEEDED, **change})


@pytest.mark.parametrize("key", sorted(NEEDED))
def test_what_is_missing_is_named(key):
    fields = {name: value for name, value in NEEDED.items() if name != key}
    with pytest.raises(UserError, match=f"{key} is missing; set it"):
        make_config(fields)


@given(key=st.text(st.characters(categories=["L"]), min_size=1), value=st.one_of(st.integers(), st.text(), st.none()))
def test_no_unknown_key_passes(key, value):
    if key not in TrainConfig.__dataclass_fields__:
        with pytest.raises(UserError, match="unknown key"):
            make_config({**NEEDED, key: value})


def write(path, body):
    path.write_text("import ml_collections\ndef get_config():\n    " + body)
    return path


def test_a_file_and_what_the_command_line_sets(tmp_path):
    path = write(tmp_path / "run.py", f"return ml_collections.ConfigDict({NEEDED!r})")
    overrides = ["--config.steps=7", "--config.optimizer.name=adamw", "--config.mixture=web", "--config.mesh.data=-1"]
    config = load_config(path, overrides)
    assert (config.steps, config.optimizer.name, config.mixture, config.mesh) == (7, "adamw", "web", {"data": -1})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=7", "'steps=7' is unknown; set a config's value as --config.steps=100"),
        ("--config.steps", "is unknown"),
        ("--config.steps.more=1", "steps is not a group"),
        ("--config.steps=many", "steps is 'many'"),
    ],
)
def test_an_argument_that_sets_nothing_is_refused(tmp_path, override, message):
    path = write(tmp_path / "run.py", f"return {NEEDED!r}")
    with pytest.raises(UserError, match=message):
        load_config(path, [override])


def test_a_file_that_is_no_config_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_config(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="no get_config"):
        load_config(tmp_path / "empty.py")
    for body in ("return 3", "c = ml_collections.ConfigDict(); return c.steps", "return 1 +"):
        with pytest.raises(UserError, match="run.py"):
            load_config(write(tmp_path / "run.py", body))


def test_a_model_is_a_name_or_a_name_with_changes():
    vocabulary = Vocabulary.load()
    config = make_config({**NEEDED, "model": {"size": "small", "text": {"mlp": 64}}, "dropout": 0.25})
    model = model_config(config, vocabulary)
    assert (model.text.mlp, model.text.dropout_rate, model.vocab_size) == (64, 0.25, vocabulary.size)
    assert model.vision == model_config(make_config({**NEEDED, "model": "small"}), vocabulary).vision
    for wrong, message in (("huge", "'huge' is unknown"), ({"depth": 1}, "depth"), ({"text": {"depth": 1}}, "depth")):
        with pytest.raises(UserError, match=message):
            model_config(make_config({**NEEDED, "model": wrong}), vocabulary)


def test_a_mixture_is_a_name_or_weights():
    assert task_weights(make_config(NEEDED)) == {"a": 1.0}
    named = task_weights(make_config({**NEEDED, "mixture": "tabletop_cofinetune_50"}))
    assert sum(weight for task, weight in named.items() if "robot" in task) == pytest.approx(0.5)
    with pytest.raises(UserError, match="'none' is unknown"):
        task_weights(make_config({**NEEDED, "mixture": "none"}))


def test_config_dicts_and_plain_dicts_are_alike():
    assert make_config(ml_collections.ConfigDict(NEEDED)) == make_config(NEEDED)


def test_a_prefix_lm_takes_the_vocabularys_image_token():
    def image_id(model, image_id):
        vocabulary = SimpleNamespace(size=2304, image_id=image_id)
        return getattr(model_config(make_config({**NEEDED, "model": model}), vocabulary).text, "image_id", "none")

    assert image_id("tiny_palm_e", 7) == 7 and image_id("tiny_palm_e", None) is None
    assert image_id({"size": "tiny_palm_e", "text": {"image_id": 9}}, 7) == 9
    assert image_id("tiny", 7) == "none"
