"""Every config that ships is valid, opens with the command that runs it, and names what exists."""

import ast
import pathlib

import pytest

from rt2_jax.datasets.tabletop.mixtures import MIXTURES, ROBOT
from rt2_jax.models.sizes import get_config
from rt2_jax.train.config import load_config

TASKS = {task for weights in MIXTURES.values() for task in weights}
CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config(path):
    config = load_config(path)
    assert config.mixture in MIXTURES if isinstance(config.mixture, str) else set(config.mixture) <= TASKS
    assert get_config(config.model).name == config.model
    assert f"rt2 train --config configs/{path.name}" in ast.get_docstring(ast.parse(path.read_text()))


def test_the_papers_settings():
    """The settings that RT-2 reports: steps, batch, learning rate and the robot's share of the mixture."""
    for name, settings, share in (
        ("rt2_pali_x_55b", (80_000, 2048, 1e-3), 0.5),
        ("rt2_pali_x_5b", (270_000, 2048, 1e-3), 0.5),
        ("rt2_palm_e_12b", (1_000_000, 512, 4e-4), 0.66),
    ):
        config = load_config(CONFIGS[0].with_name(f"{name}.py"))
        assert (config.steps, config.batch_size, config.optimizer.learning_rate) == settings
        weights = MIXTURES[config.mixture]
        robot = sum(weight for task, weight in weights.items() if task in ROBOT)
        assert robot / sum(weights.values()) == pytest.approx(share)
