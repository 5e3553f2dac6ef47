"""SIGTERM and Ctrl-C at random moments of real processes: what they say is true, and nothing is lost."""

import itertools
import random
import re
import signal

import pytest

from rt2_jax.bundle.steps import whole_steps

pytestmark = pytest.mark.slow

TERM, INT = signal.SIGTERM, signal.SIGINT
HOWS = ((TERM,), (INT,), (TERM, TERM), (INT, INT))
# Phase of a training run -> (what is waited for, and so many seconds at most after it).
PHASES = {
    "imports": (None, 1.5),
    "start": (".rt2-owner", 0.5),
    "compile": ("bundle.json", 1.0),
    "steps": ("metrics.jsonl", 0.5),
    "validation": ('"step": 3', 0.2),
    "save": ("checkpoints/*", 0.5),
    "exit": ("checkpoints/4/manifest.json", 0.7),
}
SAID = re.compile(
    r"SIG(TERM|INT): (nothing new to save; run the same command to go on"
    r"|saved at step \d of 4; run the same command to go on"
    r"|stopped at once; the same command goes on from the last saved step)"
)


def is_there(run, what):
    if what.startswith('"'):
        path = run / "metrics.jsonl"
        return path.is_file() and what in path.read_text()
    return any(path.is_dir() or path.stat().st_size for path in run.glob(what))


def send_all(running, how, rng):
    for number in how:
        running.send(number)
        if running.ended_within(rng.uniform(0.02, 0.4)):
            return


def test_training_stops_as_it_says_and_goes_on(writer, start_rt2, run_rt2, tmp_path, scale, tally):
    one, rng = writer("train"), random.Random(0)
    cases = rng.sample(list(itertools.product(PHASES, HOWS)), scale(3, 24))
    for number, (phase, how) in enumerate(cases):
        what, most = PHASES[phase]
        root = tmp_path / str(number)
        one.lay_out(root)
        running = start_rt2(*one.words(root))
        # The verb's own handler: of both signals, and a thread that reads them.
        running.reaches(lambda run=running: run.listens_to(TERM) and run.listens_to(INT))
        if what is not None:
            running.reaches(lambda root=root, what=what: is_there(root / "run", what))
        if not running.ended_within(rng.uniform(0, most)):
            send_all(running, how, rng)
        code = running.wait()
        done = code == 0 and next(whole_steps(root / "run" / "checkpoints"), None) == 4
        told = code == (42 if how[0] == TERM else 130) and SAID.fullmatch(running.last_line)
        problem = None if done or told else f"exit code {code}"
        if told and (saved := re.search(r"saved at step (\d)", running.last_line)):
            steps = list(whole_steps(root / "run" / "checkpoints"))
            problem = None if int(saved[1]) == steps[0] else f"the whole steps are {steps}"
        if "Traceback" in running.errors:
            problem = "a traceback"
        problem = problem or one.believed(root)
        if problem is None and not running.leaves_nothing_running():
            problem = "processes are left"
        if problem is None:
            again = run_rt2(*one.words(root))
            problem = one.result(root) if again.returncode == 0 else again.stderr[-2000:]
        names = ", ".join(signal.Signals(each).name for each in how)
        tally(names, f"train: {phase}", problem is None)
        assert problem is None, f"{names} in {phase}: {problem}\n{running.errors[-3000:]}"


CODES = {TERM: (143, "rt2: terminated"), INT: (130, "rt2: interrupted")}
VERBS = ("data build", "data prepare", "convert", "export", "eval")


@pytest.mark.parametrize("verb", VERBS)
def test_other_verbs_stop_in_one_line(
    verb, writer, workplace, start_rt2, run_rt2, writing_below, tmp_path, scale, tally
):
    rng = random.Random(verb)
    one = None if verb == "eval" else writer(verb)
    for number, how in enumerate(scale((rng.choice(HOWS),), HOWS)):
        root = tmp_path / str(number)
        if one:
            one.lay_out(root)
            words = one.words(root)
        else:
            root.mkdir()
            words = ["eval", "--checkpoint", workplace / "run", "--data", workplace / "data", "--episodes", "0"]
            words += ["--out", root / "report"]
        running = start_rt2(*words)
        if one:
            running.reaches(writing_below(root))
        else:
            running.reaches(lambda run=running: run.listens_to(TERM) and run.listens_to(INT))
        if not running.ended_within(rng.uniform(0, 1.0 if one else 5.0)):
            send_all(running, how, rng)
        code, problem = running.wait(), None
        if code != 0 and (code, running.last_line) != CODES[how[0]]:
            problem = f"exit code {code}"
        if "Traceback" in running.errors:
            problem = "a traceback"
        if not running.leaves_nothing_running():
            problem = "processes are left"
        if problem is None and one:
            beside = [path for path in root.rglob("*") if ".rt2-" in path.name or ".partial" in path.name]
            # The second one ends the process where it stands; the next call tidies up.
            problem = f"{beside[0]} is left" if beside and len(how) == 1 else one.believed(root)
        if problem is None and one:
            again = run_rt2(*words)
            problem = one.result(root) if again.returncode == 0 else again.stderr[-2000:]
        names = ", ".join(signal.Signals(each).name for each in how)
        tally(names, verb, problem is None)
        assert problem is None, f"{names}: {problem}\n{running.errors[-3000:]}"
