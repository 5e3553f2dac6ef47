"""The verbs that write, as attacked: what each is called with, what of its result may be believed, what it must equal.

And a started process, that is waited for by what it does, is ended with its whole session, and tells what it said.
"""

import abc
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp

from rt2_jax.bundle.steps import whole_steps
from rt2_jax.errors import UserError
from rt2_jax.files.manifest import MANIFEST_NAME, find_damage, read_manifest

POLL = 0.002
# What is there while something is written, or after that was cut off.
BESIDE = (".partial", ".rt2-", "tmp", "old_", ".metadata", "damaged")


# Nothing is done between fork and exec, which threads of JAX's would not survive.
LIMITED = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
LIMITED += "os.execv(sys.argv[2], sys.argv[2:])"


class Running:
    """A process with a session of its own, so that what it leaves running can be found.

    `largest` is how many bytes a file that it writes may have.
    """

    def __init__(self, command, logs, environment, largest=None):
        if largest is not None:
            command = [sys.executable, "-c", LIMITED, str(largest), *command]
        self.log = tempfile.NamedTemporaryFile("w+", dir=logs, suffix=".err", delete=False)  # noqa: SIM115 (read later)
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            # A limit on files is one on this log too, unless another process writes it.
            stderr=self.log if largest is None else subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
        self._copier = None
        if largest is not None:
            self._copier = threading.Thread(target=self._copy)
            self._copier.start()

    def _copy(self):
        for line in self.process.stderr:
            self.log.write(line.decode(errors="replace"))
            self.log.flush()

    @property
    def errors(self):
        """What it has written to standard error."""
        return pathlib.Path(self.log.name).read_text(errors="replace")

    @property
    def last_line(self):
        """The last line of that."""
        return (self.errors.strip().splitlines() or [""])[-1].strip()

    def wait(self, seconds=300):
        """The exit code."""
        code = self.process.wait(seconds)
        if self._copier:
            self._copier.join(seconds)
        return code

    def ended_within(self, seconds):
        """Whether it ends by itself before so many seconds have passed."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def reaches(self, moment, seconds=300):
        """Waits until `moment()` is true; False when the process ends first."""
        deadline = time.monotonic() + seconds
        while not moment():
            if self.ended_within(POLL):
                return bool(moment())
            assert time.monotonic() < deadline, self.errors[-2000:]
        return True

    def listens_to(self, number):
        """Whether it has a handler for a signal."""
        try:
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return False
        caught = next((line for line in status.splitlines() if line.startswith("SigCgt")), "SigCgt: 0")
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)

    def send(self, number):
        """Sends a signal as a shell or a scheduler does: Ctrl-C to all of the session, others to the process."""
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            if number == signal.SIGINT:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)

    def leaves_nothing_running(self, seconds=30):
        """Whether every process of its session ends soon."""
        deadline = time.monotonic() + seconds
        while found := _session(self.process.pid):
            if time.monotonic() > deadline:
                for pid in found:
                    os.kill(pid, signal.SIGKILL)
                return False
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(POLL)
                # Its children are not ours to wait for: looked at again a little later, until the deadline.
                signal.sigtimedwait([], 0.02)
        return True


def writing_below(root):
    """A function of nothing: whether anything below `root` has changed since this call."""
    before = _stamps(root)
    return lambda: _stamps(root) != before


def _stamps(root):
    stamps = {}
    for path in root.rglob("*"):
        try:
            stamps[path] = path.stat().st_mtime_ns
        except OSError:  # gone meanwhile
            stamps[path] = 0
    return stamps


def _session(leader):
    """Living processes of a session."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(entry.name))
    return found


class Writer(abc.ABC):
    """One verb that writes.

    Attributes:
        chain: kills in a row before it is let through.
    """

    chain = 1

    def __init__(self, workplace, build, tasks):
        self.workplace, self._build, self._tasks = workplace, build, tasks

    def lay_out(self, root):
        """Makes `root` the place of a first call."""
        root.mkdir(parents=True, exist_ok=True)

    @abc.abstractmethod
    def words(self, root):
        """The command line that writes below `root`."""

    @abc.abstractmethod
    def target(self, root):
        """What it writes."""

    @abc.abstractmethod
    def unbroken(self):
        """The same, as written by a process that nobody disturbed."""

    def sizes(self):
        """Bytes of every file of it."""
        return [path.stat().st_size for path in self.unbroken().rglob("*") if path.is_file()]

    def believed(self, root):
        """Every folder that its hashes call whole must hold what the unbroken one holds; a few words where not."""
        if not self.target(root).is_dir():
            return None
        for path in sorted(self.target(root).rglob(MANIFEST_NAME)):
            folder = path.parent
            if _is_whole(folder):
                other = self.unbroken() / folder.relative_to(self.target(root))
                problem = self.differs(folder, other)
                if problem:
                    return f"{folder}: {problem}"
        return None

    def differs(self, folder, other):
        """How a sealed folder is not the unbroken one; None when it is."""
        return _other_bytes(folder, other)

    def result(self, root):
        """How what lies there is not what an undisturbed process writes, or what lies beside it; None when all is."""
        target = self.target(root)
        if not target.is_dir():
            return "nothing was written"
        beside = [path for path in root.rglob("*") if any(sign in path.name for sign in BESIDE)]
        if beside:
            return f"{beside[0]} is left"
        return self.differs(target, self.unbroken())


