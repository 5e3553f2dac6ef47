"""What `rt2 serve` costs and holds.

One robot against the bare policy, sixteen against a server without batches, and 64 robots for minutes.

    python benchmarks/serve_load.py --bundle data/checkpoints/tabletop_rt2 --out serve_load.json  (about nine minutes)
    python benchmarks/serve_load.py --bundle data/checkpoints/tabletop_rt2 --seconds 20           (a rehearsal)

Robots are closed loops without a pause, in this process; servers run in processes of their own, on the same machine.
What is compared is measured in turns within the run. Frames are noise of the model's size, sent as arrays in openpi's
dialect, which both servers speak.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time

import numpy as np
import websockets.asyncio.client

from rt2_jax import load_policy
from rt2_jax.serve.wire import pack, unpack

HERE = pathlib.Path(__file__).parent
INSTRUCTION = "pick the red cube"
DEADLINE_MS = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=pathlib.Path, required=True)
    parser.add_argument("--robots", type=int, default=64, help="for the long part (default 64)")
    parser.add_argument("--seconds", type=float, default=300, help="of the long part (default 300)")
    parser.add_argument("--turns", type=int, default=6, help="of the parts that compare (default 6)")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="a JSON file")
    arguments = parser.parse_args()
    policy = load_policy(arguments.bundle)
    size = policy.image_size
    ports = free_port(), free_port()
    serve = [
        sys.executable, "-m", "rt2_jax.cli", "serve", "--bundle", arguments.bundle, "--port", ports[0],
        "--mode", "action", "--deadline-ms", DEADLINE_MS, "--rate", 0, "--log-level", "warning",
    ]  # fmt: skip
    reference = [sys.executable, HERE / "serve_reference.py", "--bundle", arguments.bundle, "--port", ports[1]]
    with process(serve) as ours, process(reference):
        for port in ports:
            wait_for(port)
        turn = min(10.0, arguments.seconds / 4)
        result = {
            "machine": f"{os.cpu_count()} cores, {cpu_name()}",
            "bundle": str(arguments.bundle),
            "frame": size,
            "one_robot": one_robot(policy, ports[0], arguments.turns),
            "sixteen_robots": sixteen_robots(ports, size, turn, arguments.turns),
            "many_robots": many_robots(ports[0], ours.pid, size, arguments.robots, arguments.seconds),
        }
        ours.send_signal(signal.SIGTERM)
        result["exit_code_after_sigterm"] = ours.wait(60)
    show(result)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def one_robot(policy, port, turns):
    """Milliseconds of an action: the bare policy's, and over the server, in turns."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (200, policy.image_size, policy.image_size, 3), np.uint8)
    name = next(iter(policy.embodiments))
    bare, served, timing = [], [], []

    def act(frame):
        policy.act(frame[None], [INSTRUCTION], embodiment=name)

    async def ask():
        async with robot(port) as connection:
            for frame in frames:
                message = observation(frame)
                began = time.perf_counter()
                await connection.send(message)
                reply = unpack(await connection.recv())
                served.append(1000 * (time.perf_counter() - began))
                timing.append(reply["server_timing"]["total_ms"] - reply["server_timing"]["infer_ms"])

    for frame in frames[:20]:
        act(frame)
    for _ in range(turns):
        for frame in frames:
            began = time.perf_counter()
            act(frame)
            bare.append(1000 * (time.perf_counter() - began))
        asyncio.run(ask())
    return {
        "bare_ms": quantiles(bare),
        "served_ms": quantiles(served),
        "added_p50_ms": statistics.median(served) - statistics.median(bare),
        "of_it_in_the_server_p50_ms": statistics.median(timing),
    }


