"""kill -9 at random moments: nothing half-written is read as whole, and the same command ends in the same bits."""

import random
import signal
import time

import pytest

pytestmark = pytest.mark.slow

VERBS = ("train", "data build", "data prepare", "convert", "export")


@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_any_moment_it_ends_in_the_same_bits(
    verb, writer, start_rt2, run_rt2, writing_below, tmp_path, scale, tally
):
    one, rng = writer(verb), random.Random(verb)
    # The moments are drawn from the first write to the end of an undisturbed process; imports write nothing.
    window = scale(lambda: 1.0, lambda: _seconds_of_writing(one, start_rt2, writing_below, tmp_path / "measured"))()
    left, series = scale(1, 8), 0
    while left:
        root = tmp_path / str(series)
        one.lay_out(root)
        series += 1
        kills, problem = 0, None
        while kills < min(one.chain, left) and problem is None:
            running = start_rt2(*one.words(root))
            running.reaches(writing_below(root))
            began = time.monotonic()
            if running.ended_within(rng.uniform(0, window)):
                window = min(window, time.monotonic() - began)  # it was faster; this one is not counted
                break
            running.process.send_signal(signal.SIGKILL)
            assert running.wait() in (-signal.SIGKILL, 0)
            kills += 1
            problem = one.believed(root) if running.leaves_nothing_running() else "processes are left"
        if problem is None:
            done = run_rt2(*one.words(root))
            problem = one.result(root) if done.returncode == 0 else done.stderr[-2000:]
        for _ in range(kills):
            tally("SIGKILL, then the same command", verb, problem is None)
        assert problem is None, f"series {series} of {verb}: {problem}"
        left -= kills


def _seconds_of_writing(one, start_rt2, writing_below, root):
    one.lay_out(root)
    running = start_rt2(*one.words(root))
    running.reaches(writing_below(root))
    began = time.monotonic()
    assert running.wait() == 0, running.errors
    seconds = time.monotonic() - began
    assert one.result(root) is None, "a second undisturbed one is the same"
    return seconds
