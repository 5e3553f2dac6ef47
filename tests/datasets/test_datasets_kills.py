"""Building and preparing, killed before any of their writes reach the disk, then run again: the same bytes."""

import os
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


def kill(moments, command, path=""):
    died = subprocess.run(
        [sys.executable, "-c", KILLED, ",".join(map(str, moments)), *command],
        env={**os.environ, "PYTHONPATH": f"{path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert died.returncode == 0, died.stdout + died.stderr


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
            kill(some, [*command, "--data", str(broken)])
        assert main([*command, "--data", str(broken)]) == 0
    assert contents(broken) == contents(unbroken)


MODULE = """
import tensorflow as tf
from rt2_jax.datasets.tabletop import tasks as tabletop
from rt2_jax.datasets.tasks import register_image_text_task


def done(episode):
    image = episode["steps"]["observation"]["image"]
    return {"image": image, "frame": tf.stack([0, tf.size(image) - 1]), "target": tf.constant(["no", "yes"])}


def register(data_dir, vocabulary):
    folder = f"{data_dir}/tabletop_robot/1.0.0"
    register_image_text_task("done", folder, done, lambda row: "is it done?", vocabulary=vocabulary)
    return ["done", *tabletop.register(data_dir, vocabulary)]
"""


def test_killed_prepares_of_texts_about_episodes_end_in_the_same_bytes(tmp_path, built, monkeypatch):
    module = f"done_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    rng, command = random.Random(1), ["data", "prepare", "--task-modules", module, "--tasks"]
    tasks = ("done", "tabletop_robot_action")
    for name in ("unbroken", "broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tabletop_robot").symlink_to(built / "tabletop_robot")
    assert main([*command, ",".join(tasks), "--data", str(tmp_path / "unbroken")]) == 0
    # Six folders, of which no kill lets more than one be finished.
    moments = [rng.randint(2, 13) for _ in range(5)]
    kill(moments, [*command, ",".join(tasks), "--data", str(tmp_path / "broken")], tmp_path)
    # Whichever task comes first writes the frames.
    assert main([*command, ",".join(reversed(tasks)), "--data", str(tmp_path / "broken")]) == 0
    assert contents(tmp_path / "broken" / "prepared") == contents(tmp_path / "unbroken" / "prepared")