def sixteen_robots(ports, size, seconds, turns):
    """Actions a second of our server and of the reference, in turns."""
    found = {"served": [], "reference": []}
    for _ in range(turns):
        for name, port in zip(found, ports, strict=True):
            counts, _, errors = asyncio.run(drive(port, size, 16, seconds))
            assert not errors, errors[:3]
            found[name].append(sum(counts) / seconds)
    ratios = [ours / theirs for ours, theirs in zip(found["served"], found["reference"], strict=True)]
    return {
        "served_per_second": statistics.median(found["served"]),
        "reference_per_second": statistics.median(found["reference"]),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def many_robots(port, pid, size, robots, seconds):
    """Errors, latency, fairness and memory of the long part."""
    asyncio.run(drive(port, size, robots, min(10.0, seconds / 4)))  # every buffer has been as large as it gets
    memory: list[float] = []

    async def run():
        async def watch():
            while True:
                memory.append(resident(pid))
                await asyncio.sleep(min(1.0, seconds / 20))

        watching = asyncio.create_task(watch())
        driven = await drive(port, size, robots, seconds)
        watching.cancel()
        return driven

    counts, times, errors = asyncio.run(run())
    part = max(1, len(memory) // 10)
    first, last = statistics.median(memory[:part]), statistics.median(memory[-part:])
    return {
        "robots": robots,
        "seconds": seconds,
        "deadline_ms": DEADLINE_MS,
        "answers": sum(counts),
        "per_second": sum(counts) / seconds,
        "errors": len(errors),
        "first_errors": errors[:3],
        "latency_ms": quantiles(times),
        "fairness": max(counts) / max(1, min(counts)),
        "memory_mb": [first, last],
        "memory_growth": last / first - 1,
    }


async def drive(port, size, robots, seconds):
    """(answers of each robot, milliseconds of each, errors) of closed loops."""
    rng = np.random.default_rng(0)
    messages = [observation(rng.integers(0, 255, (size, size, 3), np.uint8)) for _ in range(32)]
    counts, times, errors = [0] * robots, [], []

    async def act(number, end):
        async with robot(port) as connection:
            step = number
            while time.perf_counter() < end:
                step += 1
                began = time.perf_counter()
                await connection.send(messages[step % len(messages)])
                reply = await connection.recv()
                times.append(1000 * (time.perf_counter() - began))
                if isinstance(reply, str):
                    errors.append(reply)
                else:
                    counts[number] += 1

    end = time.perf_counter() + seconds
    await asyncio.gather(*(act(number, end) for number in range(robots)))
    return counts, times, errors


@contextlib.asynccontextmanager
async def robot(port):
    """A connection after the server's first frame."""
    options = {"compression": None, "max_size": None, "ping_interval": None}
    async with websockets.asyncio.client.connect(f"ws://127.0.0.1:{port}/", **options) as connection:
        await connection.recv()
        yield connection


def observation(frame):
    return pack({"observation/image": frame, "prompt": INSTRUCTION})


@contextlib.contextmanager
def process(words):
    started = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(port):
    """Until something listens; both servers do so when they are compiled."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


def resident(pid):
    """Megabytes of a process that are in memory."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def quantiles(values):
    found = np.quantile(values, [0.5, 0.95, 0.99]).tolist()
    return dict(zip(("p50", "p95", "p99"), found, strict=True)) | {"max": max(values)}


def show(result):
    one, sixteen, many = result["one_robot"], result["sixteen_robots"], result["many_robots"]
    rows = [
        ("one robot, bare policy, p50", f"{one['bare_ms']['p50']:.2f} ms"),
        ("one robot, over the server, p50", f"{one['served_ms']['p50']:.2f} ms"),
        ("the server adds, p50", f"{one['added_p50_ms']:.2f} ms"),
        ("16 robots, served", f"{sixteen['served_per_second']:.0f} actions/s"),
        ("16 robots, reference", f"{sixteen['reference_per_second']:.0f} actions/s"),
        ("ratio", f"{sixteen['ratio']:.2f}"),
        (f"{many['robots']} robots, {many['seconds']:.0f} s", f"{many['per_second']:.0f} actions/s"),
        ("errors", f"{many['errors']} of {many['answers'] + many['errors']}"),
        ("latency p50, p99 (deadline)", f"{many['latency_ms']['p50']:.0f}, {many['latency_ms']['p99']:.0f} "
                                         f"({many['deadline_ms']}) ms"),
        ("most answers : fewest", f"{many['fairness']:.2f}"),
        ("memory, growth", f"{many['memory_mb'][1]:.0f} MB, {100 * many['memory_growth']:+.1f}%"),
    ]  # fmt: skip
    print(result["machine"])
    for what, value in rows:
        print(f"{what:<40} {value}")


if __name__ == "__main__":
    sys.exit(main())
