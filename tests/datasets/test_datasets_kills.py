"""Building and preparing, killed before any of their writes reach the disk, then run again: the same bytes."""

import random
import signal
import subprocess
import sys

from rt2_jax.cli import main

# Counts what makes a write last, and dies in place of the call with the number given; 0 never does.
KILLED = """
import os, signal, sys
left = int(sys.argv[1])
def counted(call):
    def counting(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return counting
for name in ("fsync", "replace", "rename"):
    setattr(os, name, counted(getattr(os, name)))
from rt2_jax.cli import main
sys.exit(main(sys.argv[2:]))
"""


BUILD = ["data", "build", "--robot-episodes", "1", "--web-images", "2", "--image-size", "32", "--workers", "1"]
PREPARE = ["data", "prepare", "--tasks", "tabletop_robot_action,tabletop_web_caption"]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_killed_builds_and_prepares_end_in_the_same_bytes(tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    rng = random.Random(0)
    # A whole build makes some 45 such calls and a whole prepare some 30.
    for command, kills in ((BUILD, [rng.randint(2, 18) for _ in range(2)]), (PREPARE, [rng.randint(2, 20)])):
        assert main([*command, "--data", str(unbroken)]) == 0
        for at in kills:
            # The later ones go on where those before them were killed.
            died = subprocess.run(
                [sys.executable, "-c", KILLED, str(at), *command, "--data", str(broken)],
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert died.returncode == -signal.SIGKILL, died.stderr
        assert main([*command, "--data", str(broken)]) == 0
    assert contents(broken) == contents(unbroken)
