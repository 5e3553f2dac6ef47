"""A run's checkpoints: state, position in the data and bundle metadata, saved together and restored exactly."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from rt2_jax.errors import UserError
from rt2_jax.files.disk import check_space, raise_if_disk_full
from rt2_jax.train.bundle_meta import model_hash
from rt2_jax.train.params import check_shapes, first_line, tree_bytes
from rt2_jax.train.state import TrainState
from rt2_jax.train.steps import CHECKPOINTS_DIR, why_damaged


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

    Args:
        run_dir: they go to ``<run_dir>/checkpoints/<step>/{params,opt_state,progress}``.
        meta: the run's bundle metadata (see `bundle.bundle_meta`): saved with each step, compared at restore.
        keep: complete steps kept.
    """

    def __init__(self, run_dir: str | pathlib.Path, meta: Mapping[str, Any], keep: int = 2):
        self._directory = pathlib.Path(run_dir).resolve() / CHECKPOINTS_DIR
        self._meta = dict(meta)
        self._manager = ocp.CheckpointManager(
            self._directory,
            item_handlers={
                "params": ocp.StandardCheckpointHandler(),
                "opt_state": ocp.StandardCheckpointHandler(),
                "progress": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                create=True,
                cleanup_tmp_directories=True,
                preservation_policy=ocp.checkpoint_managers.LatestN(keep),
            ),
        )

    def save(self, state: TrainState, progress: Progress) -> None:
        """Starts saving; returns once the arrays are copied off the devices. A step already saved is left alone.

        Raises:
            UserError: the disk has no room for this save, or the one before found none. The last complete step still
                loads.
        """
        if progress.step in self._manager.all_steps():
            return
        check_space(self._directory, tree_bytes((state.params, state.opt_state)))
        try:
            self._manager.save(
                progress.step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.params),
                    opt_state=ocp.args.StandardSave(state.opt_state),
                    progress=ocp.args.JsonSave({**dataclasses.asdict(progress), "bundle": self._meta}),
                ),
            )
        except Exception as error:
            raise_if_disk_full(error, self._directory)
            raise

    def wait(self) -> None:
        """Returns when the last save is complete; errors as `save`."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise_if_disk_full(error, self._directory)
            raise

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *unused: object) -> None:
        """Waits and frees the manager's threads; errors as `save`."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def preempted(self, step: int) -> bool:
        """Whether any host was told to stop (SIGTERM); all hosts hear it at the same step. Needs jax.distributed."""
        return self._manager.reached_preemption(step)

    def restore(self, abstract: TrainState) -> tuple[TrainState, Progress] | None:
        """The newest step that is whole, on whatever mesh `abstract` names; None when there is none.

        A step that lacks files or cannot be read is passed over with a warning.

        Args:
            abstract: `TrainState` of ShapeDtypeStructs with shardings.

        Raises:
            UserError: the step belongs to another model or vocabulary, or every step is damaged.
        """
        damaged = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            reason = why_damaged(self._directory / str(step))
            found = None
            if reason is None:
                found, reason = self._read(step, abstract)
            if found is not None:
                self._set_aside(damaged)
                return found
            logging.warning("checkpoint step %d is passed over: %s", step, reason)
            damaged.append(step)
        if damaged:
            raise UserError(
                f"{self._directory}: none of the steps {damaged} is whole; put back a copy, or choose a new run_dir"
            )
        return None

    def _read(self, step: int, abstract: TrainState) -> tuple[tuple[TrainState, Progress] | None, str | None]:
        """(what the step holds, None), or (None, why it cannot be read)."""
        where = self._directory / str(step)
        try:
            saved = self._manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]
            self._check_meta(saved["bundle"], step)
            stored = self._manager.item_metadata(step)
            check_shapes(stored["params"].tree, abstract.params, f"{where}/params", "model")
            check_shapes(stored["opt_state"].tree, abstract.opt_state, f"{where}/opt_state", "optimizer")
            items = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardRestore(abstract.params),
                    opt_state=ocp.args.StandardRestore(abstract.opt_state),
                ),
            )
        except UserError:
            raise
        except Exception as error:  # Orbax raises the bare class for data that does not decode.
            return None, first_line(error)
        count = jax.device_put(np.asarray(saved["step"], np.int32), abstract.step.sharding)
        state = TrainState(count, items["params"], items["opt_state"])
        return (state, Progress(saved["step"], saved["example"])), None

    def _check_meta(self, saved: Mapping[str, Any], step: int) -> None:
        pairs = (
            ("vocabulary", saved["vocabulary"]["sha256"], self._meta["vocabulary"]["sha256"]),
            ("model", model_hash(saved["model"]), model_hash(self._meta["model"])),
        )
        for what, found, wanted in pairs:
            if found != wanted:
                raise UserError(
                    f"checkpoint {self._directory / str(step)} has {what} {found[:12]}, this run's is {wanted[:12]}; "
                    f"use the {what} it was trained with, or choose a new run_dir"
                )

    def _set_aside(self, steps: Sequence[int]) -> None:
        """Renames damaged steps, for their numbers must be free again for the run that repeats them."""
        if not steps:
            return
        if jax.process_index() == 0:
            for step in steps:
                path, number = self._directory / str(step), 0
                while (aside := path.with_name(f"damaged_{step}_{number}")).exists():
                    number += 1
                path.rename(aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged steps are set aside")
        self._manager.reload()