class Build(Writer):
    chain = 4

    def words(self, root):
        return ["data", "build", "--data", root / "data", *self._build]

    def target(self, root):
        return root / "data"

    def unbroken(self):
        return self.workplace / "data"

    def sizes(self):
        return [path.stat().st_size for path in self.unbroken().glob("tabletop_*/*/*")]

    def result(self, root):
        for name in ("tabletop_robot", "tabletop_web"):
            if not (root / "data" / name).is_dir():
                return f"{name} was not written"
        return super().result(root)

    def differs(self, folder, other):
        return _other_bytes(folder, other, but="prepared")


class Prepare(Writer):
    chain = 4

    def lay_out(self, root):
        super().lay_out(root)
        (root / "data").mkdir()
        for source in self.workplace.glob("data/tabletop_*"):
            shutil.copytree(source, root / "data" / source.name)

    def words(self, root):
        return ["data", "prepare", "--data", root / "data", "--tasks", ",".join(self._tasks)]

    def target(self, root):
        return root / "data" / "prepared"

    def unbroken(self):
        return self.workplace / "data" / "prepared"


class Convert(Writer):
    def words(self, root):
        source = self.workplace / "bundle"
        return ["convert", "--model", source, "--vocabulary", source / "vocabulary.model", "--out", self.target(root)]

    def target(self, root):
        return root / "pretrained"

    def unbroken(self):
        return self.workplace / "pretrained"

    def differs(self, folder, other):
        return _other_arrays(folder / "params", other / "params") or _other_bytes(folder, other, but="params")


class Export(Convert):
    def words(self, root):
        return ["export", "--checkpoint", self.workplace / "run", "--out", self.target(root)]

    def target(self, root):
        return root / "bundle"

    def unbroken(self):
        return self.workplace / "bundle"


class Train(Writer):
    chain = 4

    def words(self, root):
        return ["train", "--config", self.workplace / "config.py", "--workdir", root / "run"]

    def target(self, root):
        return root / "run"

    def unbroken(self):
        return self.workplace / "run"

    def differs(self, folder, other):
        """Of a step, or of the run."""
        if folder.parent.name == "checkpoints" and not other.is_dir():
            return None  # a signal had it saved; where the run ends tells whether it was right
        if folder.parent.name == "checkpoints":
            for item in ("params", "opt_state"):
                problem = _other_arrays(folder / item, other / item)
                if problem:
                    return f"{item}: {problem}"
            same = _progress(folder) == _progress(other)
            return None if same else "progress differs"
        steps = [list(whole_steps(path / "checkpoints")) for path in (folder, other)]
        if steps[0][:1] != steps[1][:1]:
            return f"whole steps {steps[0]} instead of {steps[1]}"
        for step in steps[0]:
            problem = self.differs(folder / "checkpoints" / str(step), other / "checkpoints" / str(step))
            if problem:
                return f"step {step}: {problem}"
        for name in ("bundle.json", "vocabulary.model", "config.json"):
            if (folder / name).read_bytes() != (other / name).read_bytes():
                return f"{name} differs"
        return None if _metrics(folder) == _metrics(other) else "metrics differ"


WRITERS = {"train": Train, "data build": Build, "data prepare": Prepare, "convert": Convert, "export": Export}


def _progress(step):
    return (step / "progress" / "metadata").read_bytes()


def _metrics(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "examples_per_second"} for line in lines]


def _is_whole(folder):
    try:
        manifest = read_manifest(folder)
        return manifest is not None and find_damage(folder, manifest) is None
    except UserError:
        return False


def _other_bytes(folder, other, but=""):
    """The first file in which two folders differ; manifests are left out where what they are over is."""
    names = [{path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (folder, other)]
    if but:
        names = [{name for name in found if but not in name.parts} for found in names]
        names = [found - {pathlib.Path(MANIFEST_NAME)} for found in names]
    if names[0] != names[1]:
        return f"{sorted(names[0] ^ names[1])[0]} is there and not there"
    different = [name for name in names[0] if (folder / name).read_bytes() != (other / name).read_bytes()]
    return f"{sorted(different)[0]} has other bytes" if different else None


def _other_arrays(folder, other):
    with warnings.catch_warnings(), ocp.PyTreeCheckpointer() as checkpointer:
        warnings.simplefilter("ignore")  # that no sharding is given
        trees = [checkpointer.restore(path.resolve()) for path in (folder, other)]
    leaves = [jax.tree_util.tree_leaves_with_path(tree) for tree in trees]
    if [path for path, _ in leaves[0]] != [path for path, _ in leaves[1]]:
        return "other parameters"
    for (path, one), (_, two) in zip(*leaves, strict=True):
        one, two = np.asarray(one), np.asarray(two)
        if one.dtype != two.dtype or one.shape != two.shape or one.tobytes() != two.tobytes():
            return f"{jax.tree_util.keystr(path)} has other values"
    return None
