import os

import pytest

from rt2_jax.errors import UserError
from rt2_jax.files.places import check_file, check_folder
from rt2_jax.files.writing import seal


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("kept")
    before = tree(tmp_path)
    check_folder(tmp_path / "old")
    check_folder(tmp_path / "new" / "deep" / "er")
    check_file(tmp_path / "old" / "file")
    check_file(tmp_path / "old" / "new")
    check_file(tmp_path / "new" / "file")
    assert tree(tmp_path) == before and (tmp_path / "old" / "file").read_text() == "kept"


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent" / "deep")
    os.mkfifo(tmp_path / "pipe")
    before = tree(tmp_path)
    for folder in ("file", "file/below", "loop", "loop/below", "n" * 300, "pipe", "new/" + "n" * 300):
        with pytest.raises(UserError, match="cannot write"):
            check_folder(tmp_path / folder)
    for path in ("folder", "file/below", "loop", "nowhere", "n" * 300, "pipe", "loop/below"):
        with pytest.raises(UserError, match="cannot write"):
            check_file(tmp_path / path)
    assert tree(tmp_path) == before and (tmp_path / "file").read_text() == "kept"


def test_what_may_not_be_changed(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    # The tests may run as root, whom permissions do not stop.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="may not be changed"):
        check_file(tmp_path / "file")


def test_a_read_only_folder(tmp_path, monkeypatch):
    def refused(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("rt2_jax.files.places.tempfile.TemporaryFile", refused)
    with pytest.raises(UserError, match="cannot write .*new: Permission denied"):
        check_folder(tmp_path / "new")
    assert tree(tmp_path) == []


def test_what_is_sealed_takes_no_file(tmp_path):
    (tmp_path / "sealed" / "params").mkdir(parents=True)
    (tmp_path / "sealed" / "weights").write_text("kept")
    seal(tmp_path / "sealed", "bundle")
    before = tree(tmp_path)
    for name in ("weights", "manifest.json", "params/new", "params/new/deep"):
        with pytest.raises(UserError, match="is sealed; choose"):
            check_file(tmp_path / "sealed" / name)
    check_file(tmp_path / "sealed" / "README.md")
    assert tree(tmp_path) == before and (tmp_path / "sealed" / "weights").read_text() == "kept"
