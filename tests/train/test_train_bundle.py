"""A bundle loads to what was saved, says what it is, and refuses what does not fit."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from rt2_jax.actions.embodiment import load_card, with_hash
from rt2_jax.bundle.spec import BUNDLE_FORMAT, BundleSpec, VocabularySpec, bundle_spec, model_hash
from rt2_jax.bundle.store import BUNDLE_KIND, load_bundle, open_folder, save_bundle, still_there
from rt2_jax.errors import UserError
from rt2_jax.files.manifest import read_manifest
from rt2_jax.files.writing import seal
from rt2_jax.models.backbone import make_backbone
from rt2_jax.tokens.adapt import adapt_vocabulary
from rt2_jax.tokens.vocabulary import Vocabulary
from rt2_jax.train.config import make_config
from rt2_jax.train.resolve import model_config

# Where data do not decode Orbax drops its other reads on the floor, which Python reports when it collects them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def parts(small_fields):
    """(params, spec, vocabulary) of a small model with random numbers for weights."""
    vocabulary, card = Vocabulary.load(), load_card("tabletop")
    model = model_config(make_config(small_fields), vocabulary)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(make_backbone(model).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    spec = bundle_spec(model, vocabulary, {card.name: card}, prompt_len=8, target_len=12, step=7)
    return params, spec, vocabulary


@pytest.fixture
def bundle(parts, tmp_path):
    """A bundle's folder."""
    save_bundle(tmp_path / "bundle", *parts)
    return tmp_path / "bundle"


def test_it_loads_to_what_was_saved(bundle, parts):
    loaded = load_bundle(bundle)
    assert loaded.spec == parts[1] and loaded.spec.step == 7 and loaded.spec.format == BUNDLE_FORMAT
    assert loaded.embodiments == {"tabletop": load_card("tabletop")}
    for a, b in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(parts[0]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bfloat16_halves_the_size_and_loads_as_float32(bundle, parts, tmp_path):
    def size(path):
        return sum(file.stat().st_size for file in (path / "params").rglob("*") if file.is_file())

    save_bundle(tmp_path / "half", *parts, dtype="bfloat16")
    numbers = sum(leaf.size for leaf in jax.tree.leaves(parts[0]))
    # Two bytes a number less; what Orbax writes beside the numbers differs by tens of kB from one save to the next.
    assert size(bundle) < 4 * numbers + 200_000 and size(tmp_path / "half") < size(bundle) - numbers
    loaded = load_bundle(tmp_path / "half")
    for a, b in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(parts[0]), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=2**-8)


def test_it_can_be_moved_and_names_no_place(bundle, parts, tmp_path):
    moved = bundle.rename(tmp_path / "moved")
    assert all(bytes(tmp_path) not in file.read_bytes() for file in moved.rglob("*") if file.is_file())
    assert load_bundle(moved).spec == parts[1]


def test_writing_again_replaces_it_and_leaves_nothing_beside(bundle, parts, tmp_path):
    save_bundle(bundle, parts[0], dataclasses.replace(parts[1], step=8), parts[2])
    assert load_bundle(bundle).spec.step == 8
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_one_that_cannot_fit_is_refused_and_the_old_one_stays(bundle, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000 - 1))
    weights = {"kernel": np.zeros((500, 500), np.float32)}
    with pytest.raises(UserError, match=r"no space left for .*bundle: 1\.0 MB are needed, 1\.0 MB are free; free some"):
        save_bundle(bundle, weights, *parts[1:])
    assert load_bundle(bundle).spec.step == 7
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def change_meta(**changes):
    """Somebody's edit of bundle.json, sealed again by their own hand: what is inside must still fit together."""

    def change(path):
        meta = json.loads((path / "bundle.json").read_text())
        (path / "bundle.json").write_text(json.dumps({**meta, **changes}))
        seal(path, BUNDLE_KIND)

    return change


def cut_weights(path):
    for file in (path / "params").glob("ocdbt.process_*/d/*"):
        file.write_bytes(file.read_bytes()[:10])


def as_before_embodiments(path):
    """bundle.json as the second format has it; returned, and written."""
    meta = json.loads((path / "bundle.json").read_text())
    (card,) = (one["card"] for one in meta.pop("embodiments").values())
    bins = card.pop("bins")
    for name in ("robot", "gripper", "control_hz", "cameras", "history", "chunk", "proprioception"):
        del card[name]
    meta |= {"format": 2, "card": card | {"format": 1, "space": bins["space"]}, "bins": bins}
    (path / "bundle.json").write_text(json.dumps(meta))
    seal(path, BUNDLE_KIND)
    return meta


