"""Rules of the house that the import contracts cannot say: import-linter sees packages, not `flax.linen`."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted((ROOT / "rt2_jax").rglob("*.py"))


def imported_names(path):
    """Every dotted name that a module imports, wherever in the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(*packages):
    """Modules of ours that import one of the packages, as paths below rt2_jax."""
    return {
        path.relative_to(ROOT / "rt2_jax")
        for path in MODULES
        for name in imported_names(path)
        if any(name == package or name.startswith(package + ".") for package in packages)
    }


@pytest.mark.parametrize(
    ("packages", "home"),
    [
        (("flax.linen",), "models"),
        (("tensorflow_datasets", "seqio"), "datasets"),
        (("mujoco", "gymnasium"), "sim"),
    ],
)
def test_a_heavy_library_has_one_home(packages, home):
    found = importers(*packages)
    assert found, f"nothing imports {packages}: is the rule still about something?"
    assert {path.parts[0] for path in found} == {home}


def test_tensorflow_has_two_homes():
    """Datasets are prepared with it, and a SavedModel is made with it."""
    found = {path.parent.as_posix() for path in importers("tensorflow", "tensorflow_text", "orbax.export")}
    assert "export/saved_model" in found
    assert {place for place in found if place.split("/")[0] != "datasets"} == {"export/saved_model"}


def test_the_loader_of_an_artifact_imports_nothing_that_jax_does_not_bring():
    allowed = {"jax", "numpy", "ml_dtypes", "sentencepiece", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in imported_names(ROOT / "rt2_jax" / "export" / "loader.py")} <= allowed


def test_the_simulator_imports_neither_tensorflow_nor_jax():
    assert not {path for path in importers("tensorflow", "jax", "flax") if path.parts[0] == "sim"}


def test_folders_are_removed_in_few_places():
    """`files` replaces a folder only where nothing of others is lost; the others remove what they made themselves."""
    allowed = {"files/writing.py", "train/checkpoint.py", "datasets/tfds_folder.py"}
    found = {
        path.relative_to(ROOT / "rt2_jax").as_posix()
        for path in MODULES
        if "rmtree(" in path.read_text(encoding="utf-8")
    }
    assert found == allowed
