"""A config is checked whole before any work, and what is wrong with it is named."""

import dataclasses
import json
import os
from types import SimpleNamespace

import ml_collections
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.data.mixtures import Mixture, record_mixture
from rt2_jax.errors import UserError
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.train.config import (
    CHANGEABLE,
    AugmentConfig,
    OptimizerConfig,
    TrainConfig,
    load_config,
    make_config,
)
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
        ({"optimizer": {"learning_rate": 10**400}}, r"optimizer.learning_rate is 2\*\*1328 or more"),
        ({"steps": 10**30}, "steps is 1000000000000000000000000000000, allowed: 1 to"),
        ({"steps": 10**5000}, r"steps is 2\*\*16609 or more, allowed: 1 to"),
        ({"prompt_len": 2**40}, "prompt_len is 1099511627776, allowed: 1 to"),
        ({"augment": {"brightness": float("nan")}}, "augment.brightness is nan, allowed: 0.0 to 1.0"),
        ({"data_dir": "a\0"}, "data_dir is .* holds a character that is no text"),
        ({"data_dir": "x" * 5000}, "data_dir is .* allowed: 0 to 4096 characters"),
        ({"mixture": {"a": 1e300}}, "mixture.a is 1e[+]300, allowed: above 0"),
        ({"mixture": {"a": "1"}}, r"mixture.a is '1' \(str\), needs float"),
        ({"mixture": ""}, "mixture is ''; name one task"),
        ({"mesh": {"data": 0}}, "mesh is {'data': 0}; each size must be 1 or more"),
        ({"mesh": {"data": -1, "fsdp": -1}}, "one may be -1"),
        ({"mesh": {"data": -2}}, "mesh.data is -2, allowed: -1 to"),
        ({"mesh": {"data": 2.0}}, r"mesh.data is 2.0 \(float\), needs int"),
        ({"mesh": 4}, r"mesh is 4 \(int\), needs a dict of int"),
        ({"freeze": "abc"}, r"freeze is 'abc' \(str\), needs a list of"),
        ({"freeze": ["ab"]}, r"freeze\[0\] is 'ab' \(str\), needs a list of 2"),
        ({"freeze": [[1, "train"]]}, r"freeze\[0\]\[0\] is 1 \(int\), needs str"),
        ({"freeze": {".*": "train"}}, "freeze is .* needs a list of"),
        ({"lora": {"pattern": "(", "rank": 1, "alpha": 1}}, r"config: .*lora pattern '\(' is not a regular expression"),
        ({"lora": {"pattern": ".*", "rank": 0, "alpha": 1}}, "config: lora.rank is 0, allowed: 1 to"),
        ({"card": "tabletop"}, "config: card is gone: a run takes its action bounds from its prepared data; remove it"),
        ({"may_change": ["steps"]}, r"may_change\[0\] is 'steps'; allowed: optimizer.learning_rate, "),
        ({"may_change": "z_loss"}, r"may_change is 'z_loss' \(str\), needs a list"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(UserError, match=message) as caught:
        make_config({**NEEDED, **change})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_config_cannot_be_made_wrong_past_the_reader():
    config = make_config(NEEDED)
    with pytest.raises(UserError, match="config: steps is 0"):
        dataclasses.replace(config, steps=0)
    with pytest.raises(UserError, match="batch_size 4 does not divide into microbatches = 3"):
        dataclasses.replace(config, microbatches=3)
    with pytest.raises(UserError, match="config: optimizer.name is 'sgd'"):
        OptimizerConfig(name="sgd")
    with pytest.raises(UserError, match="config: augment.shift is -1"):
        AugmentConfig(shift=-1)


def test_what_may_change_is_told_by_name():
    assert make_config({**NEEDED, "may_change": list(CHANGEABLE)}).may_change == CHANGEABLE
    # Each is a field, but for the model's, which is one of the model's own.
    fields = json.loads(make_config(NEEDED).to_json())
    for name in CHANGEABLE:
        group, _, field = name.rpartition(".")
        assert group == "model" or field in (fields[group] if group else fields)


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
        ("--config.=1", "names no field of a config"),
        ("--config.optimizer..name=adamw", "names no field of a config"),
        ("--config.optimizer.=adamw", "names no field of a config"),
        ("--config." + "a." * 5000 + "b=1", "names no field of a config"),
        ("--config.a.b=1", "unknown key a"),
        ("--config.steps\n=1", r"unknown key 'steps\\n' = 1"),
        ("--config.steps=1e400", "steps is '1e400' .str., needs int"),
        ("--config.steps=" + "9" * 5000, "steps is "),
        ("--config.z_loss=NaN", "z_loss is 'NaN' .str., needs float"),
        ("--config.z_loss=Infinity", "z_loss is 'Infinity' .str., needs float"),
        ("--config.model=" + "[" * 100_000, "levels deep"),
        ("--config.model=" + '{"a":' * 200 + "1" + "}" * 200, "levels deep"),
        ("--config.mesh={data: 1}", "is not JSON"),
        ("--config.mesh=2", "mesh is 2 .int., needs a dict of int"),
        ("--config.data_dir=\udcff", "data_dir is .* no text"),
    ],
)
def test_an_argument_that_sets_nothing_is_refused(tmp_path, override, message):
    path = write(tmp_path / "run.py", f"return {NEEDED!r}")
    with pytest.raises(UserError, match=message) as caught:
        load_config(path, [override])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_file_that_is_no_config_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_config(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="no get_config"):
        load_config(tmp_path / "empty.py")
    for body in ("return 3", "c = ml_collections.ConfigDict(); return c.steps", "return 1 +"):
        with pytest.raises(UserError, match="run.py"):
            load_config(write(tmp_path / "run.py", body))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"import sys\nsys.exit(0)\n", "does not run: SystemExit: 0; fix the file"),
        (b"def get_config():\n    raise SystemExit\n", "does not run: SystemExit: SystemExit; fix the file"),
        (b"def get_config():\n    raise GeneratorExit('a\\nb')\n", "does not run: GeneratorExit: a; fix the file"),
        (b"x = '\xff'\n", "does not run: SyntaxError: "),
        (b"def get_config(:\n", "does not run: SyntaxError: "),
        (b"\x00\x01", "does not run: "),
        (b"def get_config():\n    d = {}\n    d['model'] = d\n    return d\n", "nested more than 64 levels deep"),
    ],
)
def test_a_file_that_does_not_run_is_refused_in_one_line(text, message, tmp_path):
    path = tmp_path / "run.py"
    path.write_bytes(text)
    with pytest.raises(UserError, match=message) as caught:
        load_config(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_path_that_is_no_file_is_refused(tmp_path):
    for path, message in (
        (tmp_path, "is no file"),
        (tmp_path / ("x" * 300), "does not exist"),
        ("a\0", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            load_config(path)
    write(tmp_path / "config.txt", f"return {NEEDED!r}")
    assert load_config(tmp_path / "config.txt").steps == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = write(tmp_path / "run.py", f"return {NEEDED!r}")
    path.chmod(0)
    with pytest.raises(UserError, match="does not run: PermissionError"):
        load_config(path)


def test_a_model_is_a_name_or_a_name_with_changes():
    vocabulary = Vocabulary.load()
    config = make_config({**NEEDED, "model": {"size": "small", "text": {"mlp": 64}}, "dropout": 0.25})
    model = model_config(config, vocabulary)
    assert (model.text.mlp, model.text.dropout_rate, model.vocab_size) == (64, 0.25, vocabulary.size)
    assert model.vision == model_config(make_config({**NEEDED, "model": "small"}), vocabulary).vision
    for wrong, message in (("huge", "'huge' is unknown"), ({"depth": 1}, "depth"), ({"text": {"depth": 1}}, "depth")):
        with pytest.raises(UserError, match=message):
            model_config(make_config({**NEEDED, "model": wrong}), vocabulary)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"size": 5}, r"config: model.size is 5 \(int\), needs str"),
        ("x" * 3000, "model size 'xxx.*' is unknown"),
        ({"size": "a\0b"}, "is unknown"),
        ({"text": 3}, "config: model.text is 3 .*needs a group of the fields of EncoderDecoderConfig"),
        ({"text": None}, "config: model.text is None, needs a group"),
        ({"vision": [1]}, "config: model.vision is .*needs a group of the fields of VitConfig"),
        ({"text": {"heads": 0}}, "config: model.text.heads is 0, allowed: 1 to"),
        ({"text": {"heads": "4"}}, r"config: model.text.heads is '4' \(str\), needs int"),
        ({"text": {"encoder_layers": 0}}, "config: model.text.encoder_layers is 0, allowed: 1 to"),
        ({"text": {"mlp": 2**40}}, "config: model.text.mlp is 1099511627776, allowed: 1 to"),
        ({"text": {"mpl": 8}}, "config: unknown key model.text.mpl = 8; did you mean model.text.mlp"),
        ({"text": {"kind": "rnn"}}, "config: model.text.kind is 'rnn'; allowed: encoder_decoder, prefix_lm"),
        ({"text": {"kind": ["rnn"]}}, "config: model.text.kind is .'rnn',.; allowed"),
        ({"text": {"relative_buckets": 2}}, "config: model.text.relative_buckets is 2, allowed: 4 to"),
        ({"text": {"relative_max_distance": 8}}, "relative_max_distance 8 must be above 16"),
        ({"vision": {"patch_size": 0}}, "config: model.vision.patch_size is 0, allowed: 1 to"),
        ({"vision": {"layers": 0}}, "config: model.vision.layers is 0, allowed: 1 to"),
        ({"vision": {"stem_widths": [1] * 50}}, "config: model.vision.stem_widths is .*, allowed: 0 to 8 entries"),
        ({"image_size": 0}, "config: model.image_size is 0, allowed: 1 to"),
        ({"image_size": 97}, "config: model: image_size 97 is no multiple of patch_size 12"),
        ({"remat": 1}, r"config: model.remat is 1 \(int\), needs 'none' or"),
        ({"vocab_size": 5}, "config: model.vocab_size is 5; the vocabulary decides it; remove it"),
        ({"lora": {}}, "config: model.lora is {}; set the config's own lora instead"),
    ],
)
def test_a_wrong_model_is_refused_before_any_work(model, message):
    vocabulary = SimpleNamespace(size=2304, image_id=None)
    with pytest.raises(UserError, match=message) as caught:
        model_config(make_config({**NEEDED, "model": model}), vocabulary)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_model_without_vision_can_be_given_one_and_the_other_way_round():
    vocabulary = SimpleNamespace(size=2304, image_id=None)

    def resolved(model):
        return model_config(make_config({**NEEDED, "model": model}), vocabulary)

    blind = {"size": "tiny", "vision": None, "num_images": 0}
    assert resolved(blind).vision is None
    assert resolved("tiny").replace(vision=None, num_images=0) == resolved(blind)
    vision = {"patch_size": 12, "width": 8, "layers": 1, "heads": 1, "head_dim": 8, "mlp": 8}
    assert resolved(blind).replace(vision=vision, num_images=1).vision.width == 8
    with pytest.raises(UserError, match="model: vision.mlp is missing"):
        resolved(blind).replace(vision={**{key: vision[key] for key in vision if key != "mlp"}}, num_images=1)


