"""The training loop: reader -> device -> step, with validation, checkpoints and a clean stop."""

import contextlib
import math
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from rt2_jax.bundle.params import tree_bytes
from rt2_jax.bundle.spec import BundleSpec, bundle_spec, write_spec
from rt2_jax.bundle.steps import CHECKPOINTS_DIR, step_identity
from rt2_jax.data.reader import BatchReader, make_reader
from rt2_jax.data.records import read_embodiments, read_index
from rt2_jax.errors import UserError
from rt2_jax.files.disk import check_space, raise_if_disk_full
from rt2_jax.files.writing import write_error, write_text
from rt2_jax.inputs.batch import Batch
from rt2_jax.models.backbone import Params, make_backbone
from rt2_jax.parallel.mesh import make_mesh
from rt2_jax.parallel.rules import partitioned
from rt2_jax.tokens.vocabulary import DEFAULT_VOCABULARY, Vocabulary
from rt2_jax.train.checkpoint import Checkpoints, Progress
from rt2_jax.train.config import TrainConfig
from rt2_jax.train.folder import RunFolder, find_folder
from rt2_jax.train.history import record_start
from rt2_jax.train.hosts import is_first, join_hosts
from rt2_jax.train.losses import SUMS, summarize
from rt2_jax.train.metrics import MetricsLog, ProgressBar
from rt2_jax.train.resolve import model_config, task_weights
from rt2_jax.train.resume import Changes, check_changes, check_meaning, find_changes, step_facts
from rt2_jax.train.signals import EXIT_DONE, EXIT_INTERRUPTED, EXIT_PREEMPTED, StopSignals
from rt2_jax.train.start import fresh_state
from rt2_jax.train.state import TrainState
from rt2_jax.train.step import Program, check_constrained, make_program


def train(config: TrainConfig, workdir: str | pathlib.Path, signals: StopSignals | None = None) -> int:
    """Trains to ``config.steps``, going on from the newest whole checkpoint under `workdir`.

    Writes ``config.json``, ``bundle.json``, ``vocabulary.model``, ``metrics.jsonl``, ``history.jsonl`` and
    ``checkpoints/`` there. A start that is refused changes nothing there.

    Args:
        config: see `TrainConfig`.
        workdir: the run's folder; one run at a time has it.
        signals: entered already, by a program that listens from its first moment; None listens while this runs.

    Returns:
        0 when done, 42 after SIGTERM (saved; start again), 130 after Ctrl-C (saved). Either signal ends the process
        itself, with that code, where there is nothing to save yet.

    Raises:
        UserError: anything in the config, the data or the checkpoints that does not fit, before the first step where it
            can be known by then; a loss that is not finite; a full disk; another run in `workdir`.
    """
    with contextlib.ExitStack() as stack:
        if signals is None:
            signals = stack.enter_context(StopSignals(enabled=not jax.distributed.is_initialized()))
        path = find_folder(workdir)
        join_hosts()
        if jax.distributed.is_initialized():
            signals.leave_to_jax()
        folder = RunFolder(path)
        signals.at_exit(folder.release)
        stack.enter_context(folder)
        try:
            return _train(config, folder, signals)
        except OSError as error:
            raise_if_disk_full(error, path)
            if error.filename and pathlib.Path(os.fsdecode(error.filename)).is_relative_to(path):
                raise write_error(pathlib.Path(os.fsdecode(error.filename)), error) from error
            raise


