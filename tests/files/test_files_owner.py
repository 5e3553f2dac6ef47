"""One owner at a time, and none that is dead."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from rt2_jax.errors import UserError
from rt2_jax.files import owner
from rt2_jax.files.owner import Owner

HOLD = """
import pathlib, sys
from rt2_jax.files.owner import Owner
with Owner(pathlib.Path(sys.argv[1]), "the run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock, once its line is read."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def own(path, **times):
    return Owner(path, "the run", **times)


def test_a_living_owner_is_named(other, tmp_path):
    with pytest.raises(UserError, match=f"the run is in use by process {other.pid} on .*; wait until it is done"):
        own(tmp_path / "lock").__enter__()


def test_a_killed_owner_holds_nothing(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "lock").exists()
    with own(tmp_path / "lock", patience_seconds=1e9):
        pass
    assert not (tmp_path / "lock").exists()


def test_the_file_goes_with_its_owner(tmp_path):
    with own(tmp_path / "lock"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path) == []


@pytest.fixture
def no_kernel_locks(monkeypatch):
    """A file system without locks, as a mounted bucket is."""

    def flock(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", flock)


def elsewhere(path, beat=0):
    """What a process on another host has written."""
    fields = {"host": "far", "pid": 1, "token": "t", "beat": beat, "since": "yesterday"}
    path.write_text(json.dumps(fields))


def test_another_hosts_beat_keeps_it_alive_without_kernel_locks(tmp_path, no_kernel_locks):
    elsewhere(tmp_path / "lock")
    beats = threading.Timer(0.2, elsewhere, (tmp_path / "lock", 1))
    beats.start()
    with pytest.raises(UserError, match="in use by process 1 on far"):
        own(tmp_path / "lock", beat_seconds=0.02, patience_seconds=60.0).__enter__()
    beats.join()


def test_another_hosts_beat_that_stands_still_gives_way(tmp_path, no_kernel_locks):
    elsewhere(tmp_path / "lock")
    with own(tmp_path / "lock", beat_seconds=0.02, patience_seconds=0.1):
        assert json.loads((tmp_path / "lock").read_text())["host"] != "far"


def test_a_dead_process_of_this_host_gives_way_at_once_without_kernel_locks(tmp_path, no_kernel_locks, monkeypatch):
    with own(tmp_path / "lock") as first:
        record = (tmp_path / "lock").read_text()
        assert first.lost is False
    (tmp_path / "lock").write_text(record)
    monkeypatch.setattr(owner, "_is_alive", lambda pid: False)
    with own(tmp_path / "lock", patience_seconds=1e9):
        pass


def test_an_owner_that_was_taken_over_knows_and_leaves_the_file(tmp_path):
    held = own(tmp_path / "lock", beat_seconds=0.01)
    with held:
        held.check()
        elsewhere(tmp_path / "lock")
        held._thread.join(timeout=30)
        with pytest.raises(UserError, match="the run was taken over by process 1 on far"):
            held.check()
    assert (tmp_path / "lock").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot write .*lock"):
        own(tmp_path / "absent" / "lock").__enter__()


@pytest.mark.parametrize("content", [b"\xff\x00{", b"[" * 100_000, b"[]", b'{"host": 3}', b""], ids=len)
def test_a_damaged_record_stops_nobody(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with own(tmp_path / "lock"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
