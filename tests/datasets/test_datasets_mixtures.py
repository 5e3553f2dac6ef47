"""Mixtures of seqio's registry: a team's own, nested ones, and rates that are functions."""

import pytest
import seqio

from rt2_jax.cli import main
from rt2_jax.data.mixtures import read_mixture, recorded_mixtures
from rt2_jax.data.reader import make_reader
from rt2_jax.data.records import prepared_tasks
from rt2_jax.datasets.prepare import prepare
from rt2_jax.datasets.seqio_mixtures import resolve_mixture
from rt2_jax.datasets.tabletop import tasks as tabletop
from rt2_jax.datasets.tabletop.mixtures import MIXTURES
from rt2_jax.errors import UserError

ACTION, VQA, CAPTION = "tabletop_robot_action", "tabletop_web_vqa", "tabletop_web_caption"
MODULE = f"""
import seqio
from rt2_jax.datasets.tabletop import tasks as tabletop

def register(data_dir, vocabulary):
    tabletop.register(data_dir, vocabulary)
    for name in ("{{0}}_web", "{{0}}"):
        seqio.MixtureRegistry.remove(name)
    seqio.MixtureRegistry.add("{{0}}_web", [("{VQA}", 3), ("{CAPTION}", 1)])
    rate = seqio.mixing_rate_num_examples
    seqio.MixtureRegistry.add("{{0}}", [("{{0}}_web", 2.0), ("{ACTION}", rate), ("{VQA}", lambda task: 0.25)])
    return []
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that registers a mixture of its own name."""
    name = f"mixture_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(name))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_teams_nested_mixture_with_functions_as_rates_is_prepared_and_read(data, module, arguments):
    words = ["data", "prepare", "--data", str(data), "--task-modules", module, "--mixture", module]
    assert main(words) == 0
    assert prepared_tasks(data) == (ACTION, CAPTION, VQA)
    weights = read_mixture(data, module)
    # Its own tasks first; the number of examples is of the source's, here episodes; 2.0 is shared as 3 to 1.
    wanted = {ACTION: float(arguments["robot_episodes"]), VQA: 0.25 + 2.0 * 3 / 4, CAPTION: 2.0 * 1 / 4}
    assert list(weights.items()) == list(wanted.items())
    mixture = seqio.MixtureRegistry.get(module)
    assert weights == {task.name: mixture.get_rate(task) for task in mixture.tasks}
    with make_reader(data, weights, "train", 29, 0, 64, 64) as reader:
        assert (next(reader).task == 0).sum() == 20
    assert recorded_mixtures(data) == (module,)


def test_the_tabletops_mixtures_keep_their_weights_and_their_order(data):
    tabletop.register(data)
    for name, weights in MIXTURES.items():
        found = resolve_mixture(name).weights
        assert list(found.items()) == [(task, pytest.approx(weight)) for task, weight in weights.items()]
        assert found == weights


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (0.0, "mixture bad: the rate of .*_vqa is 0.0; give one above 0, or leave it out"),
        (lambda task: float("nan"), "the rate of .*_vqa is nan"),
        (lambda task: 1 / 0, r"the rate of .*_vqa cannot be computed \(ZeroDivisionError: .*\); fix it"),
    ],
)
def test_a_rate_that_is_none_is_named_before_anything_is_prepared(data, rate, message):
    tabletop.register(data)
    seqio.MixtureRegistry.remove("bad")
    seqio.MixtureRegistry.add("bad", [(CAPTION, 1.0), (VQA, rate)])
    with pytest.raises(UserError, match=message):
        prepare(data, mixture="bad", show_progress=False)
    assert not (data / "prepared").exists()
    seqio.MixtureRegistry.remove("bad")


def test_a_mixture_that_is_not_registered_is_named(data):
    with pytest.raises(UserError, match="'nope' is not registered; choose from: .*tabletop_cofinetune_50.*--task-mod"):
        prepare(data, mixture="nope", show_progress=False)


def test_a_mixture_of_a_task_that_is_not_prepared_is_one_line(data, module):
    prepare(data, mixture=module, task_modules=[module], splits=("train",), show_progress=False)
    with pytest.raises(UserError, match=rf"{ACTION}/validation is not a prepared split .*--tasks {ACTION}`"):
        make_reader(data, read_mixture(data, module), "validation", 4, 0, 64, 64)
