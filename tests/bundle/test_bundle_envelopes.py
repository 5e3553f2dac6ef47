"""Envelopes in bundle.json: put in by `rt2 export --envelope`, carried, checked, and absent where there is none."""

import dataclasses
import json
import pathlib
import shutil

import pytest

from rt2_jax.actions import Bounds, Envelope
from rt2_jax.bundle.spec import BundleSpec, read_spec, same_meaning, with_envelopes
from rt2_jax.bundle.store import open_folder
from rt2_jax.cli import main
from rt2_jax.errors import UserError

SHIPPED = pathlib.Path(__file__).parents[2] / "data" / "checkpoints" / "tabletop_rt2"
STILL = dict.fromkeys(("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"), 0.0)
ENVELOPE = Envelope(
    step={"dz": (-0.02, 0.04)},
    rate={"dx": 0.03},
    workspace={"x": Bounds(-0.2, 0.2, "dx", start=0.0)},
    still={name: None if name == "gripper" else still for name, still in STILL.items()},
    on_violation="hold",
)


@pytest.fixture(scope="module")
def shipped():
    return read_spec(SHIPPED)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "envelope.json"
    path.write_text(json.dumps({"tabletop": ENVELOPE.to_json()}))
    return path


def test_a_bundle_without_one_says_nothing_of_it(shipped):
    assert shipped.envelopes == {}
    assert "envelopes" not in shipped.to_json()


def test_json_and_back(shipped):
    spec = dataclasses.replace(shipped, envelopes={"tabletop": ENVELOPE})
    found = BundleSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert found.envelopes == {"tabletop": ENVELOPE}
    assert same_meaning(found, shipped) == "envelopes"
    assert same_meaning(found, spec) is None


def test_a_file_replaces_what_it_names_and_null_drops_it(shipped, file, tmp_path):
    spec = with_envelopes(shipped, file)
    assert spec.envelopes == {"tabletop": ENVELOPE}
    (tmp_path / "other.json").write_text("{}")
    assert with_envelopes(spec, tmp_path / "other.json") == spec
    (tmp_path / "other.json").write_text('{"tabletop": null}')
    assert with_envelopes(spec, tmp_path / "other.json") == shipped


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list"),
        ('{"robot9": {}}', "robot9 is of no embodiment; there are: tabletop"),
        ('{"robot9": null}', "robot9 is of no embodiment"),
        ('{"tabletop": {"steps": {}}}', "tabletop: unknown key 'steps'"),
        ('{"tabletop": {}}', "tabletop: envelope: still of 'dx' is missing"),
        ('{"tabletop": {"step": {"x": [0, 1]}}}', "the action has terminate, dx"),
        ('{"tabletop": 3}', "holds a int"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(shipped, tmp_path, text, told):
    (tmp_path / "envelope.json").write_text(text)
    with pytest.raises(UserError, match=told) as refused:
        with_envelopes(shipped, tmp_path / "envelope.json")
    assert "envelope.json" in str(refused.value)


def test_bundle_json_with_one_that_does_not_fit_is_refused(shipped):
    fields = shipped.to_json() | {"envelopes": {"robot9": {}}}
    with pytest.raises(UserError, match="bundle.json: envelopes.robot9 is of no embodiment"):
        BundleSpec.from_json(fields)
    with pytest.raises(UserError, match="envelopes.tabletop: envelope: still of 'dx' is missing"):
        BundleSpec.from_json(fields | {"envelopes": {"tabletop": {}}})


def test_export_puts_it_in_and_carries_it_and_the_manifest_covers_it(file, tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["export", "--checkpoint", str(SHIPPED), "--out", str(one), "--envelope", str(file)]) == 0
    assert main(["export", "--checkpoint", str(one), "--out", str(two)]) == 0
    for folder in (one, two):
        assert open_folder(folder).spec.envelopes == {"tabletop": ENVELOPE}
    shutil.copytree(two, tmp_path / "changed")
    text = (two / "bundle.json").read_text()
    (tmp_path / "changed" / "bundle.json").write_text(text.replace('"dx": 0.03', '"dx": 0.04'))
    with pytest.raises(UserError, match="bundle.json has changed since it was written"):
        open_folder(tmp_path / "changed")
    capsys.readouterr()
    assert main(["export", "--checkpoint", str(SHIPPED), "--out", str(tmp_path / "no"), "--envelope", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    weights = ["export", "--checkpoint", str(SHIPPED), "--out", str(tmp_path / "no"), "--format", "t5x"]
    assert main([*weights, "--envelope", str(file)]) == 2
    assert "--envelope" in capsys.readouterr().err
