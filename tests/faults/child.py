"""Runs the command lines that come in as JSON, one a line, in one process, and answers how each ended.

TensorFlow loads once, and away from the process of the tests.
"""

import contextlib
import json
import os
import sys
import tempfile


@contextlib.contextmanager
def caught(number, file):
    """What is written to a descriptor meanwhile, by C++ too, goes to a file."""
    kept = os.dup(number)
    os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(kept, number)
        os.close(kept)


def run(words):
    """How ``rt2 WORDS`` ends: code, output, errors, and the exception that left it."""
    from rt2_jax.cli import main

    code, raised = -1, ""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with caught(1, out), caught(2, err):
            try:
                code = main(words)
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else -1
            except Exception as error:
                raised = f"{type(error).__name__}: {error}"[:300]
        out.seek(0)
        err.seek(0)
        texts = [file.read().decode(errors="replace") for file in (out, err)]
    return {"code": code, "out": texts[0], "err": texts[1], "raised": raised}


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)
