"""Every way out of a command: signals at chosen moments, defects, and an output that nobody reads."""

import argparse
import errno
import os
import pathlib
import subprocess
import sys

import pytest

from rt2_jax.cli import main
from rt2_jax.errors import UserError

START = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, whatever started this test

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class InterruptsAt:
    "A finder of modules that sends Ctrl-C when one of the names is imported."

    def __init__(self, *names):
        self.names = set(names)
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            self.names.remove(name)
            interrupt()

def verb(run):
    "Has `run` take the place of every command."
    import types
    import rt2_jax.cli.command_line
    rt2_jax.cli.command_line.parse = lambda argv: types.SimpleNamespace(run=run)

sys.argv = ["rt2", "sizes"]
"""


def run_code(code, **kwargs):
    """Runs `code` after START and then the command; (exit code, standard output, standard error)."""
    script = f"{START}\n{code}\nfrom rt2_jax.cli import entry\nsys.exit(entry())\n"
    settings = {"capture_output": True, "text": True, "timeout": 100, "check": False} | kwargs
    done = subprocess.run([sys.executable, "-c", script], **settings)
    return done.returncode, done.stdout, done.stderr


INTERRUPTED = (130, "", "rt2: interrupted\n")


@pytest.mark.parametrize(
    "module", ["rt2_jax.cli.door", "rt2_jax.cli.command_line", "rt2_jax.cli.weights", "rt2_jax.fit.sizes_table"]
)
def test_ctrl_c_while_a_module_of_ours_is_imported(module):
    assert run_code(f"InterruptsAt({module!r})") == INTERRUPTED


@pytest.mark.parametrize("module", ["numpy.linalg", "jax._src.interpreters.mlir", "flax.core", "rich.console"])
def test_ctrl_c_while_a_library_is_imported(module):
    assert run_code(f"InterruptsAt({module!r})") == INTERRUPTED


@pytest.mark.parametrize(
    "body",
    [
        "interrupt()",
        "interrupt(); interrupt()",
        "\n    try: interrupt()\n    finally: interrupt()",
        "\n    try: interrupt()\n    except BaseException: interrupt()",
        # What some libraries make of it.
        "\n    try: interrupt()\n    except BaseException as error: raise ImportError('module') from error",
        "\n    try: interrupt()\n    except BaseException as error: raise SystemError('call')",
        "\n    try: interrupt()\n    except BaseException: sys.exit(0)",
        # Where Python cannot raise.
        "\n    class Thing:\n        def __del__(self): interrupt()\n    Thing()\n    while True: pass",
        "\n    import weakref\n    class Thing: pass\n    thing = Thing()\n"
        "    reference = weakref.ref(thing, lambda _: interrupt())\n    del thing\n    while True: pass",
    ],
)
def test_ctrl_c_while_a_verb_runs(body):
    assert run_code(f"def run(arguments):\n    {body}\nverb(run)") == INTERRUPTED


def test_sigterm_tidies_away_and_is_told_in_a_line(tmp_path):
    body = f"""
def run(arguments):
    from rt2_jax.files.writing import whole_folder
    with whole_folder({str(tmp_path / "out")!r}, "bundle"):
        os.kill(os.getpid(), signal.SIGTERM)
verb(run)
"""
    assert run_code(body) == (143, "", "rt2: terminated\n")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_inside_what_python_compiles_from_a_string(tmp_path):
    body = "verb(lambda arguments: exec('os.kill(os.getpid(), signal.SIGTERM)'))"
    (tmp_path / "door.py").write_text(f"{START}\n{body}\nfrom rt2_jax.cli import entry\nsys.exit(entry())\n")
    # As a module: Python looks at its own note of the interrupt at this end alone.
    done = subprocess.run(
        [sys.executable, "-m", "door"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "rt2: terminated\n")


def test_what_orbax_leaves_behind_at_an_error_is_not_printed():
    body = """
import asyncio, logging
def run(arguments):
    from rt2_jax.errors import UserError
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    logging.getLogger("absl").error("Failed to run 2 Handler Commit operations")
    loop = asyncio.new_event_loop()
    loop.close()
    class Late:
        def __del__(self):
            loop.call_soon_threadsafe(print)
    Late()
    raise UserError("no space left")
