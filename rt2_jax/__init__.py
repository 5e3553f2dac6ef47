"""RT-2 in JAX: vision-language-action models, co-fine-tuned on web and robot data."""

import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from rt2_jax.bundle.store import LoadedBundle
    from rt2_jax.policy.policy import Policy

__version__ = "0.1.0"


def load_policy(
    path: "str | pathlib.Path", *, mesh: "Mesh | None" = None, verify: bool = True, **sampling: Any
) -> "Policy":
    """The policy of a bundle or a run: ``load_policy(path).act(images, ["pick up the red cube"]).actions``.

    Args:
        path: a bundle, or a run's workdir, of which the newest whole step is taken.
        mesh: of `rt2_jax.parallel.make_mesh`: devices to lay the weights out over, for a model that one cannot hold.
        verify: hold every byte to its hash first.
        sampling: temperature, top_k, top_p and best_of; greedy by default.

    Raises:
        rt2_jax.errors.UserError: a missing or damaged file, or weights that were shown no robot.
    """
    # JAX takes a second, which `rt2 --help` need not wait for.
    from rt2_jax.policy.load import load_policy

    return load_policy(path, mesh=mesh, verify=verify, **sampling)


def load_bundle(path: "str | pathlib.Path", *, verify: bool = True) -> "LoadedBundle":
    """Model, weights, vocabulary and embodiments of a bundle, of converted weights, or of a run's newest whole step.

    Raises:
        rt2_jax.errors.UserError: a missing or damaged file.
    """
    from rt2_jax.bundle.store import load_bundle

    return load_bundle(path, verify=verify)