def without_hashes(path):
    """The bundle as the first releases wrote it."""
    as_before_embodiments(path)
    change_meta(format=1)(path)
    (path / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "bundle.json").unlink(), "has no bundle.json; name a bundle or a run directory"),
        (lambda path: (path / "bundle.json").write_text("{"), "is not JSON"),
        (change_meta(format=99), "has format 99, this release reads 1 to 3"),
        (change_meta(grammar={"sha256": "f" * 64}), "is not the bundle's ffffffffffff"),
        (change_meta(vocabulary={"file": "vocabulary.model", "sha256": "e" * 64}), "is not eeeeeeeeeeee"),
        (lambda path: (path / "vocabulary.model").unlink(), "vocabulary.model is missing"),
        (lambda path: (path / "vocabulary.model").write_bytes(b"x"), "vocabulary.model has 1 bytes instead of"),
        (lambda path: (path / "params" / "commit_success.txt").unlink(), "params/commit_success.txt is missing"),
        (lambda path: (path / "params" / "manifest.ocdbt").unlink(), "params/manifest.ocdbt is missing"),
        (cut_weights, "has 10 bytes instead of"),
        (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing, so it is not whole"),
        (lambda path: (path / "params" / "stray").write_text("x"), "params/stray does not belong to it"),
    ],
)
def test_what_is_damaged_is_named(bundle, damage, message):
    damage(bundle)
    with pytest.raises(UserError, match=message):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "vocabulary.model").unlink(), "vocabulary.model does not exist"),
        (lambda path: (path / "vocabulary.model").write_bytes(b"x"), "is not a SentencePiece model"),
        (lambda path: (path / "params" / "commit_success.txt").unlink(), "holds no complete weights"),
        (lambda path: (path / "params" / "manifest.ocdbt").unlink(), "cannot be read"),
        (cut_weights, "cannot be read"),
    ],
)
def test_a_bundle_without_hashes_shows_what_it_can(bundle, damage, message, caplog):
    without_hashes(bundle)
    assert load_bundle(bundle).spec.step == 7
    assert "without hashes, so its bytes are taken on trust; export it again" in caplog.text
    damage(bundle)
    with pytest.raises(UserError, match=message):
        load_bundle(bundle)


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_no_flipped_bit_loads(bundle):
    rng = np.random.default_rng(0)
    files = [path for path in sorted(bundle.rglob("*")) if path.is_file()]
    for path in files:
        for bit in rng.integers(0, 8 * path.stat().st_size, 6):
            flip(path, bit)
            with pytest.raises(UserError):
                open_folder(bundle)
            flip(path, bit)
    assert open_folder(bundle).identity == read_manifest(bundle).identity


def test_weights_of_another_bundle_do_not_load(bundle, parts, tmp_path):
    params = jax.tree.map(lambda leaf: leaf + 1, parts[0])
    save_bundle(tmp_path / "other", params, *parts[1:])
    shutil.rmtree(bundle / "params")
    shutil.copytree(tmp_path / "other" / "params", bundle / "params")
    with pytest.raises(UserError, match="params/"):
        load_bundle(bundle)


def test_what_is_not_verified_is_told_by_names_and_sizes_alone(bundle):
    flip(next((bundle / "params").glob("ocdbt.process_*/d/*")), 77)
    assert open_folder(bundle, verify=False).spec.step == 7
    (bundle / "params" / "_METADATA").unlink()
    with pytest.raises(UserError, match="_METADATA is missing"):
        open_folder(bundle, verify=False)


def raised(space, field, value):
    return {**space, field: [value if i == 3 else old for i, old in enumerate(space[field])]}


def test_bounds_that_are_not_the_cards_are_refused(bundle, parts):
    old = as_before_embodiments(bundle)
    bins = old["bins"]
    change_meta(bins={**bins, "space": raised(bins["space"], "high", 9.0)})(bundle)
    with pytest.raises(UserError, match=r"bins and card differ in space.high: \[.*9.0.*\] and \["):
        load_bundle(bundle)


def test_a_bundle_of_the_second_format_is_one_embodiment(bundle, parts):
    old = as_before_embodiments(bundle)
    loaded = load_bundle(bundle)
    assert loaded.embodiments == parts[1].embodiments and loaded.spec.format == 2
    assert BundleSpec.from_json(loaded.spec.to_json()) == dataclasses.replace(parts[1])
    for wrong in ({"card": None}, {"bins": None}, {"card": 3}, {"bins": {"space": 1}}, {"embodiments": {}}):
        change_meta(**old | wrong)(bundle)
        with pytest.raises(UserError, match="bundle.json"):
            load_bundle(bundle)


WRONG_META = [
    {"model": 5}, {"model": {}}, {"vocabulary": []}, {"vocabulary": {"file": "../x", "sha256": "e" * 64}},
    {"vocabulary": {"file": "/etc/passwd", "sha256": "e" * 64}}, {"vocabulary": {"file": "vocabulary.model"}},
    {"embodiments": 3}, {"embodiments": None}, {"embodiments": {}}, {"embodiments": {"a": {"space": 1}}},
    {"embodiments": {"a": with_hash(load_card("tabletop"))}}, {"grammar": "x"}, {"grammar": {"sha256": 3}},
    {"prompt_len": "8"}, {"prompt_len": 0}, {"prompt_len": 10**30}, {"target_len": None}, {"image_size": 31},
    {"step": -1}, {"step": True}, {"tasks": {"a": "b"}}, {"tasks": 7}, {"format": "2"}, {"format": True},
    {"sources": "x"}, {"exported_from": "y"}, {"surprise": 1},
]  # fmt: skip


