"""One `pytest` call, several of them: what loads TensorFlow runs in one of its own, and its results come back.

Mesa's software OpenGL and TensorFlow crash when they meet in one process. Where a call names tests of several kinds
(plain `pytest` does), this one leaves the files in `APART` alone, and starts another pytest on each kind of them with
the same options when its own tests are done. That one sends its reports through a pipe, and here they are shown and
counted as any.

A debugger needs the terminal: for ``--pdb`` name files of one kind only.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

HERE = pathlib.Path(__file__).parent
# What loads TensorFlow; and the door, whose tests send signals at chosen moments and want no other tests beside them.
TENSORFLOW = (HERE / "datasets", HERE / "export" / "test_export_saved_model.py", HERE / "test_cli.py")
ALONE = (HERE / "test_cli_door.py",)
APART = (TENSORFLOW, ALONE)
# A pytest that was started here has this variable: the pipe that its reports go to.
PIPE = "RT2_TESTS_PIPE"
# Exit codes of a pytest that came to its end: all passed, some failed, collection failed, nothing fits -k or -m.
ENDED = (
    pytest.ExitCode.OK,
    pytest.ExitCode.TESTS_FAILED,
    pytest.ExitCode.INTERRUPTED,
    pytest.ExitCode.NO_TESTS_COLLECTED,
)


def divided(config):
    """This call's files, as given: (what this one runs, for each kind in `APART` what another one is to run).

    The others have nothing where the call names files of one kind alone.
    """
    here, apart = [], {places: [] for places in APART}
    for argument in config.args:
        path, *test = argument.split("::")
        path = (config.invocation_params.dir / path).resolve()
        kind = next((kind for kind in APART if any(path.is_relative_to(place) for place in kind)), None)
        if kind:
            apart[kind].append("::".join([str(path), *test]))
            continue
        here.append(argument)
        for places, found in apart.items():
            found += [str(place) for place in places if place.exists() and place.is_relative_to(path)]
    apart = {kind: found for kind, found in apart.items() if found}
    return (here, apart) if here or len(apart) > 1 else (next(iter(apart.values()), []), {})


class Parent:
    """In the process that was called, and in xdist's workers: leaves the files alone, and has them run."""

    def __init__(self, options, apart):
        self.options = options
        self.apart = apart

    def pytest_ignore_collect(self, collection_path):
        return True if any(collection_path.is_relative_to(place) for kind in APART for place in kind) else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session):
        result = yield
        if not hasattr(session.config, "workerinput"):
            for kind, arguments in self.apart.items():
                self.run(session, arguments, alone=kind is ALONE)
        return result

    def run(self, session, arguments, alone):
        config = session.config
        options = ["-n0"] if alone and config.pluginmanager.hasplugin("xdist") else []
        command = [sys.executable, "-m", "pytest", *self.options, *options, *arguments]
        if config.option.collectonly:
            subprocess.run(command, cwd=config.invocation_params.dir, check=False)
            return
        read, write = os.pipe()
        with tempfile.TemporaryFile("w+") as output, open(read, encoding="utf-8") as reports:
            environment = {**os.environ, PIPE: str(write)}
            process = subprocess.Popen(
                command, cwd=config.invocation_params.dir, env=environment, pass_fds=[write], stdout=output,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            os.close(write)
            running = {}
            try:
                for line in reports:
                    self.replay(session, json.loads(line), running)
                code = process.wait()
            finally:
                process.terminate()
                process.wait()
            if code not in ENDED or running:
                output.seek(0)
                said = "".join(output.readlines()[-50:])
                for test in running.items() or [("tests", ("tests", None, "apart"))]:
                    self.died(config, test, f"its process ended with {code}:\n{said}")

    def replay(self, session, event, running):
        """Shows one event of the other pytest; `running` holds the tests that run in it now, with their places."""
        hook, kind, data = session.config.hook, event["kind"], event["data"]
        if kind == "collected":
            session.testscollected += data
        elif kind == "start":
            hook.pytest_runtest_logstart(nodeid=data[0], location=tuple(data[1]))
            running[data[0]] = data[1]
        elif kind == "finish":
            hook.pytest_runtest_logfinish(nodeid=data[0], location=tuple(data[1]))
            running.pop(data[0], None)
        else:
            report = hook.pytest_report_from_serializable(config=session.config, data=data)
            getattr(hook, kind)(report=report)

    def died(self, config, running, why):
        nodeid, location = running
        report = pytest.TestReport(nodeid, tuple(location), {}, "failed", why, "call")
        config.hook.pytest_runtest_logreport(report=report)


class Child:
    """In a pytest that was started here: every event goes into the pipe."""

    def __init__(self, config, pipe):
        self.config = config
        self.pipe = open(pipe, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 (open for as long as tests run)
        os.set_inheritable(pipe, False)
        self.counted = False

    def send(self, kind, data):
        self.pipe.write(json.dumps({"kind": kind, "data": data}) + "\n")

    def report(self, kind, report):
        fields = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        fields.pop("node", None)  # xdist's, which cannot travel
        self.send(kind, fields)

    def pytest_collection_finish(self, session):
        self.send("collected", len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node, ids):
        if not self.counted:  # every worker collects all tests
            self.send("collected", len(ids))
        self.counted = True

    def pytest_collectreport(self, report):
        if not report.passed:
            self.report("pytest_collectreport", report)

    def pytest_runtest_logstart(self, nodeid, location):
        self.send("start", [nodeid, location])

    def pytest_runtest_logreport(self, report):
        self.report("pytest_runtest_logreport", report)

    def pytest_runtest_logfinish(self, nodeid, location):
        self.send("finish", [nodeid, location])


def plugin(config):
    """What this process needs of the above, None for nothing."""
    if PIPE in os.environ:
        # Tests start processes too, which must not take the variable for theirs.
        return Child(config, int(os.environ.pop(PIPE)))
    here, apart = divided(config)
    if not apart:
        return None
    options = [word for word in config.invocation_params.args if word not in config.option.file_or_dir]
    config.args[:] = here  # a file that is named is collected whatever pytest_ignore_collect says
    return Parent(options, apart)
