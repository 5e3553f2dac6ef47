"""Building and preparing, killed before any of their writes reach the disk, then run again: the same bytes."""

import random
import subprocess
import sys

from rt2_jax.cli import main

# Counts what makes a write last, and dies in place of the call with the number given; 0 never does.
# One process after the other, each a copy of the first, which has imported everything.
KILLED = """
import os, signal, sys
from rt2_jax.cli import main
if 'prepare' in sys.argv:
    import rt2_jax.datasets.prepare
kills = list(map(int, sys.argv[1].split(",")))
for left in kills:
    child = os.fork()
    if not child:
        break
    died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(left, died, flush=True)
    if died != -signal.SIGKILL:
        sys.exit(1)
else:
    sys.exit()
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
os._exit(main(sys.argv[2:]))
"""


BUILD = ["data", "build", "--robot-episodes", "1", "--web-images", "2", "--image-size", "32", "--workers", "1"]
PREPARE = ["data", "prepare", "--mixture", "tabletop_robot_only"]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_killed_builds_and_prepares_end_in_the_same_bytes(tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    rng = random.Random(0)
    # A whole build makes some 45 such calls, a whole prepare some 60, in seven folders of about eight; the later ones
    # go on where others were killed.
    moments = [rng.randint(2, 18) for _ in range(2)], [rng.randint(2, 13) for _ in range(10)]
    for command, kills in zip((BUILD, PREPARE), moments, strict=True):
        assert main([*command, "--data", str(unbroken)]) == 0
        # The processes of a build start others, which a copy of a process must not.
        for some in [[at] for at in kills] if command is BUILD else [kills]:
            died = subprocess.run(
                [sys.executable, "-c", KILLED, ",".join(map(str, some)), *command, "--data", str(broken)],
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert died.returncode == 0, died.stdout + died.stderr
        assert main([*command, "--data", str(broken)]) == 0
    assert contents(broken) == contents(unbroken)
