"""Two of everything at once: one of them writes, the other is refused in a line, or waits its turn; all is whole."""

import pytest

pytestmark = pytest.mark.slow

WRITERS = ("train", "data build", "data prepare", "convert", "export")


def refused(running):
    """Whether a process ended as one that may not write: exit code 2, and one line of ours at the end."""
    return running.process.returncode == 2 and running.last_line.startswith("rt2: error:") and quiet(running)


def quiet(running):
    return "Traceback" not in running.errors


@pytest.mark.parametrize("verb", WRITERS)
def test_two_writers_make_one_whole_result(verb, writer, start_rt2, tmp_path, scale, tally):
    one = writer(verb)
    for number in range(scale(1, 4)):
        root = tmp_path / str(number)
        one.lay_out(root)
        both = [start_rt2(*one.words(root)) for _ in range(2)]
        codes = sorted(running.wait() for running in both)
        problem = None if codes in ([0, 0], [0, 2]) else f"exit codes {codes}"
        for running in both:
            if (running.process.returncode and not refused(running)) or not quiet(running):
                problem = running.errors[-3000:]
        problem = problem or one.result(root)
        tally("two at once", verb, problem is None)
        assert problem is None, problem


READERS = ("export", "transformers", "sample", "eval", "verify")


@pytest.mark.parametrize("reader", READERS)
def test_a_run_is_read_while_it_saves(reader, writer, workplace, start_rt2, run_rt2, tmp_path, scale, tally):
    """Every step is saved and only the newest is kept, so that what is read goes away under the reader's hands."""
    if reader != "export" and not scale(False, True):
        pytest.skip("RT2_FAULTS=full tries it")
    one = writer("train")
    image = tmp_path / "image.png"
    run = tmp_path / "run"
    words = {
        "export": ["export", "--checkpoint", run, "--out", tmp_path / "bundle"],
        "transformers": ["export", "--checkpoint", run, "--format", "transformers", "--out", tmp_path / "transformers"],
        "sample": ["sample", "--checkpoint", run, "--image", image, "--instruction", "pick up the red cube"],
        "eval": ["eval", "--checkpoint", run, "--data", workplace / "data", "--episodes", "0", "--examples", "4"],
        "verify": ["verify", run],
    }[reader]
    if reader == "eval":
        words += ["--out", tmp_path / "report"]
    write_image(image)
    steps = scale(12, 60)
    options = [f"--config.steps={steps}", "--config.checkpoint_every=1", "--config.keep=1", "--config.eval_every=0"]
    training = start_rt2(*one.words(tmp_path), *options)
    assert training.reaches(lambda: any(run.glob("checkpoints/*/manifest.json"))), training.errors
    tried, problem = 0, None
    while problem is None and (not tried or training.process.poll() is None):
        running = start_rt2(*words)
        running.wait()
        tried += 1
        whole = (running.process.returncode == 0 and quiet(running)) or refused(running)
        problem = None if whole else running.errors[-3000:]
        tally("read while it saves", f"run, by {reader}", whole)
    assert problem is None, problem
    assert training.wait() == 0, training.errors[-2000:]
    for name in ("bundle", "transformers"):
        if (tmp_path / name).is_dir():
            assert run_rt2("verify", tmp_path / name).returncode == 0
    assert run_rt2(*words).returncode == 0, "afterwards it is read as ever"


def write_image(path):
    import numpy as np
    from PIL import Image

    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(path)
