"""One loss: token cross-entropy, summed over tokens, divided by the global token count (RT-2, section 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

SUMS = ("loss", "tokens", "correct", "exact", "examples")

Sums = dict[str, Float32[Array, " tasks"]]  # by the names in SUMS


def token_losses(
    logits: Float32[Array, "batch length vocabulary"], target: Int32[Array, "batch length"], z_loss: float
) -> tuple[Float32[Array, "batch length"], Float32[Array, "batch length"], Bool[Array, "batch length"]]:
    """Cross-entropy, the z-loss term and whether the answer is right, for every token.

    Args:
        logits: the model's.
        target: the answers' tokens.
        z_loss: weight of log(Z)^2, which keeps logits from drifting (T5X uses 1e-4).

    Returns:
        (cross-entropy in nats, the z-loss term, whether no token has a larger logit than the target).
    """
    log_z = jax.nn.logsumexp(logits, axis=-1)
    # Not a gather: a vocabulary cut over devices stays cut. Not an argmax: XLA is slow at it on a CPU.
    is_target = target[..., None] == jnp.arange(logits.shape[-1])
    chosen = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    return log_z - chosen, z_loss * jnp.square(log_z), chosen >= jnp.max(logits, axis=-1)


def loss_sums(
    logits: Float32[Array, "batch length vocabulary"], batch: dict[str, Array], num_tasks: int, z_loss: float = 0.0
) -> tuple[Float32[Array, ""], Sums]:
    """The loss's numerator and each task's sums; divide by token counts after adding up microbatches.

    Args:
        logits: the model's.
        batch: target int32[batch, length], weights float32[batch, length], task int32[batch].
        num_tasks: length of the per-task vectors.
        z_loss: weight of log(Z)^2 in the numerator (never in the per-task loss).

    Returns:
        (the weighted sum over tokens of cross-entropy and z-loss, for each name in `SUMS` each task's: cross-entropy,
        tokens, tokens where the target is the most likely, examples whose every weighted token is so, examples with a
        weighted token).
    """
    target, weights, task = batch["target"], batch["weights"], batch["task"]
    cross_entropy, penalty, largest = token_losses(logits, target, z_loss)
    right = largest & (weights > 0)
    counted = jnp.any(weights > 0, axis=-1)
    exact = jnp.all(right | (weights <= 0), axis=-1) & counted
    rows = {
        "loss": jnp.sum(cross_entropy * weights, axis=-1),
        "tokens": jnp.sum(weights, axis=-1),
        "correct": jnp.sum(right * weights, axis=-1),
        "exact": exact.astype(jnp.float32),
        "examples": counted.astype(jnp.float32),
    }
    sums = {name: jax.ops.segment_sum(row, task, num_segments=num_tasks) for name, row in rows.items()}
    return jnp.sum((cross_entropy + penalty) * weights), sums


def summarize(sums: dict[str, Any], tasks: tuple[str, ...]) -> dict[str, float]:
    """Host numbers of summed `loss_sums`: loss, token_accuracy and exact_match, overall and as "<task>/<metric>".

    A task that no example of came up is left out; token counts are under "tokens" and "<task>/tokens".
    """
    rows = [("", {name: float(sums[name].sum()) for name in SUMS})]
    rows += [(task + "/", {name: float(sums[name][i]) for name in SUMS}) for i, task in enumerate(tasks)]
    metrics = {}
    for prefix, row in rows:
        if row["examples"]:
            metrics[prefix + "loss"] = row["loss"] / row["tokens"]
            metrics[prefix + "token_accuracy"] = row["correct"] / row["tokens"]
            metrics[prefix + "exact_match"] = row["exact"] / row["examples"]
            metrics[prefix + "tokens"] = row["tokens"]
    return metrics
