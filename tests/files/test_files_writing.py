"""A folder takes the place of nothing that was not made here, and is whole or not there."""

import os
import pathlib

import pytest

from rt2_jax.errors import UserError
from rt2_jax.files import writing
from rt2_jax.files.manifest import check_sealed, list_files
from rt2_jax.files.writing import check_target, clear_leftovers, whole_file, whole_folder


def write(target, text="new", **options):
    with whole_folder(target, "bundle", **options) as folder:
        (folder / "weights").write_text(text)


def snapshot(folder):
    """Every file below a folder with its bytes."""
    return {path: (folder / path).read_bytes() for path in list_files(folder)}


def test_a_folder_is_made_sealed_and_replaced(tmp_path):
    target = tmp_path / "a" / "out"
    for text in ("old", "new"):
        write(target, text)
        assert (target / "weights").read_text() == text
        check_sealed(target, "bundle")
    assert os.listdir(target.parent) == ["out"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    check_sealed(tmp_path / "out", "bundle")


def test_a_failed_write_leaves_everything_as_it_was(tmp_path):
    write(tmp_path / "out", "old")
    before = snapshot(tmp_path)
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "out", "bundle") as folder:
        (folder / "weights").write_text("half")
        raise ZeroDivisionError
    assert snapshot(tmp_path) == before
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "absent", "bundle"):
        raise ZeroDivisionError
    assert snapshot(tmp_path) == before and os.listdir(tmp_path) == ["out"]


def full(folder):
    """A folder of somebody's."""
    folder.mkdir(exist_ok=True)
    (folder / "thesis.txt").write_text("ten years")
    return folder


def of_another_kind(folder):
    with whole_folder(folder, "dataset") as partial:
        (partial / "records").write_text("r")
    return folder


def with_a_note(folder):
    write(folder)
    (folder / "note.txt").write_text("mine")
    return folder


def with_damage(folder):
    write(folder)
    (folder / "manifest.json").write_text("{")
    return folder


FOREIGN = {full: "thesis.txt", of_another_kind: "dataset", with_a_note: "note.txt", with_damage: "damaged"}


@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
def test_what_was_not_made_here_is_kept_unless_asked(make, tmp_path):
    target = make(tmp_path / "out")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=f"{FOREIGN[make]}.*--overwrite"):
        write(target)
    assert snapshot(tmp_path) == before
    write(target, overwrite=True)
    assert list_files(target) == ["manifest.json", "weights"]


def test_neighbours_with_likely_names_are_nobodys_to_remove(tmp_path):
    for name in ("out.tmp", "out.old", "out.partial", ".out.tmp"):
        full(tmp_path / name)
    before = snapshot(tmp_path)
    write(tmp_path / "out")
    after = snapshot(tmp_path)
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_sources_homes_and_working_directories_are_never_replaced(overwrite, tmp_path, monkeypatch):
    source = full(tmp_path / "source")
    home = full(tmp_path / "home")
    work = full(tmp_path / "work")
    (work / "deep").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work / "deep")
    (tmp_path / "link").symlink_to(source)
    before = snapshot(tmp_path)
    targets = {
        source: "is what is read",
        tmp_path / "link": "is what is read",
        tmp_path: "holds .*source, which is read",
        home: "is the home",
        work / "deep": "is the working directory",
        pathlib.Path("."): "is the working directory",
        work: "holds the working directory",
        pathlib.Path("/"): "which is read",
        pathlib.Path("/proc"): "is a mount",
    }
    for target, why in targets.items():
        with pytest.raises(UserError, match=why):
            write(target, sources=[source], overwrite=overwrite)
    assert snapshot(tmp_path) == before


def test_a_link_to_somebodys_folder_is_followed_before_it_is_judged(tmp_path):
    full(tmp_path / "theirs")
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match="thesis.txt"):
        write(tmp_path / "link")
    (tmp_path / "new").symlink_to(tmp_path / "absent")
    write(tmp_path / "new")
    check_sealed(tmp_path / "absent", "bundle")


def test_nothing_is_written_into_a_sealed_folder(tmp_path):
    write(tmp_path / "out")
    with pytest.raises(UserError, match="lies inside .*out, which is sealed"):
        write(tmp_path / "out" / "below")


def test_a_file_a_loop_and_names_that_cannot_be_are_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for target in (tmp_path / "file", tmp_path / "loop", tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(UserError) as told:
            write(target)
        assert "\n" not in str(told.value)
    assert (tmp_path / "file").read_text() == "x"


def test_a_write_that_was_killed_between_its_renames_loses_nothing(tmp_path):
    write(tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / ".out.rt2-old")
    (tmp_path / ".out.rt2-partial").mkdir()
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "out", "bundle"):
        raise ZeroDivisionError
    assert (tmp_path / "out" / "weights").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_what_a_killed_write_left_beside_a_whole_folder_is_cleared_away(tmp_path):
    target = tmp_path / "out"
    with whole_folder(target, "dataset") as partial:
        (partial / "records").write_text("r")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rt2_jax.files.writing.Owner.__enter__", lambda self: pytest.fail("it is being written"))
            clear_leftovers(target, "dataset")  # not there yet
        clear_leftovers(tmp_path, "dataset")
    (tmp_path / ".out.rt2-owner").write_text("{}")
    (tmp_path / ".out.rt2-partial").mkdir()
    clear_leftovers(target, "dataset")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with whole_folder(target, "dataset") as partial:
        clear_leftovers(target, "dataset")
        (partial / "records").write_text("new")
    assert (target / "records").read_text() == "new"


def test_a_write_that_is_interrupted_between_its_renames_puts_the_old_one_back(tmp_path, monkeypatch):
    write(tmp_path / "out", "old")
    rename = os.rename

    def interrupted(source, target):
        if str(source).endswith(".rt2-partial"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out")
    assert (tmp_path / "out" / "weights").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_what_came_while_another_process_held_the_target_is_kept(tmp_path, monkeypatch):
    enter = writing.Owner.__enter__

    def late(owner):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("mine")
        return enter(owner)

    monkeypatch.setattr(writing.Owner, "__enter__", late)
    with pytest.raises(UserError, match="holds thesis.txt"):
        write(tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_what_cannot_be_read_back_does_not_replace_what_was_there(tmp_path, monkeypatch):
    told, seal = [], writing.seal
    write(tmp_path / "out", "first", tell=told.append)
    assert told == [check_sealed(tmp_path / "out", "bundle").identity]

    def spoil(folder, *arguments):
        identity = seal(folder, *arguments)
        (folder / "weights").write_text("flips!")
        return identity

    monkeypatch.setattr(writing, "seal", spoil)
    with pytest.raises(UserError, match="weights has 6 bytes instead of 5"):
        write(tmp_path / "out", "other", tell=told.append)
    assert len(told) == 1 and (tmp_path / "out" / "weights").read_text() == "first"
    assert os.listdir(tmp_path) == ["out"]


def test_one_process_at_a_time_writes_a_folder(tmp_path):
    with whole_folder(tmp_path / "out", "bundle") as folder:
        with pytest.raises(UserError, match=rf"bundle .*out is in use by process {os.getpid()}"):
            write(tmp_path / "out")
        (folder / "weights").write_text("first")
    assert (tmp_path / "out" / "weights").read_text() == "first"


def test_a_target_can_be_judged_before_the_work(tmp_path):
    assert check_target(tmp_path / "new", "bundle") == tmp_path / "new"
    assert not (tmp_path / "new").exists()


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]
