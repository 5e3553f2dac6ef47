"""``--out`` loses nothing: twenty targets that hold something, by every verb and format that writes a folder."""

import pathlib
import shutil

import pytest

from rt2_jax.cli import main
from rt2_jax.files.manifest import list_files

VERBS = {
    "export": ["export", "--checkpoint", "run"],
    "transformers": ["export", "--checkpoint", "run", "--format", "transformers"],
    "t5x": ["export", "--checkpoint", "run", "--format", "t5x"],
    "big_vision": ["export", "--checkpoint", "run", "--format", "big_vision"],
    "convert": ["convert", "--model", "bundle"],
}
# Target -> where --out points, below the sandbox.
TARGETS = {
    "a home": "home",
    "what holds a home": ".",
    "the working directory": "work",
    "the working directory as .": None,
    "the run itself": "run",
    "the run's checkpoints": "run/checkpoints",
    "a step of the run": "run/checkpoints/4",
    "inside a step": "run/checkpoints/4/new",
    "the bundle itself": "bundle",
    "inside the bundle": "bundle/new",
    "the bundle's params": "bundle/params",
    "a link to the run": "link",
    "a link to somebody's folder": "theirs_link",
    "somebody's folder": "theirs",
    "a dataset": "data/tabletop_robot/1.0.0",
    "the data folder": "data",
    "prepared data": "data/prepared",
    "a prepared split": "data/prepared/tabletop_web_locate/train",
    "a git checkout": "checkout",
    "a file": "file",
    "a bundle with a note in it": "noted",
}


@pytest.fixture(scope="module")
def sandbox(workplace, tmp_path_factory):
    """The artefacts among things of somebody's."""
    root = tmp_path_factory.mktemp("sandbox")
    for name in ("run", "bundle", "data"):
        shutil.copytree(workplace / name, root / name)
    shutil.copytree(workplace / "bundle", root / "noted")
    (root / "noted" / "note.txt").write_text("mine")
    for name in ("home", "work", "theirs", "checkout/.git"):
        (root / name).mkdir(parents=True)
        (root / name / "thesis.txt").write_text("ten years")
    (root / "link").symlink_to(root / "run")
    (root / "theirs_link").symlink_to(root / "theirs")
    (root / "file").write_text("x")
    return root


def snapshot(root):
    return {path: (root / path).stat().st_mtime_ns for path in list_files(root)}


@pytest.mark.parametrize("verb", VERBS)
def test_out_loses_nothing(verb, sandbox, monkeypatch, capsys, tally, scale):
    monkeypatch.setenv("HOME", str(sandbox / "home"))
    monkeypatch.chdir(sandbox / "work")
    words = [str(sandbox / word) if word in ("run", "bundle") else word for word in VERBS[verb]]
    before = snapshot(sandbox)
    for name, target in TARGETS.items():
        if (verb, name) == ("export", "the bundle itself"):
            continue  # a bundle that was written here gives way to another
        out = "." if target is None else str(sandbox / target)
        code = main([*words, "--out", out])
        line = capsys.readouterr().err.strip()
        held = code == 2 and line.count("\n") == 0 and snapshot(sandbox) == before
        tally("--out on what is not ours to replace", name, held)
        assert held, (name, code, line)
    assert pathlib.Path.cwd() == sandbox / "work"
