"""A checkpoint is whole or it is passed over; what is restored is what was saved, bit for bit."""

import json
import os
import pathlib
import random
import resource
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rt2_jax.bundle.steps import complete_steps, read_progress, whole_steps, why_damaged, why_incomplete
from rt2_jax.errors import UserError
from rt2_jax.files.disk import raise_if_disk_full
from rt2_jax.files.manifest import read_manifest
from rt2_jax.models.sizes import SIZES
from rt2_jax.train import checkpoint
from rt2_jax.train.checkpoint import Checkpoints, Progress
from rt2_jax.train.state import TrainState

# Where data do not decode Orbax drops its other reads on the floor, which Python reports when it collects them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

META = {"vocabulary": {"sha256": "a" * 64}, "model": SIZES["tiny"].to_json()}


def state(step):
    rng = np.random.default_rng(step)
    params = {"layer": {"kernel": jnp.asarray(rng.normal(size=(200, 200)), jnp.float32)}, "bias": jnp.zeros(3)}
    moments = optax.ScaleByAdamState(count=jnp.int32(step), mu=params, nu=jax.tree.map(jnp.square, params))
    return TrainState(jnp.int32(step), params, (optax.EmptyState(), moments))


def abstract(of):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), of)


def restore(run_dir, meta=META, like=None):
    with Checkpoints(run_dir, meta) as checkpoints:
        return checkpoints.restore(abstract(like or state(0)))


@pytest.fixture
def run_dir(tmp_path):
    """Steps 2, 4 and 6, of which the last two are kept."""
    with Checkpoints(tmp_path, META, keep=2) as checkpoints:
        for step in (2, 4, 6):
            checkpoints.save(state(step), Progress(step, step * 8))
    return tmp_path


def assert_is(found, step):
    restored, progress = found
    assert progress == Progress(step, step * 8)
    wanted = state(step)
    assert jax.tree.structure(restored) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_newest_step_comes_back_and_old_ones_go(run_dir):
    assert complete_steps(run_dir / "checkpoints") == [6, 4]
    assert_is(restore(run_dir), 6)


def test_an_empty_run_has_nothing_to_restore(tmp_path):
    assert restore(tmp_path) is None


def cut_data(step_dir):
    for path in (step_dir / "params").glob("ocdbt.process_*/d/*"):
        path.write_bytes(path.read_bytes()[:20])


def add_a_file(step_dir):
    (step_dir / "params" / "more").write_text("x")


