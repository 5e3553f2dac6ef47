"""A run's checkpoints: state, position in the data and bundle metadata, saved together and restored exactly."""

import dataclasses
import functools
import os
import pathlib
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from rt2_jax.bundle.params import check_shapes, tree_bytes
from rt2_jax.bundle.spec import model_hash
from rt2_jax.bundle.steps import (
    CHECKPOINTS_DIR,
    CUT_OFF,
    SEALED_FORMAT,
    STEP_KIND,
    listed_steps,
    log_passed_over,
    read_progress,
    saving_mark,
    why_changed,
    why_unsealed,
)
from rt2_jax.errors import UserError, first_line
from rt2_jax.files.disk import check_space, raise_if_disk_full
from rt2_jax.files.manifest import read_manifest, shares
from rt2_jax.files.writing import seal, write_text
from rt2_jax.train.hosts import agree, is_first
from rt2_jax.train.state import TrainState

# A step on its way out: no number, so that a removal which is cut off leaves no half step.
_OLD = "old_"


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run stands in its data, as integers that mean the same on any number of hosts.

    Attributes:
        step: updates done.
        example: global examples consumed, the number of the next one.
    """

    step: int
    example: int


class Checkpoints:
    """The checkpoints of one run directory, saved in the background while training goes on.

    A step counts as saved once Orbax has committed it and every file of it is hashed into its ``manifest.json``; only
    then do older ones go, so that there is always a whole one.

    Args:
        run_dir: they go to ``<run_dir>/checkpoints/<step>/{params,opt_state,progress}``.
        meta: the content of the run's bundle.json (`BundleSpec.to_json`): saved with each step, compared at restore.
        keep: complete steps kept.
        facts: what else the progress of each step is to hold, as JSON values.
    """

    def __init__(
        self,
        run_dir: str | pathlib.Path,
        meta: Mapping[str, Any],
        keep: int = 2,
        facts: Mapping[str, Any] | None = None,
    ):
        self._directory = pathlib.Path(run_dir).resolve() / CHECKPOINTS_DIR
        self._meta, self._facts, self._keep = dict(meta), dict(facts or {}), keep
        self._sealing: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._steps: set[int] = set()

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Made when first needed, for making it changes the folder."""
        if is_first():
            for path in self._directory.glob(f"{_OLD}*"):
                shutil.rmtree(path, ignore_errors=True)
            for path in self._directory.glob(saving_mark(self._directory / "*").name):
                path.unlink()
        manager = ocp.CheckpointManager(
            self._directory,
            item_handlers={
                "params": ocp.StandardCheckpointHandler(),
                "opt_state": ocp.StandardCheckpointHandler(),
                "progress": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                create=True,
                cleanup_tmp_directories=True,
                # All: it would remove the last whole step as soon as the next is committed, which is not yet sealed.
                preservation_policy=ocp.checkpoint_managers.LatestN(None),
            ),
        )
        self._steps = set(listed_steps(self._directory))
        return manager

    def save(self, state: TrainState, progress: Progress) -> None:
        """Starts saving; returns once the arrays are copied off the devices. A step already saved is left alone.

        Raises:
            UserError: the disk has no room for this save, or the one before found none. The last complete step still
                loads.
        """
        manager = self._manager
        self.wait()
        if progress.step in self._steps:
            return
        check_space(self._directory, tree_bytes((state.params, state.opt_state)))
        saved = {"format": SEALED_FORMAT, **dataclasses.asdict(progress), "bundle": self._meta, **self._facts}
        try:
            if is_first():
                write_text(saving_mark(self._directory / str(progress.step)), "")
            manager.save(
                progress.step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.params),
                    opt_state=ocp.args.StandardSave(state.opt_state),
                    progress=ocp.args.JsonSave(saved),
                ),
            )
        except Exception as error:
            raise_if_disk_full(error, self._directory)
            raise
        self._sealing = threading.Thread(target=self._seal, args=(progress.step,), name="rt2-seal")
        self._sealing.start()

    def wait(self) -> None:
        """Returns when the last save is sealed, on all hosts; errors as `save`."""
        if self._sealing is None:
            return
        failure = self._join()
        # The first host seals; the others hear from it here.
        problem = agree(failure and first_line(failure))
        if failure is not None:
            raise_if_disk_full(failure, self._directory)
            raise failure
        if problem is not None:
            raise UserError(f"{self._directory}: another host could not save ({problem}); start all hosts again")

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error: object, *unused: object) -> None:
        """Waits and frees the manager's threads; errors as `save`."""
        try:
            if error is None:
                self.wait()
            elif failure := self._join():  # the other hosts may be elsewhere: no word with them
                raise_if_disk_full(failure, self._directory)
                raise failure
        finally:
            if "_manager" in vars(self):
                self._manager.close()

    def preempted(self, step: int) -> bool:
        """Whether any host was told to stop (SIGTERM); all hosts hear it at the same step. Needs jax.distributed."""
        return self._manager.reached_preemption(step)

    def restore(
        self, abstract: TrainState, admit: Callable[[int, Mapping[str, Any]], None] | None = None
    ) -> tuple[TrainState, Progress] | None:
        """The newest step that is whole, on whatever mesh `abstract` names; None when there is none.

        A step with a byte that is not as it was saved, or that cannot be read, is passed over with a warning, before
        Orbax sees it; it is then renamed, for the run will come to its number again.

        Args:
            abstract: `TrainState` of ShapeDtypeStructs with shardings.
            admit: told the step's number and its progress before its arrays are read; raises what speaks against
                going on from it. Nothing in the folder has changed by then.

        Raises:
            UserError: the step belongs to another model or vocabulary, or every step is damaged.
        """
        damaged, cut_off = [], []
        if os.path.lexists(self._directory) and not self._directory.is_dir():
            raise UserError(f"{self._directory} is no folder; move it away, or choose a new workdir")
        for step in listed_steps(self._directory):
            reason = self._why_damaged(step)
            found = None
            if reason is None:
                progress = read_progress(self._directory / str(step))
                if admit:
                    admit(step, progress)
                self._check_meta(progress["bundle"], step)
                found, reason = self._read(step, abstract, progress)
                reason = agree(reason)
            if found is not None and reason is None:
                self._set_aside(damaged, cut_off)
                return found
            log_passed_over(step, reason or "it cannot be read")
            (cut_off if reason == CUT_OFF else damaged).append(step)
        if damaged:
            raise UserError(
                f"{self._directory}: none of the steps {damaged} is whole; put back a copy, or choose a new run_dir"
            )
        self._set_aside(damaged, cut_off)
        return None

    def _why_damaged(self, step: int) -> str | None:
        """As `steps.why_damaged`; each host hashes a part of the files, and all come to the same answer."""
        step_dir = self._directory / str(step)
        reason = agree(why_unsealed(step_dir))
        if reason is not None:
            return reason
        try:
            manifest = read_manifest(step_dir)
            mine = manifest and shares(manifest, jax.process_count())[jax.process_index()]
            return agree(why_changed(step_dir, mine))
        except UserError as error:
            return agree(str(error))

    def _seal(self, step: int) -> None:
        """In a thread of its own: waits for Orbax, hashes what it wrote, then removes steps that are too many."""
        try:
            self._manager.wait_until_finished()
            if is_first():
                step_dir = self._directory / str(step)
                seal(step_dir, STEP_KIND, {"step": step})
                saving_mark(step_dir).unlink()
            self._steps.add(step)
            self._remove_old()
        except BaseException as error:  # the main thread raises it
            self._failure = error

    def _remove_old(self) -> None:
        old = sorted(self._steps)[: -self._keep]
        self._steps -= set(old)
        for step in old if is_first() else ():
            self._remove(step)

    def _remove(self, step: int) -> None:
        leaving = self._directory / f"{_OLD}{step}"
        shutil.rmtree(leaving, ignore_errors=True)
        (self._directory / str(step)).rename(leaving)
        shutil.rmtree(leaving)

    def _join(self) -> BaseException | None:
        """Waits for the thread that seals; what went wrong in it."""
        if self._sealing is None:
            return None
        self._sealing.join()
        failure, self._sealing, self._failure = self._failure, None, None
        try:
            self._manager.wait_until_finished()  # tells every thread once of an error, so this one here
        except Exception as error:
            failure = failure or error
        return failure

    def _read(
        self, step: int, abstract: TrainState, saved: Mapping[str, Any]
    ) -> tuple[tuple[TrainState, Progress] | None, str | None]:
        """(what the step holds, None), or (None, why it cannot be read)."""
        where = self._directory / str(step)
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                for item, wanted, what in (
                    ("params", abstract.params, "model"),
                    ("opt_state", abstract.opt_state, "optimizer"),
                ):
                    stored = checkpointer.metadata(where / item).item_metadata.tree
                    check_shapes(stored, wanted, f"{where}/{item}", what)
                params = checkpointer.restore(where / "params", abstract.params)
                opt_state = checkpointer.restore(where / "opt_state", abstract.opt_state)
        except UserError:
            raise
        except Exception as error:  # Orbax raises the bare class for data that does not decode.
            return None, first_line(error)
        count = jax.device_put(np.asarray(saved["step"], np.int32), abstract.step.sharding)
        return (TrainState(count, params, opt_state), Progress(saved["step"], saved["example"])), None

    def _check_meta(self, saved: Mapping[str, Any], step: int) -> None:
        try:
            pairs = (
                ("vocabulary", saved["vocabulary"]["sha256"], self._meta["vocabulary"]["sha256"]),
                ("model", model_hash(saved["model"]), model_hash(self._meta["model"])),
            )
        except (KeyError, TypeError, AttributeError) as error:  # a step without a manifest, for others are hashed
            raise UserError(
                f"checkpoint {self._directory / str(step)} has damaged bundle metadata ({error!r}); remove that step"
            ) from error
        for what, found, wanted in pairs:
            if found != wanted:
                raise UserError(
                    f"checkpoint {self._directory / str(step)} has {what} {found[:12]}, this run's is {wanted[:12]}; "
                    f"use the {what} it was trained with, or choose a new run_dir"
                )

    def _set_aside(self, damaged: Sequence[int], cut_off: Sequence[int]) -> None:
        """Renames damaged steps and removes cut-off ones: their numbers must be free for the run that repeats them."""
        if not damaged and not cut_off:
            return
        if is_first():
            for step in cut_off:
                self._remove(step)
            for step in damaged:
                path, number = self._directory / str(step), 0
                while (aside := path.with_name(f"damaged_{step}_{number}")).exists():
                    number += 1
                path.rename(aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged steps are set aside")