def test_a_picture_is_not_shifted_out_of_its_frame():
    vocabulary = SimpleNamespace(size=2304, image_id=None)
    model_config(make_config({**NEEDED, "augment": {"shift": 95}}), vocabulary)
    for shift in (96, 100_000):
        with pytest.raises(
            UserError, match=f"augment.shift is {shift}, allowed: 0 to 95, less than the model's frames"
        ):
            model_config(make_config({**NEEDED, "augment": {"shift": shift}}), vocabulary)


def test_a_mixture_is_a_recorded_name_or_weights(tmp_path):
    assert task_weights(make_config(NEEDED)) == {"a": 1.0}
    weights = {"z": 1 / 3, "a": 2.0}
    record_mixture(tmp_path, Mixture("mine", weights))
    found = task_weights(make_config({**NEEDED, "data_dir": str(tmp_path), "mixture": "mine"}))
    assert list(found.items()) == list(weights.items())
    for name in ("none", "../mine", ".", "a/b", "x" * 5000, "\n"):
        with pytest.raises(UserError, match=r"is not recorded in .* \(recorded: mine\); run `rt2 data prepare --data"):
            task_weights(make_config({**NEEDED, "data_dir": str(tmp_path), "mixture": name}))


def test_config_dicts_and_plain_dicts_are_alike():
    assert make_config(ml_collections.ConfigDict(NEEDED)) == make_config(NEEDED)


def test_a_prefix_lm_takes_the_vocabularys_image_token():
    def image_id(model, image_id):
        vocabulary = SimpleNamespace(size=2304, image_id=image_id)
        return getattr(model_config(make_config({**NEEDED, "model": model}), vocabulary).text, "image_id", "none")

    assert image_id("tiny_palm_e", 7) == 7 and image_id("tiny_palm_e", None) is None
    assert image_id({"size": "tiny_palm_e", "text": {"image_id": 9}}, 7) == 9
    assert image_id("tiny", 7) == "none"
