"""One `pytest` call, two processes: what loads TensorFlow runs in a process of its own, and its results come back.

Mesa's software OpenGL and TensorFlow crash when they meet in one process. Where a call names tests of both kinds (plain
`pytest` does), this process leaves the files in `APART` alone, and starts a second pytest on them with the same options
when its own tests are done. That one sends its reports through a pipe, and here they are shown and counted as any.

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
# What loads TensorFlow, and the door, whose tests send signals at chosen moments and want no other tests beside them.
APART = tuple(
    HERE / name for name in ("datasets", "export/test_export_saved_model.py", "test_cli.py", "test_cli_door.py")
)
# The second process has this variable: the pipe that its reports go to.
PIPE = "RT2_TESTS_PIPE"
# Exit codes of a pytest that came to its end: all passed, some failed, collection failed, nothing fits -k or -m.
ENDED = (
    pytest.ExitCode.OK,
    pytest.ExitCode.TESTS_FAILED,
    pytest.ExitCode.INTERRUPTED,
    pytest.ExitCode.NO_TESTS_COLLECTED,
)


def divided(config):
    """This call's files, as given: (what this process runs, what a second one is to run).

    The second is empty where one process can do it all.
    """
    here, apart = [], []
    for argument in config.args:
        path, *test = argument.split("::")
        path = (config.invocation_params.dir / path).resolve()
        if any(path.is_relative_to(place) for place in APART):
            apart.append("::".join([str(path), *test]))
        else:
            here.append(argument)
            apart += [str(place) for place in APART if place.exists() and place.is_relative_to(path)]
    return (here, apart) if here else (apart, [])


class Parent:
    """In the process that was called, and in xdist's workers: leaves the files alone, and has them run."""

    def __init__(self, arguments):
        self.arguments = arguments

    def pytest_ignore_collect(self, collection_path):
        return True if any(collection_path.is_relative_to(place) for place in APART) else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session):
        result = yield
        if not hasattr(session.config, "workerinput"):
            self.run(session)
        return result

    def run(self, session):
        config = session.config
        options = [word for word in config.invocation_params.args if word not in config.option.file_or_dir]
        options += ["-n0"] if config.pluginmanager.hasplugin("xdist") else []
        command = [sys.executable, "-m", "pytest", *options, *self.arguments]
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
            running = None
            try:
                for line in reports:
                    running = self.replay(session, json.loads(line), running)
                code = process.wait()
            finally:
                process.terminate()
                process.wait()
            if code not in ENDED or running:
                output.seek(0)
                said = "".join(output.readlines()[-50:])
                self.died(
                    config, running or ("tests", ("tests", None, "apart")), f"its process ended with {code}:\n{said}"
                )

    def replay(self, session, event, running):
        """Shows one event of the second process; returns the test that runs in it now."""
        hook, kind, data = session.config.hook, event["kind"], event["data"]
        if kind == "collected":
            session.testscollected += data
        elif kind == "start":
            hook.pytest_runtest_logstart(nodeid=data[0], location=tuple(data[1]))
            return data
        elif kind == "finish":
            hook.pytest_runtest_logfinish(nodeid=data[0], location=tuple(data[1]))
            return None
        else:
            report = hook.pytest_report_from_serializable(config=session.config, data=data)
            getattr(hook, kind)(report=report)
        return running

    def died(self, config, running, why):
        nodeid, location = running
        report = pytest.TestReport(nodeid, tuple(location), {}, "failed", why, "call")
        config.hook.pytest_runtest_logreport(report=report)


class Child:
    """In the second process: every event goes into the pipe."""

    def __init__(self, config, pipe):
        self.config = config
        self.pipe = open(pipe, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 (open for as long as tests run)
        os.set_inheritable(pipe, False)

    def send(self, kind, data):
        self.pipe.write(json.dumps({"kind": kind, "data": data}) + "\n")

    def report(self, kind, report):
        self.send(kind, self.config.hook.pytest_report_to_serializable(config=self.config, report=report))

    def pytest_collection_finish(self, session):
        self.send("collected", len(session.items))

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
    config.args[:] = here  # a file that is named is collected whatever pytest_ignore_collect says
    return Parent(apart)