def cut_one_byte(step_dir):
    path = max((path for path in step_dir.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(path, path.stat().st_size - 1)


def take_from_another(item):
    def take(step_dir):
        shutil.rmtree(step_dir / item)
        shutil.copytree(step_dir.with_name("4") / item, step_dir / item)

    return take


def be_another(step_dir):
    shutil.rmtree(step_dir)
    shutil.copytree(step_dir.with_name("4"), step_dir)


DAMAGE = {
    "commit file": lambda step_dir: (step_dir / "commit_success.txt").unlink(),
    "metadata": lambda step_dir: (step_dir / "_CHECKPOINT_METADATA").unlink(),
    "folder": lambda step_dir: shutil.rmtree(step_dir / "opt_state"),
    "data folder": lambda step_dir: shutil.rmtree(step_dir / "params" / "ocdbt.process_0" / "d"),
    "progress": lambda step_dir: (step_dir / "progress" / "metadata").write_text("{"),
    "cut data": cut_data,
    "no manifest": lambda step_dir: (step_dir / "manifest.json").unlink(),
    "a file too many": add_a_file,
    "a byte too few": cut_one_byte,
    "params of another step": take_from_another("params"),
    "opt_state of another step": take_from_another("opt_state"),
    "progress of another step": take_from_another("progress"),
    "another step altogether": be_another,
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_step_is_passed_over_and_its_number_is_free_again(run_dir, what, caplog, capfd):
    DAMAGE[what](run_dir / "checkpoints" / "6")
    assert_is(restore(run_dir), 4)
    # One line, and nothing from Orbax or tensorstore, which never see the step.
    said = [record.getMessage() for record in caplog.records if record.name == "rt2_jax.bundle.steps"]
    assert len(said) == 1 and said[0].startswith("checkpoint step 6 is passed over: ")
    assert capfd.readouterr().err == ""
    assert (run_dir / "checkpoints" / "damaged_6_0").is_dir()
    with Checkpoints(run_dir, META) as checkpoints:
        checkpoints.save(state(6), Progress(6, 48))
    assert_is(restore(run_dir), 6)


def test_no_flipped_bit_is_restored(run_dir):
    step_dir = run_dir / "checkpoints" / "6"
    files = [path for path in sorted(step_dir.rglob("*")) if path.is_file()]
    draw = random.Random(0)
    for path in [*files, *draw.choices(files, k=40)]:
        whole = path.read_bytes()
        bit = draw.randrange(8 * len(whole)) if whole else 0
        path.write_bytes(flipped(whole, bit) if whole else b"x")
        assert why_damaged(step_dir) is not None, (path, bit)
        assert next(whole_steps(run_dir / "checkpoints")) == 4
        path.write_bytes(whole)
    assert why_damaged(step_dir) is None


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_step_under_another_number_is_none(run_dir):
    (run_dir / "checkpoints" / "6").rename(run_dir / "checkpoints" / "9")
    assert why_damaged(run_dir / "checkpoints" / "9") == "it is sealed as checkpoint step 6"
    assert_is(restore(run_dir), 4)


def as_saved_before(step_dir):
    """The step as releases without manifests wrote it."""
    (step_dir / "manifest.json").unlink()
    path = step_dir / "progress" / "metadata"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({name: saved[name] for name in ("step", "example", "bundle")}))


def test_a_step_of_an_earlier_release_still_restores(run_dir):
    as_saved_before(run_dir / "checkpoints" / "6")
    assert_is(restore(run_dir), 6)
    (run_dir / "checkpoints" / "6").rename(run_dir / "checkpoints" / "9")
    assert why_damaged(run_dir / "checkpoints" / "9") == "it holds step 6"


def test_the_last_whole_step_goes_only_once_the_next_is_sealed(tmp_path, monkeypatch):
    seen = []
    seal = checkpoint.seal

    def failing(step_dir, *arguments):
        seen.append(list(whole_steps(step_dir.parent)))
        if step_dir.name == "4":
            raise OSError(28, "No space left on device")
        return seal(step_dir, *arguments)

    monkeypatch.setattr(checkpoint, "seal", failing)
    with pytest.raises(UserError, match="no space left"), Checkpoints(tmp_path, META, keep=1) as checkpoints:
        for step in (1, 2, 4, 6):
            checkpoints.save(state(step), Progress(step, step * 8))
    assert seen == [[], [1], [2]]
    assert_is(restore(tmp_path), 2)


def test_a_save_that_was_cut_off_before_its_seal_is_nothing_lost(run_dir, caplog):
    checkpoints = run_dir / "checkpoints"
    for step in (6, 4):
        (checkpoints / str(step) / "manifest.json").unlink()
        (checkpoints / f"saving_{step}").touch()
        if step == 6:
            assert_is(restore(run_dir), 4)
            assert not (checkpoints / "6").exists()
            assert "checkpoint step 6 is passed over: its save is not complete" in caplog.text
    assert restore(run_dir) is None
    with Checkpoints(run_dir, META) as saving:
        saving.save(state(2), Progress(2, 16))
    assert [path.name for path in checkpoints.iterdir()] == ["2"]


def test_a_removal_that_was_cut_off_is_finished(run_dir):
    (run_dir / "checkpoints" / "4").rename(run_dir / "checkpoints" / "old_4")
    with Checkpoints(run_dir, META) as checkpoints:
        checkpoints.save(state(8), Progress(8, 64))
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["6", "8"]


def test_waiting_is_over_when_the_step_is_sealed(tmp_path):
    with Checkpoints(tmp_path, META, facts={"config": {"steps": 9}}) as checkpoints:
        checkpoints.save(state(2), Progress(2, 16))
        checkpoints.wait()
        manifest = read_manifest(tmp_path / "checkpoints" / "2")
        assert (manifest.kind, manifest.facts) == ("checkpoint", {"step": 2})
        assert read_progress(tmp_path / "checkpoints" / "2")["config"] == {"steps": 9}


def test_what_is_not_admitted_changes_nothing(run_dir):
    def files():
        paths = [path for path in sorted(run_dir.rglob("*")) if path.is_file()]
        return {path: path.read_bytes() for path in paths}

    (run_dir / "checkpoints" / "8.orbax-checkpoint-tmp").mkdir()
    pathlib.Path(run_dir / "checkpoints" / "8.orbax-checkpoint-tmp" / "part").write_text("x")
    cut_one_byte(run_dir / "checkpoints" / "6")
    before, told = files(), []

    def admit(step, progress):
        told.append((step, progress["example"]))
        raise UserError("no")

    with pytest.raises(UserError, match="no"), Checkpoints(run_dir, META) as checkpoints:
        checkpoints.restore(abstract(state(0)), admit)
    assert told == [(4, 32)] and files() == before


def test_a_run_whose_every_step_is_damaged_is_refused(run_dir):
    for step in ("4", "6"):
        (run_dir / "checkpoints" / step / "commit_success.txt").unlink()
    assert why_incomplete(run_dir / "checkpoints" / "4") == "commit_success.txt is missing"
    with pytest.raises(UserError, match=r"none of the steps \[6, 4\] is whole"):
        restore(run_dir)
    assert (run_dir / "checkpoints" / "6").is_dir()


def test_a_save_that_was_cut_off_is_no_step(run_dir):
    shutil.copytree(run_dir / "checkpoints" / "6", run_dir / "checkpoints" / "8.orbax-checkpoint-tmp")
    (run_dir / "checkpoints" / "8.orbax-checkpoint-tmp" / "commit_success.txt").unlink()
    assert_is(restore(run_dir), 6)


def test_a_full_disk_is_told_and_the_last_step_still_loads(run_dir):
    # A real write that fails in the background: the system's limit on a file's size stands in for a disk's.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(UserError, match="no space left for .*; free some"), Checkpoints(run_dir, META) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            checkpoints.save(state(8), Progress(8, 64))
            checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_is(restore(run_dir), 6)


def test_a_save_that_cannot_fit_is_refused_before_it_is_begun(run_dir, monkeypatch):
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves((state(8).params, state(8).opt_state)))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with (
        Checkpoints(run_dir, META) as checkpoints,
        pytest.raises(UserError, match=r"no space left for .*MB are needed, .*MB are free; free some"),
    ):
        checkpoints.save(state(8), Progress(8, 64))
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["4", "6"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    with Checkpoints(run_dir, META) as checkpoints:
        checkpoints.save(state(8), Progress(8, 64))
    assert_is(restore(run_dir), 8)


def test_a_full_disk_is_known_in_the_words_of_tensorstore():
    text = "RESOURCE_EXHAUSTED: Error writing: Failed to write 26513 bytes to file 7: No space left on device"
    try:
        raise RuntimeError("the save failed") from ValueError(text)
    except RuntimeError as error:
        with pytest.raises(UserError, match="no space left for here"):
            raise_if_disk_full(error, "here")
    raise_if_disk_full(ValueError("something else"), "here")


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({**META, "vocabulary": {"sha256": "b" * 64}}, "vocabulary aaaaaaaaaaaa, this run's is bbbbbbbbbbbb"),
        ({**META, "model": SIZES["small"].to_json()}, "has model [0-9a-f]{12}, this run's is [0-9a-f]{12}"),
    ],
)
def test_another_model_or_vocabulary_is_refused(run_dir, meta, message):
    with pytest.raises(UserError, match=message):
        restore(run_dir, meta)
    assert_is(restore(run_dir), 6)


def test_another_optimizer_is_refused_and_nothing_is_set_aside(run_dir):
    like = TrainState(jnp.int32(0), state(0).params, optax.EmptyState())
    with pytest.raises(UserError, match="opt_state: 1/count has shape .*use the optimizer that it was trained with"):
        restore(run_dir, like=like)
    assert complete_steps(run_dir / "checkpoints") == [6, 4]


def test_the_position_is_plain_integers(run_dir):
    saved = json.loads((run_dir / "checkpoints" / "6" / "progress" / "metadata").read_text())
    assert (saved["step"], saved["example"], saved["bundle"]) == (6, 48, META)