verb(run)
"""
    assert run_code(body) == (2, "", "rt2: error: no space left\n")


def test_ctrl_c_after_the_work_is_done_says_nothing():
    code = (
        "import atexit, threading\n"
        "atexit.register(lambda: (interrupt(), os.kill(os.getpid(), signal.SIGTERM)))\n"
        "verb(lambda arguments: print('done'))"
    )
    assert run_code(code) == (0, "done\n", "")
    assert run_code(code.replace("print('done')", "interrupt()")) == INTERRUPTED


def test_a_background_job_goes_on_ignoring_ctrl_c():
    code = "signal.signal(signal.SIGINT, signal.SIG_IGN)\nverb(lambda arguments: (interrupt(), print('done'), 0)[-1])"
    assert run_code(code) == (0, "done\n", "")


def test_a_defect_is_one_line_and_a_file(tmp_path):
    code = "def run(arguments):\n    raise KeyError('one\\ntwo')\nverb(run)"
    status, out, err = run_code(code, env={**os.environ, "TMPDIR": str(tmp_path)})
    [log] = tmp_path.iterdir()
    assert (status, out) == (70, "")
    assert err == f"rt2: internal error: KeyError: 'one\\ntwo'; the traceback is in {log}; please report it\n"
    written = log.read_text()
    assert "Traceback (most recent call last)" in written and "['rt2', 'sizes']" in written


def test_a_defect_whose_file_cannot_be_written():
    code = (
        "import tempfile\n"
        "def refused(**_): raise OSError(30, 'Read-only file system')\n"
        "tempfile.mkstemp = refused\n"
        "verb(lambda arguments: 1 / 0)"
    )
    line = (
        "rt2: internal error: ZeroDivisionError: division by zero; the traceback could not be written "
        "(Read-only file system); please report it\n"
    )
    assert run_code(code) == (70, "", line)


def test_an_output_that_nobody_reads():
    code = "verb(lambda arguments: [print('x' * 1000) for _ in range(1000)] and 0)"
    read, write = os.pipe()
    os.close(read)
    try:
        assert run_code(code, capture_output=False, stdout=write, stderr=subprocess.PIPE)[::2] == (141, "")
    finally:
        os.close(write)
    shorter = code.replace("range(1000)", "range(2)")  # found when the buffer is written out at the end
    read, write = os.pipe()
    os.close(read)
    try:
        assert run_code(shorter, capture_output=False, stdout=write, stderr=subprocess.PIPE)[::2] == (141, "")
    finally:
        os.close(write)


def test_an_output_that_has_no_room():
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with pathlib.Path("/dev/full").open("w") as full:
        settings = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        found = run_code("verb(lambda arguments: print('x'))", env=buffered, **settings)
        at_once = run_code("verb(lambda arguments: print('x', flush=True))", env=buffered, **settings)
    line = "rt2: error: standard output: No space left on device; the output is not whole\n"
    assert found[::2] == (2, line)
    assert at_once[0] == 2 and "No space left on device; free space" in at_once[2] and at_once[2].count("\n") == 1


def test_a_terminal_that_is_not_utf_8():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    code = "verb(lambda arguments: print('caf\\u00e9 \\udcff'))"
    assert run_code(code, env=environment) == (0, "caf\\xe9 \\udcff\n", "")


# --- what `main` tells, in this process -------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch, capsys):
    """Runs a command that raises `error`; (exit code, standard error)."""

    def run(error):
        def raises(arguments):
            raise error

        monkeypatch.setattr("rt2_jax.cli.command_line.parse", lambda argv: argparse.Namespace(run=raises))
        return main(["sizes"]), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied; allow it, or"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 300), "File name too long; choose another"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "loop"), "loop: Too many levels"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "file/x"), "file/x: Not a directory"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "x: Read-only file system"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free space"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a", None, "b"), "a -> b: No such file; name one that exists"),
        (OSError(errno.ENOENT, "No such file", b"caf\xe9"), "No such file"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (MemoryError(), "no memory left"),
        (FloatingPointError("the model's logits hold NaN"), "hold NaN; its weights are damaged"),
        (SystemExit(0), r"test_cli_door.py"),
        (SystemExit("bye"), "called exit('bye') before the work was done"),
        (UserError("two\n  lines"), "rt2: error: two lines\n"),
        (UserError("x" * 5000), "xxx..."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_the_users_to_fix_is_one_line(failing, error, named):
    code, line = failing(error)
    assert code == 2 and line.startswith("rt2: error: ") and named in line
    assert line.count("\n") == 1 and len(line) < 1100


def test_other_ways_out_of_main(failing):
    assert failing(KeyboardInterrupt()) == (130, "rt2: interrupted\n")
    assert failing(BrokenPipeError(errno.EPIPE, "Broken pipe")) == (141, "")


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError("x"), OSError("no number"), TypeError("x")])
def test_a_defect_is_not_hidden_from_a_test(failing, error):
    with pytest.raises(type(error)):
        failing(error)