def _train(config: TrainConfig, folder: RunFolder, signals: StopSignals) -> int:
    workdir = folder.path
    vocabulary = Vocabulary.load(config.vocabulary or DEFAULT_VOCABULARY)
    model = model_config(config, vocabulary)
    weights = task_weights(config)
    backbone = make_backbone(model)
    mesh = make_mesh(config.mesh or None)
    program = make_program(config, backbone, len(weights), mesh)
    data = Data(config, weights, program, vocabulary.sha256)
    data.check()
    check_space(workdir, tree_bytes((program.state.params, program.state.opt_state)))
    embodiments = read_embodiments(config.data_dir, weights)
    lengths = {"prompt_len": config.prompt_len, "target_len": config.target_len}
    spec = bundle_spec(model, vocabulary, embodiments, tasks=weights, **lengths)
    meta = spec.to_json()
    facts = step_facts(config, weights)
    changes: Changes | None = {}

    def admit(step: int, saved: Mapping[str, Any]) -> None:
        nonlocal changes
        stored = BundleSpec.from_json(saved["bundle"], f"{workdir} at step {step}: its bundle")
        check_meaning(stored, embodiments, f"{workdir} at step {step}")
        changes = find_changes(saved, facts, meta)
        check_changes(changes or {}, config.may_change, f"{workdir} at step {step}")

    with partitioned(mesh):
        check_constrained(program, backbone)
        checkpoints = Checkpoints(workdir, meta, config.keep, facts)
        restored = checkpoints.restore(program.state, admit)
        state, progress = restored or (fresh_state(config, program, backbone, vocabulary), Progress(0, 0))
        if is_first():
            write_text(workdir / "config.json", config.to_json())
            write_spec(workdir, spec, vocabulary, sealed=False)
            identity = step_identity(workdir / CHECKPOINTS_DIR / str(progress.step)) if restored else None
            record_start(workdir, progress.step, identity, changes)
            if changes is None:
                print(
                    f"note: step {progress.step} was saved by an earlier release, without its config; what has changed "
                    "since then is not known",
                    file=sys.stderr,
                )
        with checkpoints:
            return _run(config, folder, signals, program, data, checkpoints, state, progress)


def _run(
    config: TrainConfig,
    folder: RunFolder,
    signals: StopSignals,
    program: Program,
    data: "Data",
    checkpoints: Checkpoints,
    state: TrainState,
    start: Progress,
) -> int:
    workdir, first, step, stopped = folder.path, is_first(), start.step, None
    window = Window(data.tasks)
    if step >= config.steps:
        signals.defer()  # done already: a signal must not make it look otherwise
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(MetricsLog(workdir, step, config.tensorboard, enabled=first))
        bar = stack.enter_context(ProgressBar(config.steps, step, config.batch_size, enabled=first))
        reader = stack.enter_context(data.reader("train", start.example))
        if step:
            bar.say(f"going on from step {step} of {workdir}")
        batch = data.put(next(reader)) if step < config.steps else {}
        while step < config.steps and not stopped:
            with jax.transfer_guard("disallow"):
                state, metrics = program.train_step(state, batch)
            signals.defer()  # compiled, and on its way: from now on there is a step to save
            step += 1
            last = step == config.steps
            window.add(metrics)
            if not last:
                batch = data.put(next(reader))  # while the device computes
            bar.advance(step)
            if step % config.log_every == 0 or last:
                numbers = window.flush(step)
                numbers["examples_per_second"] = bar.report(step, numbers)
                log.write(step, "train", numbers)
            if config.eval_every and (step % config.eval_every == 0 or last):
                with bar.paused():
                    numbers = evaluate(config, program, data, state.params)
                bar.say(f"step {step}: validation  " + _short(numbers, data.tasks))
                log.write(step, "validation", numbers)
            stopped = signals.received or ("SIGTERM" if signals.coordinated and checkpoints.preempted(step) else None)
            if step % config.checkpoint_every == 0 or last or stopped:
                window.check_finite(step)
                folder.check()
                with bar.paused():
                    checkpoints.save(state, Progress(step, start.example + (step - start.step) * config.batch_size))
    checkpoints.wait()
    if not stopped or step == config.steps:
        return EXIT_DONE
    print(f"{stopped}: saved at step {step} of {config.steps}; run the same command to go on", file=sys.stderr)
    return EXIT_PREEMPTED if stopped == "SIGTERM" else EXIT_INTERRUPTED


