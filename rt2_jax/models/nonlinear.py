"""Softmax and activations whose gradients keep as little as they can.

Differentiated as written, a tanh gelu keeps five arrays as large as its input, and a softmax the exponentials and the
quotient. Such arrays cost a CPU time and an accelerator memory. Here the forward pass is that of `jax.nn`, to the bit;
the gradient keeps the softmax itself, or the activation's input, and computes the rest again. There is no forward mode.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

GELU_SLOPE = (2 / jnp.pi) ** 0.5  # of the tanh form's argument at 0, arXiv 1606.08415, section 2
GELU_CUBE = 0.044715


@jax.custom_vjp
def softmax(logits: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """exp(logits) over the last axis, divided by their sum."""
    return jax.nn.softmax(logits)


def _softmax_forward(logits: Array) -> tuple[Array, Array]:
    weights = jax.nn.softmax(logits)
    return weights, weights


def _softmax_backward(weights: Array, gradient: Array) -> tuple[Array]:
    weighted = weights * gradient
    return (weighted - weights * jnp.sum(weighted, axis=-1, keepdims=True),)


softmax.defvjp(_softmax_forward, _softmax_backward)


def _gelu_slope(x: Array) -> Array:
    """d gelu / dx of the tanh form."""
    bent = jnp.tanh(GELU_SLOPE * (x + GELU_CUBE * x**3))
    return 0.5 * (1 + bent) + 0.5 * x * (1 - bent * bent) * GELU_SLOPE * (1 + 3 * GELU_CUBE * x * x)


def _silu_slope(x: Array) -> Array:
    """d silu / dx."""
    bent = jax.nn.sigmoid(x)
    return bent * (1 + x * (1 - bent))


# By the names of `models.config.ACTIVATIONS`: the function, its derivative. T5 and big_vision have the tanh form too.
_ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "gelu": (jax.nn.gelu, _gelu_slope),
    "silu": (jax.nn.silu, _silu_slope),
}


def _activation(name: str) -> Callable[[Any], Any]:
    function, slope = _ACTIVATIONS[name]

    @jax.custom_vjp
    def activation(x: Array) -> Array:
        return function(x)

    activation.defvjp(lambda x: (function(x), x), lambda x, gradient: (gradient * slope(x),))
    return activation


def _gate(name: str) -> Callable[[Any, Any], Any]:
    function, slope = _ACTIVATIONS[name]

    @jax.custom_vjp
    def gate(x: Array, y: Array) -> Array:
        return function(x) * y

    def backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
        x, y = kept
        return gradient * y * slope(x), gradient * function(x)

    gate.defvjp(lambda x, y: (function(x) * y, (x, y)), backward)
    return gate


_ACTIVATE = {name: _activation(name) for name in _ACTIVATIONS}
_GATE = {name: _gate(name) for name in _ACTIVATIONS}


def activate(name: str, x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """The activation ``name``, "gelu" (tanh form) or "silu", of x."""
    return _ACTIVATE[name](x)


def gated(name: str, gate: Float[Array, "*axes"], x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """The activation ``name`` of ``gate``, times x (arXiv 2002.05202)."""
    return _GATE[name](gate, x)
