"""Two processes train as one does, and stop together."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from rt2_jax.bundle.steps import whole_steps
from rt2_jax.errors import UserError
from rt2_jax.train.config import make_config
from rt2_jax.train.folder import RunFolder
from rt2_jax.train.hosts import join_hosts
from rt2_jax.train.loop import train
from rt2_jax.train.metrics import read_metrics


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def run_pair(small_fields, child_script):
    """run(workdir, steps, stop_at) -> codes and stderrs of two hosts with a device each; the first gets SIGTERM."""

    def run(workdir, steps, stop_at, **changes):
        fields = {**small_fields, "mesh": {"data": 2, "fsdp": 1}, "steps": steps, "checkpoint_every": 100_000}
        fields |= changes
        port, children = free_port(), []
        for index, stop in enumerate((stop_at, -1)):
            environment = {
                **os.environ,
                "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(index),
                "JAX_NUM_CPU_DEVICES": "1",
            }
            command = [sys.executable, "-c", child_script, json.dumps([fields, str(workdir), stop, "SIGTERM"])]
            children.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        errors = [child.communicate(timeout=300)[1] for child in children]
        return [child.returncode for child in children], errors

    return run


@pytest.fixture(scope="module")
def stopped_pair(run_pair, tmp_path_factory):
    """A run of two hosts that stopped after step 3 or so."""
    workdir = tmp_path_factory.mktemp("pair")
    return workdir, *run_pair(workdir, 100_000, 3)


def test_sigterm_to_one_host_stops_all_at_one_saved_step(stopped_pair):
    workdir, codes, errors = stopped_pair
    assert codes == [42, 42], errors[0][-3000:] + errors[1][-3000:]
    last = read_metrics(workdir / "metrics.jsonl")[-1]["step"]
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == [str(last)]
    assert "step 3/" in errors[0] and "step 3/" not in errors[1]


def test_two_hosts_give_the_losses_of_one_and_one_goes_on_from_two(stopped_pair, small_fields, tmp_path):
    workdir, _, _ = stopped_pair
    pair = read_metrics(workdir / "metrics.jsonl")
    last = pair[-1]["step"]
    fields = {**small_fields, "steps": last + 3, "checkpoint_every": 100_000}
    assert train(make_config(fields), tmp_path) == 0
    alone = read_metrics(tmp_path / "metrics.jsonl")
    for a, b in zip(pair[:12], alone[: min(12, last)], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5) and a["tokens"] == b["tokens"]
    assert train(make_config(fields), workdir) == 0
    after = read_metrics(workdir / "metrics.jsonl")
    assert [line["step"] for line in after] == list(range(1, last + 4))
    # The rounding of another device count has had `last` steps to grow.
    for a, b in zip(after[last:], alone[last:], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-2) and a["tokens"] == b["tokens"]


def test_two_hosts_pass_over_the_same_damaged_step_and_go_on(stopped_pair, run_pair, tmp_path):
    before, _, _ = stopped_pair
    shutil.copytree(before, tmp_path / "run")
    last = read_metrics(before / "metrics.jsonl")[-1]["step"]
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(checkpoints / str(last), checkpoints / str(last + 5))
    codes, errors = run_pair(tmp_path / "run", last + 1, -1)
    assert codes == [0, 0], errors[0][-3000:] + errors[1][-3000:]
    for error in errors:
        assert f"checkpoint step {last + 5} is passed over: it is sealed as checkpoint step {last}" in error
    assert sorted(path.name for path in checkpoints.iterdir()) == sorted(
        [str(last), str(last + 1), f"damaged_{last + 5}_0"]
    )
    assert next(whole_steps(checkpoints)) == last + 1


def test_two_hosts_verify_what_they_start_from_together(stopped_pair, run_pair, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(stopped_pair[0], source)
    codes, errors = run_pair(tmp_path / "run", 1, -1, init_from=str(source))
    assert codes == [0, 0], errors[0][-3000:] + errors[1][-3000:]
    for item in ("params", "opt_state"):  # the two largest: each is another host's to read
        path = max((source / "checkpoints").glob(f"*/{item}/ocdbt.process_*/d/*"), key=lambda file: file.stat().st_size)
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        codes, errors = run_pair(tmp_path / "other", 1, -1, init_from=str(source))
        path.write_bytes(whole)
        assert codes == [1, 1]  # a UserError outside `rt2`
        for error in errors:
            assert f"{path.name} has changed since it was written; copy it again" in error


def test_all_hosts_hear_that_another_run_has_the_folder(run_pair, tmp_path):
    with RunFolder(tmp_path / "run"):
        codes, errors = run_pair(tmp_path / "run", 1, -1)
        assert os.listdir(tmp_path / "run") == [".rt2-owner"]
    assert codes == [1, 1]  # a UserError outside `rt2`
    for error in errors:
        assert f"UserError: run {tmp_path / 'run'} is in use by process {os.getpid()}" in error


def test_a_half_told_job_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS is set, but .* are needed together"):
        join_hosts()
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES is 'two', needs a number"):
        join_hosts()


def test_a_lone_process_joins_nobody(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("JAX_COORD", "JAX_NUM_PROC", "JAX_PROCESS", "TPU_"))]:
        monkeypatch.delenv(name)
    join_hosts()
