"""Where a run's numbers go: metrics.jsonl always, TensorBoard on request, a progress bar or plain lines."""

import contextlib
import json
import logging
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rt2_jax.errors import UserError
from rt2_jax.files.writing import write_text

METRICS_FILE = "metrics.jsonl"

_log = logging.getLogger(__name__)


class MetricsLog:
    """Appends one JSON object a line: {"step", "split", <metric>: number, ...}.

    Args:
        run_dir: holds metrics.jsonl and, with `tensorboard`, the summaries in ``tensorboard/``.
        step: the run goes on from here: lines of later steps, which will be written again, are dropped. A file with
            damaged lines is kept beside, as metrics.jsonl.damaged.
        tensorboard: also write summaries, through tensorboardX: no TensorFlow in a training process.
        enabled: False on all hosts but the first: nothing is written.

    Raises:
        UserError: TensorBoard was asked for and tensorboardX is not installed.
    """

    def __init__(self, run_dir: pathlib.Path, step: int, tensorboard: bool = False, enabled: bool = True):
        self._file = self._writer = None
        if not enabled:
            return
        self._writer = _summary_writer(run_dir / "tensorboard", step) if tensorboard else None
        path = run_dir / METRICS_FILE
        kept = [line for line in _repaired(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        # Unbuffered, so that a line is written by one call, whole.
        self._file = path.open("ab", buffering=0)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """One line, on disk when this returns."""
        if self._file:
            self._file.write((json.dumps({"step": step, "split": split, **metrics}) + "\n").encode())
        if self._writer:
            for name, value in metrics.items():
                self._writer.add_scalar(f"{split}/{name}", value, step)
            self._writer.flush()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *unused: object) -> None:
        for sink in (self._file, self._writer):
            if sink:
                sink.close()


def read_metrics(path: str | pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, [] when there is none; what is no such line is left out."""
    path = pathlib.Path(path)
    return _parsed(path.read_bytes())[0] if path.is_file() else []


def _repaired(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl that is about to be written again; one that is damaged is kept aside."""
    if not os.path.lexists(path):
        return []
    lines, damaged = _parsed(path.read_bytes()) if path.is_file() else ([], 0)
    if damaged or not path.is_file():
        aside, number = path.with_name(f"{path.name}.damaged"), 0
        while os.path.lexists(aside):
            number += 1
            aside = path.with_name(f"{path.name}.damaged_{number}")
        os.rename(path, aside)
        what = f"has damaged lines ({damaged}), which are left out" if damaged else "is no file"
        _log.warning("%s %s; it is kept as %s", path, what, aside.name)
    return lines


def _parsed(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The lines, and how many of them are damaged: a last one cut short by a kill is not."""
    *ended, last = data.split(b"\n")
    lines = [_line(text) for text in ended if text.strip()]
    damaged = lines.count(None)
    return [line for line in (*lines, _line(last)) if line is not None], damaged


def _line(text: bytes) -> dict[str, Any] | None:
    """One line of metrics: the step, the split, and numbers; None when it is none."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int or not isinstance(line.get("split"), str):
        return None
    numbers = all(type(value) in (int, float) for name, value in line.items() if name != "split")
    return line if numbers else None


def _summary_writer(directory: pathlib.Path, step: int) -> Any:
    """TensorBoard drops what it has read of steps after `step`, as metrics.jsonl does."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(
            f"config: tensorboard is True, but {error.name or error} is not installed; "
            "pip install 'rt2_jax[tensorboard]', or set it to False"
        ) from error
    # Its file is named by the second: one that went on within it would write over the file before.
    return SummaryWriter(str(directory), purge_step=step + 1 if step else None, filename_suffix=f".{step}")


class ProgressBar:
    """A bar with rate, time left and loss on a terminal; one plain line a report elsewhere.

    Args:
        steps: the run's last step.
        start: the step it goes on from.
        batch_size: examples a step, for the rate.
        enabled: False on all hosts but the first: nothing is shown.
    """

    def __init__(self, steps: int, start: int, batch_size: int, enabled: bool = True):
        self._steps, self._batch_size = steps, batch_size
        self._enabled = enabled
        console = Console(stderr=True)
        self._bar = None
        if enabled and console.is_terminal:
            columns = (
                TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[rate]:.0f} examples/s"),
                TextColumn("loss {task.fields[loss]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            )  # fmt: skip
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("train", total=steps, completed=start, rate=0.0, loss="-")
        self._last_step, self._last_time = start, time.monotonic()

    def advance(self, step: int) -> None:
        """A step is done; moves the bar."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, metrics: Mapping[str, float]) -> float:
        """Shows a report's loss; returns the rate since the last one in examples/s."""
        now = time.monotonic()
        rate = (step - self._last_step) * self._batch_size / max(now - self._last_time, 1e-9)
        self._last_step, self._last_time = step, now
        if self._bar:
            self._bar.update(self._task, completed=step, rate=rate, loss=f"{metrics['loss']:.4f}")
        elif self._enabled:
            left = (self._steps - step) * self._batch_size / max(rate, 1e-9)
            text = f"step {step}/{self._steps}  loss {metrics['loss']:.4f}  {rate:.0f} examples/s  {_clock(left)} left"
            print(text, file=sys.stderr, flush=True)
        return rate

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside (an evaluation, a save) out of the rate."""
        start = time.monotonic()
        yield
        self._last_time += time.monotonic() - start

    def say(self, text: str) -> None:
        """A line of text above the bar."""
        if self._bar:
            self._bar.console.print(text, highlight=False)
        elif self._enabled:
            print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> "ProgressBar":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._bar:
            self._bar.stop()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
