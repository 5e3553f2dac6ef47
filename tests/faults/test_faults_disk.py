"""A disk that fills up, or a limit on a file's size, in the middle of a write: one line, and afterwards all goes on."""

import random
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slow

VERBS = ("train", "data build", "data prepare", "convert", "export")


def problem_of(running, one, root):
    """What was wrong with how a process met the full disk; None when nothing was."""
    code = running.wait()
    if code == 0:  # the file came out smaller this time
        return one.result(root)
    if code != 2 or not running.last_line.startswith("rt2: error:"):
        return f"exit code {code}: {running.errors[-3000:]}"
    if "Traceback" in running.errors:
        return running.errors[-5000:]
    if not running.leaves_nothing_running():
        return "processes are left"
    return one.believed(root)


@pytest.mark.parametrize("verb", VERBS)
def test_a_limit_on_a_files_size(verb, writer, start_rt2, run_rt2, tmp_path, scale, tally):
    one, rng = writer(verb), random.Random(verb)
    for number in range(scale(1, 4)):
        root = tmp_path / str(number)
        one.lay_out(root)
        # Below the largest file, so that it is met; small limits are met at the first write.
        limit = int(100 * (max(one.sizes()) / 200) ** rng.random())
        problem = problem_of(start_rt2(*one.words(root), largest=limit), one, root)
        if problem is None:
            done = run_rt2(*one.words(root))
            problem = one.result(root) if done.returncode == 0 else done.stderr[-2000:]
        tally("a file that may not grow", verb, problem is None)
        assert problem is None, f"at {limit} bytes: {problem}"


@pytest.fixture
def small_disk(tmp_path):
    """disk(bytes): a folder on a disk of that size; skips where the system does not let us make one."""
    made = []

    def mount(num_bytes):
        place = tmp_path / f"disk{len(made)}"
        place.mkdir()
        size = f"size={num_bytes // 1024}k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no small disk can be made here: {done.stderr.strip()}")
        made.append(place)
        return place

    if shutil.which("mount") is None:
        pytest.skip("no small disk can be made here: there is no mount")
    yield mount
    for place in made:
        subprocess.run(["umount", "-l", place], capture_output=True)


@pytest.mark.parametrize("verb", VERBS)
def test_a_disk_that_fills_up(verb, writer, start_rt2, run_rt2, small_disk, tmp_path, scale, tally):
    one = writer(verb)
    one.lay_out(tmp_path / "sources")
    sources = [path.stat().st_size for path in (tmp_path / "sources").rglob("*")]
    # In quick mode the limit above stands for it.
    for part in scale((), (0.1, 0.4, 0.8)):
        disk = small_disk(on_disk(sources) + int(part * on_disk(one.sizes())))
        root = disk / "here"
        one.lay_out(root)
        problem = problem_of(start_rt2(*one.words(root)), one, root)
        if problem is None:
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            done = run_rt2(*one.words(root))
            problem = one.result(root) if done.returncode == 0 else done.stderr[-2000:]
        tally("a disk that fills up", verb, problem is None)
        assert problem is None, f"with room for {part} of it: {problem}"


def on_disk(sizes):
    """What files of these sizes take in blocks of 4 KiB."""
    return sum(-(-size // 4096) * 4096 for size in sizes)
