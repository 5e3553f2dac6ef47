"""A mixture of seqio's registry as plain numbers. Imports TensorFlow."""

import math

import seqio

from rt2_jax.data.mixtures import Mixture
from rt2_jax.errors import UserError
from rt2_jax.typed import one_line


def resolve_mixture(name: str) -> Mixture:
    """A registered mixture with the rate that seqio gives each of its tasks, rates that are functions called.

    Tasks that it names itself come first, in its own order; those of the mixtures in it follow by name.
    A rate by number of examples, such as `seqio.mixing_rate_num_examples`, counts what the task's source counts:
    episodes of a robot dataset, images of an image-text dataset.

    Raises:
        UserError: no such mixture, a rate that cannot be computed or is not above 0.
    """
    if name not in seqio.MixtureRegistry.names():
        choices = ", ".join(sorted(seqio.MixtureRegistry.names())) or "none"
        raise UserError(
            f"mixture {name!r} is not registered; choose from: {choices}; or name the module that registers it with "
            "--task-modules"
        )
    mixture = seqio.MixtureRegistry.get(name)
    own = {task: place for place, task in enumerate(mixture.rate_per_task_name)}
    tasks = sorted(mixture.tasks, key=lambda task: (own.get(task.name, len(own)), task.name))
    weights = {}
    for task in tasks:
        try:
            weights[task.name] = float(mixture.get_rate(task))
        except (Exception, SystemExit) as error:  # a rate is a function of the user's
            raise UserError(
                f"mixture {name}: the rate of {task.name} cannot be computed "
                f"({type(error).__name__}: {one_line(error)}); fix it"
            ) from error
        if not (math.isfinite(weights[task.name]) and weights[task.name] > 0):
            raise UserError(
                f"mixture {name}: the rate of {task.name} is {weights[task.name]}; give one above 0, or leave it out"
            )
    return Mixture(name, weights)
