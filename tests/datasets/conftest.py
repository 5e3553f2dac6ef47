"""The tabletop's datasets, tiny, for every test that reads them."""

import pathlib

import pytest

# Skills with short episodes.
ARGUMENTS = {
    "robot_episodes": 5,
    "web_images": 6,
    "image_size": 32,
    "seed": 1,
    "workers": 1,
    "skills": ("reach", "push"),
    "show_progress": False,
}


@pytest.fixture
def arguments():
    """Those that `built` was built with."""
    return dict(ARGUMENTS)


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> pathlib.Path:
    """Both tabletop datasets, tiny, as ``rt2 data build`` writes them. Tests must leave it as it is."""
    from rt2_jax.datasets.tabletop.build import build

    folder = tmp_path_factory.mktemp("built")
    build(folder, **ARGUMENTS)
    return folder


@pytest.fixture
def data(tmp_path, built) -> pathlib.Path:
    """A data folder of the test's own, in which `built` lies by links: what is prepared there is nobody else's."""
    for name in ("tabletop_robot", "tabletop_web"):
        (tmp_path / name).symlink_to(built / name)
    return tmp_path
