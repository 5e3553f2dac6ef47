"""Joining the other hosts of a job, before anything else touches JAX."""

import os

import jax

from rt2_jax.errors import UserError

# Set by whoever starts several processes by hand; GKE sets TPU_WORKER_HOSTNAMES on the hosts of a TPU slice.
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
CLUSTER_SIGNS = ("TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS")


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


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdigit():
        raise UserError(f"{name} is {text!r}, needs a number; set it to one")
    return int(text)
