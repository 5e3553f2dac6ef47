"""Run by `make test-interop`: clients of the field that nobody here wrote drive worlds through `rt2 serve`.

One server with a shipped policy; then openpi-client, an OpenVLA-style REST call, vla-eval's harness and our own client,
each in its own process and environment, and the policy in this process. All see the same worlds, so all do the same.

python tests/interop/drive.py OPENPI_PYTHON VLA_EVAL_BIN_FOLDER
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUNDLE = ROOT / "data" / "checkpoints" / "tabletop_rt2"
EPISODES = 2


@contextlib.contextmanager
def served(bundle, *arguments):
    """The port of an `rt2 serve` that listens; it must end with code 0 at SIGTERM."""
    command = [sys.executable, "-m", "rt2_jax.cli", "serve", "--bundle", bundle, "--port", "0", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        for line in process.stderr:
            event = json.loads(line) if line.startswith("{") else {"event": line}
            if event["event"] == "listening":
                break
        else:
            raise AssertionError(f"rt2 serve ended with {process.wait()} before it listened")
        # What it logs from here on must not fill the pipe.
        drained = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        yield event["port"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        drained.wait(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()


def by_script(python, script, port):
    """The episodes that a client's script drove."""
    began = time.perf_counter()
    # The client's environment is its own: nothing of this process's path goes along.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run([python, HERE / script, str(port)], capture_output=True, text=True, check=False, env=env)
    assert ran.returncode == 0, f"{script}: {ran.stderr[-3000:]}"
    print(f"{script}: {EPISODES} episodes in {time.perf_counter() - began:.1f} s")
    return json.loads(ran.stdout.splitlines()[-1])


def by_vla_eval(folder, port, benchmark):
    """What `vla-eval run` writes of a benchmark, `folder` being where that program is."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        config = {
            "server": {"url": f"ws://localhost:{port}"},
            "output_dir": out,
            "benchmarks": [benchmark],
        }
        path = pathlib.Path(out) / "benchmark.yaml"
        path.write_text(json.dumps(config), encoding="utf-8")  # which is YAML as well
        command = [folder / "vla-eval", "run", "-c", path]
        env = os.environ | {"PYTHONPATH": str(HERE)}
        ran = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=out)
        assert ran.returncode == 0, f"vla-eval run: {ran.stdout[-2000:]} {ran.stderr[-3000:]}"
        (aggregate,) = pathlib.Path(out).rglob("*_aggregate.json")
        result = json.loads(aggregate.read_text(encoding="utf-8"))
    print(f"vla-eval run: {result['num_episodes_total']} episodes in {time.perf_counter() - began:.1f} s")
    return result


def main(openpi_python, vla_eval_folder):
    sys.path[:0] = [str(ROOT), str(HERE)]
    import numpy as np
    import world

    import rt2_jax
    from rt2_jax.serve.client import PolicyClient

    policy = rt2_jax.load_policy(BUNDLE)
    here = [
        world.drive(lambda frame, told: policy.act(frame[None], [told]).actions[0], seed) for seed in range(EPISODES)
    ]
    assert sum(len(episode["actions"]) for episode in here) > EPISODES
    with served(BUNDLE, "--mode", "action", "--deadline-ms", "30000", "--max-batch", "1") as port:
        with PolicyClient(f"ws://localhost:{port}") as client:

            def act(frame, told):
                return client.act({world.CAMERA: frame}, told).actions[0]

            found = {"our client": [world.drive(act, seed) for seed in range(EPISODES)]}
        for script in ("openpi_client_drives.py", "openvla_client_drives.py"):
            found[script] = by_script(openpi_python, script, port)
        tabletop = {
            "benchmark": "tabletop_benchmark:TabletopBenchmark",
            "episodes_per_task": EPISODES,
            "params": {"skills": [world.SKILL], "max_steps": world.STEPS},
        }
        harness = by_vla_eval(vla_eval_folder, port, tabletop)
    for name, episodes in found.items():
        for mine, theirs in zip(here, episodes, strict=True):
            np.testing.assert_allclose(theirs["actions"], mine["actions"], atol=1e-6, err_msg=name)
            assert theirs["success"] == mine["success"], name
    (task,) = harness["tasks"]
    counted = [(episode["steps"], episode["metrics"]["success"]) for episode in task["episodes"]]
    assert counted == [(len(episode["actions"]), episode["success"]) for episode in here], harness
    print(f"interop: {EPISODES} episodes of each client, the same actions as the policy in one process")


if __name__ == "__main__":
    main(*(pathlib.Path(argument).absolute() for argument in sys.argv[1:]))
