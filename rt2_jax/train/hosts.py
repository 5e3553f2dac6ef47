"""The other hosts of a job: joining them before anything else touches JAX, agreeing with them on what went wrong."""

import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from rt2_jax.errors import UserError

# Set by whoever starts several processes by hand; GKE sets TPU_WORKER_HOSTNAMES on the hosts of a TPU slice.
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
CLUSTER_SIGNS = ("TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS")
_PROBLEM_BYTES = 512


def join_hosts() -> None:
    """Starts jax.distributed where the environment says that this process is one of several; otherwise does nothing.

    With JAX_COORDINATOR_ADDRESS ("host:port"), JAX_NUM_PROCESSES and JAX_PROCESS_ID set, these decide; on the hosts of
    a TPU slice JAX finds them itself.

    Raises:
        UserError: one of the three is set without the others, or is no number.
    """
    if jax.distributed.is_initialized():
        return
    named = [name for name in (ADDRESS, COUNT, INDEX) if os.environ.get(name)]
    if len(named) == 3:
        jax.distributed.initialize(os.environ[ADDRESS], _number(COUNT), _number(INDEX))
    elif named:
        raise UserError(f"{named[0]} is set, but {ADDRESS}, {COUNT} and {INDEX} are needed together; set all or none")
    elif any(os.environ.get(sign) for sign in CLUSTER_SIGNS):
        jax.distributed.initialize()


def is_first() -> bool:
    """Whether this is the only or the first host: the one that writes files. It does not start JAX's devices."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def agree(problem: str | None) -> str | None:
    """What went wrong on the first host that has a problem, told to all; None when none has one.

    All hosts call it together and wait for each other in it, so that they go on, or give up, together.
    """
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return problem
    mine = np.zeros(_PROBLEM_BYTES, np.uint8)
    text = np.frombuffer((problem or "").encode()[:_PROBLEM_BYTES], np.uint8)
    mine[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(mine))
    told = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]
    return next((text for text in told if text), None)


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdigit():
        raise UserError(f"{name} is {text!r}, needs a number; set it to one")
    return int(text)
