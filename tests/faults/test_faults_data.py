"""Wrong datasets, vocabularies, modules and places for the verbs that load TensorFlow, all in one process beside."""

import fnmatch
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from attempts import Ran, fault_of, snapshot
from mutations import mutate, put, rng_of, same

from rt2_jax.files.manifest import MANIFEST_NAME, read_manifest
from rt2_jax.files.writing import seal

CHILD = pathlib.Path(__file__).with_name("child.py")
PREPARE = ["data", "prepare", "--overwrite", "--data"]
BUILD = [
    "data",
    "build",
    "--robot-episodes",
    "2",
    "--web-images",
    "4",
    "--image-size",
    "32",
    "--workers",
    "1",
    "--data",
]


@pytest.fixture(scope="module")
def run_data():
    """run_data(words): how ``rt2 WORDS`` ends in the process that has TensorFlow."""
    with subprocess.Popen(
        [sys.executable, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:

        def run(words):
            child.stdin.write(json.dumps([str(word) for word in words]) + "\n")
            child.stdin.flush()
            answer = child.stdout.readline()
            assert answer, "the process ended"
            return Ran(**json.loads(answer))

        yield run
        child.stdin.close()


# What is told of a dataset and decides nothing about its examples.
TOLD = (
    "+*", "*description", "*citation*", "*location*", "*releaseNotes*", "name", "*.instructions*", "*num_episodes",
    "*num_steps", "statistics*", "image_size*",
)  # fmt: skip
ATTACKS = {
    f"{name} of a dataset{how}": (name, how, quick, full)
    for name in ("dataset_info.json", "features.json", "build.json", "card.json", MANIFEST_NAME)
    for how, quick, full in ((", sealed", 2, 14), ("", 1, 8))
    if name != MANIFEST_NAME or not how
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_wrong_json_of_a_dataset(attack, workplace, tmp_path, run_data, scale, tally):
    name, sealed, quick, full = ATTACKS[attack]
    found = []
    for number in range(scale(quick, full)):
        rng = rng_of(attack, number)
        it = tmp_path / "data"
        shutil.copytree(workplace / "data", it)
        folder = it / ("tabletop_robot" if name == "card.json" or rng.random() < 0.5 else "tabletop_web") / "1.0.0"
        path = folder / name
        tree = json.loads(path.read_text())
        mutation = mutate(tree, rng)
        put(mutation, path)
        if sealed and mutation.data is not None:
            manifest = read_manifest(folder)
            seal(folder, manifest.kind, manifest.facts, list(manifest.files))
        may_pass = mutation.tree is not None and same(tree, mutation.tree)
        may_pass = may_pass or any(fnmatch.fnmatchcase(mutation.place, pattern) for pattern in TOLD)
        before = snapshot(tmp_path)
        task = "tabletop_robot_action" if folder.parent.name == "tabletop_robot" else "tabletop_web_locate"
        words = [*BUILD, it] if sealed and name == "build.json" else [*PREPARE, it, "--tasks", task]
        fault = fault_of(run_data(words), before, snapshot(tmp_path), may_pass and bool(sealed))
        tally("wrong JSON", attack, fault is None)
        if fault:
            found.append(f"{attack} {number} of {folder.parent.name}, {mutation.what}: {fault}")
        shutil.rmtree(it)
    assert not found, "\n".join(found)


MODULES = {
    "raises": "raise RuntimeError('two\\nlines')",
    "ends": "import sys\nsys.exit(0)",
    "no Python": "def (",
    "no UTF-8": b"x = '\xff'",
    "is absent": None,
    "is empty of tasks": "x = 1",
}
WORDS = (
    ["--image-size", "0"], ["--image-size", "-3"], ["--image-size", "99999999"], ["--image-size", "9" * 5000],
    ["--vocabulary", "{root}/noise"], ["--vocabulary", "{root}/empty"], ["--vocabulary", "{root}/absent"],
    ["--vocabulary", "{root}/loop"], ["--vocabulary", "{root}"], ["--vocabulary", "/dev/zero"],
    ["--vocabulary", "{root}/pipe"], ["--tasks", "nope"], ["--tasks", "tabletop_robot_action,nope"],
    ["--mixture", "nope"], ["--tasks", "a", "--mixture", "b"], ["--task-modules", "no.such.module"],
    ["--task-modules", ".x"], ["--task-modules", "a b"], ["--data", "{root}/absent"], ["--data", "{root}/loop"],
    ["--data", "{root}/noise"], ["--data", "{root}/noise/below"], ["--data", "/dev/null"], ["--data", "{root}/pipe"],
)  # fmt: skip
PLACES = ("noise", "noise/below", "loop", "pipe", "/dev/null", "/proc/new", "/dev/full/x", "empty", "dangling")
SETTINGS = (
    ["--robot-episodes", "-1"], ["--web-images", "x"], ["--image-size", "15"], ["--noise", "nan"], ["--seed", "-1"],
    ["--workers", "0"], ["--seed", "9" * 30], ["--image-size", "513"], ["--noise", "1.5"], ["--workers", "2000"],
)  # fmt: skip


def test_wrong_words_for_data(workplace, tmp_path, run_data, scale, tally, monkeypatch):
    (tmp_path / "noise").write_bytes(os.urandom(3000))
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("/proc/nowhere")
    os.mkfifo(tmp_path / "pipe")
    shutil.copytree(workplace / "data", tmp_path / "data")
    prepare = [*PREPARE, tmp_path / "data"]
    cases = [[*prepare, *words] for words in WORDS]
    cases += [[*BUILD, str(tmp_path / place)] for place in PLACES]
    cases += [[*BUILD, tmp_path / "new", *words] for words in SETTINGS]
    order, found = rng_of("data words", 0).permutation(len(cases)), []
    for number in order[: scale(8, len(cases))]:
        words = [str(word).format(root=tmp_path) for word in cases[number]]
        before = snapshot(tmp_path)
        fault = fault_of(run_data(words), before, snapshot(tmp_path))
        tally("wrong argument", f"rt2 data {words[1]}", fault is None)
        if fault:
            found.append(f"rt2 {' '.join(words)[:200]}: {fault}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", MODULES)
def test_a_task_module_that_is_wrong(name, workplace, tmp_path, tally, run_rt2):
    # A process of its own: an imported module stays.
    shutil.copytree(workplace / "data", tmp_path / "data")
    text = MODULES[name]
    if text is not None:
        (tmp_path / "of_mine.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    before = snapshot(tmp_path)
    words = ["data", "prepare", "--data", tmp_path / "data", "--task-modules", "of_mine", "--tasks", "mine"]
    done = run_rt2(*words, env=environment)
    fault = fault_of(Ran(done.returncode, done.stdout, done.stderr), before, snapshot(tmp_path))
    tally("wrong task module", name, fault is None)
    assert fault is None, fault