@pytest.mark.parametrize("changes", WRONG_META, ids=str)
def test_a_wrong_field_of_bundle_json_is_one_line(bundle, changes):
    change_meta(**changes)(bundle)
    with pytest.raises(UserError) as told:
        load_bundle(bundle)
    assert "\n" not in str(told.value) and "bundle.json" in str(told.value)


def test_weights_that_were_shown_no_robot_load_without_actions(bundle, parts, tmp_path):
    spec = dataclasses.replace(parts[1], embodiments={}, grammar=None)
    save_bundle(tmp_path / "vlm", parts[0], spec, parts[2])
    loaded = load_bundle(tmp_path / "vlm")
    assert loaded.embodiments == {} and loaded.spec.prompt_len == 8


def test_weights_of_another_model_are_refused(bundle, parts):
    model = parts[1].model.to_json()
    model["text"]["mlp"] = 64
    change_meta(model=model)(bundle)
    with pytest.raises(UserError, match=r"has shape \(.*, this model needs \(.*; use the model"):
        load_bundle(bundle)


def test_a_dtype_or_vocabulary_that_does_not_fit_is_refused(parts, tmp_path):
    params, spec, vocabulary = parts
    with pytest.raises(UserError, match="dtype 'int8' is unknown"):
        save_bundle(tmp_path / "b", params, spec, vocabulary, dtype="int8")
    with pytest.raises(UserError, match="is not dddddddddddd"):
        other = dataclasses.replace(spec, vocabulary=VocabularySpec("vocabulary.model", "d" * 64))
        save_bundle(tmp_path / "b", params, other, vocabulary)
    assert not (tmp_path / "b").exists()


def test_the_model_hash_is_of_what_the_weights_mean(parts):
    model = parts[1].model.to_json()
    same = {**model, "remat": "full", "name": "other", "text": {**model["text"], "dropout_rate": 0.5}}
    assert model_hash(same) == model_hash(model)
    assert model_hash({**model, "image_size": 64}) != model_hash(model)
    # Written before the field existed: its default.
    assert model_hash({key: value for key, value in model.items() if key != "num_images"}) == model_hash(model)


def test_the_integers_are_saved_and_compared(bundle, parts):
    saved = json.loads((bundle / "bundle.json").read_text())["vocabulary"]
    assert saved["integer_ids"] == parts[2].integer_ids.tolist()
    wrong = [*saved["integer_ids"][:5], 3, *saved["integer_ids"][6:]]
    change_meta(vocabulary={**saved, "integer_ids": wrong})(bundle)
    with pytest.raises(UserError, match=r"the integer 5 is token 3 in bundle.json, \d+ in its vocabulary; use the rel"):
        load_bundle(bundle)
    change_meta(vocabulary={**saved, "integer_ids": saved["integer_ids"][:9]})(bundle)
    with pytest.raises(UserError, match=r"the integer 9 is token None in bundle.json"):
        load_bundle(bundle)


def test_a_bundle_of_an_earlier_release_has_no_integers_and_loads(bundle, parts):
    saved = json.loads((bundle / "bundle.json").read_text())["vocabulary"]
    change_meta(vocabulary={"file": saved["file"], "sha256": saved["sha256"]})(bundle)
    assert load_bundle(bundle).vocabulary.sha256 == parts[2].sha256


def test_an_overwritten_vocabulary_travels_with_the_bundle(small_fields, foreign, tmp_path):
    (tmp_path / "t5.model").write_bytes(foreign.train("t5"))
    vocabulary = adapt_vocabulary(tmp_path / "t5.model", tmp_path / "adapted.model", corpus=foreign.CORPUS)
    card = load_card("tabletop")
    model = model_config(make_config(small_fields), vocabulary)
    params = make_backbone(model).init(jax.random.key(0))
    spec = bundle_spec(model, vocabulary, {card.name: card}, prompt_len=8, target_len=12)
    save_bundle(tmp_path / "bundle", params, spec, vocabulary)
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.vocabulary.integer_words[128] == "<128>" and loaded.vocabulary.sha256 == vocabulary.sha256
    assert list(loaded.spec.vocabulary.integer_ids) == vocabulary.integer_ids.tolist()


def test_a_step_that_its_run_removes_meanwhile_is_told_as_such(tmp_path):
    step = tmp_path / "checkpoints" / "2"
    step.mkdir(parents=True)
    with pytest.raises(FileNotFoundError), still_there(tmp_path, 2):
        raise FileNotFoundError
    with pytest.raises(UserError, match="removed step 2 while it was read"), still_there(tmp_path, 2):
        step.rmdir()
        raise FileNotFoundError
    with pytest.raises(ZeroDivisionError), still_there(tmp_path, None):
        raise ZeroDivisionError
