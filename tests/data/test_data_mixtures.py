import json
import shutil

import pytest

from rt2_jax.data.mixtures import Mixture, read_mixture, record_mixture, recorded_mixtures
from rt2_jax.errors import UserError
from rt2_jax.files.writing import seal
from rt2_jax.train.verify import verify

WEIGHTS = {"b": 0.1, "a": 1 / 3, "c": 200.0}


def test_weights_come_back_exactly_and_in_order(tmp_path):
    assert recorded_mixtures(tmp_path) == ()
    record_mixture(tmp_path, Mixture("mine", WEIGHTS))
    assert list(read_mixture(tmp_path, "mine").items()) == list(WEIGHTS.items())
    record_mixture(tmp_path, Mixture("mine", {"a": 1.0}))
    record_mixture(tmp_path, Mixture("other", WEIGHTS))
    assert read_mixture(tmp_path, "mine") == {"a": 1.0}
    assert recorded_mixtures(tmp_path) == ("mine", "other")
    assert {checked.what for checked in verify(tmp_path)} == {"mixture"}


@pytest.mark.parametrize("change", ["weights", "name", "format", "cut", "manifest", "whole"])
def test_a_damaged_record_names_the_command_which_repairs_it(tmp_path, change):
    record_mixture(tmp_path, Mixture("mine", WEIGHTS))
    folder = tmp_path / "prepared/mixtures/mine"
    path = folder / "mixture.json"
    tree = json.loads(path.read_text())
    if change == "manifest":
        (folder / "manifest.json").unlink()
    elif change == "whole":
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")
    elif change == "cut":
        path.write_text("{")
    else:
        path.write_text(json.dumps(tree | {change: {"weights": {"a": -1}, "name": "other", "format": 0}[change]}))
        seal(folder, "mixture")
    with pytest.raises(UserError, match=r"; run `rt2 data prepare --data .* --mixture mine`") as caught:
        read_mixture(tmp_path, "mine")
    assert "\n" not in str(caught.value)
    record_mixture(tmp_path, Mixture("mine", WEIGHTS))
    assert read_mixture(tmp_path, "mine") == WEIGHTS


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": -1.0}, {"a": float("nan")}, {"a": float("inf")}])
def test_weights_that_say_nothing_are_refused(weights):
    with pytest.raises(UserError, match="mixture 'mine'"):
        Mixture("mine", weights)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", ".hidden", "x" * 300])
def test_a_name_that_no_folder_can_have_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="rename it"):
        record_mixture(tmp_path, Mixture(name, {"a": 1.0}))
    assert not list(tmp_path.iterdir())