class Window:
    """The metrics of the steps since the last report, left on the device until it is due."""

    def __init__(self, tasks: tuple[str, ...]):
        self._tasks = tasks
        self._metrics: list[dict[str, Any]] = []

    def add(self, metrics: dict[str, Any]) -> None:
        """Adds a step; waits for the step before it, so that the host runs one step ahead at most."""
        if self._metrics:
            jax.block_until_ready(self._metrics[-1]["loss"])
        self._metrics.append(metrics)

    def check_finite(self, step: int) -> None:
        """Raises a UserError when the last step's loss is not a number: such a state must not be saved."""
        if self._metrics:
            self._require_finite(float(jax.device_get(self._metrics[-1]["loss"])), step)

    def flush(self, step: int) -> dict[str, float]:
        """Numbers over the window's steps: means per token, the last learning rate, the mean gradient norm."""
        rows = jax.device_get(self._metrics)
        self._metrics = []
        sums = {name: np.sum([row["sums"][name] for row in rows], axis=0, dtype=np.float64) for name in SUMS}
        numbers = summarize(sums, self._tasks)
        numbers["total_loss"] = float(np.mean([row["loss"] for row in rows], dtype=np.float64))
        numbers["grad_norm"] = float(np.mean([row["grad_norm"] for row in rows], dtype=np.float64))
        numbers["learning_rate"] = float(rows[-1]["learning_rate"])
        numbers["steps"] = len(rows)
        self._require_finite(numbers["total_loss"], step)
        return numbers

    def _require_finite(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {step}; lower optimizer.learning_rate or set optimizer.clip_norm, then "
                "run again: it goes on from the last checkpoint"
            )


def evaluate(config: TrainConfig, program: Program, data: "Data", params: Params) -> dict[str, float]:
    """Teacher-forced metrics of `eval_batches` validation batches of each task, the same ones at every call."""
    total: dict[str, np.ndarray] = {}
    with data.reader("validation", 0) as reader:
        for _ in range(config.eval_batches * len(data.tasks)):
            sums = jax.device_get(program.eval_step(params, data.put(next(reader))))
            total = {name: total[name] + sums[name] for name in sums} if total else sums
    return summarize(total, data.tasks)


def host_rows(sharding: NamedSharding, rows: int) -> tuple[int, int]:
    """(index, count): this host holds the `index`-th of `count` equal runs of a global batch's rows.

    Hosts that share rows (a tensor axis across hosts) get the same index.
    """
    places = sharding.addressable_devices_indices_map((rows,)).values()
    spans = {place[0].indices(rows)[:2] for place in places if place is not None}
    start, stop = min(span[0] for span in spans), max(span[1] for span in spans)
    size = stop - start
    covered = sum(end - begin for begin, end in spans)
    if covered != size or rows % size or start % size:
        raise RuntimeError(f"this host's rows {sorted(spans)} of {rows} are no equal run; order the mesh by host")
    return start // size, rows // size


class Data:
    """A run's readers, and the way of a batch from this host's memory to all devices.

    Attributes:
        tasks: names; a task's id is its place.
    """

    def __init__(self, config: TrainConfig, weights: dict[str, float], program: Program, vocabulary_sha256: str):
        self.tasks = tuple(weights)
        self._config, self._weights, self._shapes = config, weights, program.batch
        self._vocabulary = vocabulary_sha256
        self._host = host_rows(program.batch["task"].sharding, config.batch_size)

    def check(self) -> None:
        """Opens both splits, so that what is wrong with them is known before anything compiles.

        Raises:
            UserError: that, or the data have another number of images than the model.
        """
        for split in ("train", "validation") if self._config.eval_every else ("train",):
            self.reader(split, 0).close()
        images, wanted = (
            read_index(self._config.data_dir, self.tasks[0], "train").num_images,
            self._shapes["images"].shape[1],
        )
        if images != wanted:
            raise UserError(f"the data have {images} images an example, the model takes {wanted}; change num_images")

    def reader(self, split: str, start_example: int) -> BatchReader:
        """The mixture of the train split; of the validation split, every task alike and the same order in every run."""
        config, training = self._config, split == "train"
        return make_reader(
            config.data_dir,
            self._weights if training else dict.fromkeys(self.tasks, 1.0),
            split,
            config.batch_size,
            config.seed if training else 0,
            config.prompt_len,
            config.target_len,
            start_example,
            *self._host,
            vocabulary_sha256=self._vocabulary,
            image_size=self._shapes["images"].shape[2],
        )

    def put(self, batch: Batch) -> dict[str, jax.Array]:
        """This host's rows as global arrays."""
        return {
            name: jax.make_array_from_process_local_data(self._shapes[name].sharding, array, self._shapes[name].shape)
            for name, array in batch.tree().items()
        }


def _short(numbers: dict[str, float], tasks: tuple[str, ...]) -> str:
    parts = [f"loss {numbers['loss']:.4f}"]
    parts += [f"{task} {numbers[task + '/token_accuracy']:.3f}" for task in tasks if task + "/loss" in numbers]
    return "  ".join(parts)
