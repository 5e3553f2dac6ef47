"""From token ids to vectors and back: the token table and the logits head."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

from rt2_jax.models.layers import FAN_IN, adapted, axes, hidden, rescaled
from rt2_jax.parallel.rules import constrain

PAD_ID = 0  # padding of prompts and targets, and an encoder-decoder's first input


class Embedding(nn.Module):
    """The token table [vocab, width], and the logits head where they are tied.

    ``scaled_inputs``: the table is drawn at width ** -0.5 and multiplied by width ** 0.5 when it embeds; otherwise it
    is drawn at 1 and multiplied by width ** -0.5 when it scores.
    """

    vocab_size: int
    width: int
    dtype: jnp.dtype
    scaled_inputs: bool = False

    def setup(self) -> None:
        std = self.width**-0.5 if self.scaled_inputs else 1.0
        init = axes(nn.initializers.normal(std), "vocab", "embed")
        self.embedding = self.param("embedding", init, (self.vocab_size, self.width), jnp.float32)

    def __call__(self, ids: Int[Array, "batch length"]) -> Float[Array, "batch length {self.width}"]:
        x = jnp.take(self.embedding, ids, axis=0, mode="clip")
        if self.has_variable("params", "embedding_scale"):  # int8: a row has its scale
            scale = self.get_variable("params", "embedding_scale")
            x = x.astype(jnp.float32) * jnp.take(scale, ids, axis=0, mode="clip")[..., None]
        x = x.astype(self.dtype)
        return hidden(x * jnp.asarray(self.width**0.5, self.dtype) if self.scaled_inputs else x)

    def logits(
        self, x: Float[Array, "batch length {self.width}"], ids: Int32[Array | np.ndarray, " tokens"] | None = None
    ) -> Float32[Array, "batch length tokens"]:
        """Scores of the tokens ``ids``, None for all, by the table's own rows."""
        x = x if self.scaled_inputs else x * self.width**-0.5
        table = self.embedding if ids is None else jnp.take(self.embedding, ids, axis=0, mode="clip")
        table = table.astype(self.dtype)
        logits = jnp.einsum("bsw,vw->bsv", x, table, preferred_element_type=jnp.float32)
        return vocabulary_layout(rescaled(self, logits, "embedding", ids))


class Logits(nn.Module):
    """Scores of the tokens ``ids``, None for all, by a head of its own."""

    vocab_size: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length width"], ids: Int32[Array | np.ndarray, " tokens"] | None = None
    ) -> Float32[Array, "batch length tokens"]:
        kernel = self.param("kernel", axes(FAN_IN, "embed", "vocab"), (x.shape[-1], self.vocab_size), jnp.float32)
        kernel = kernel if ids is None else jnp.take(kernel, ids, axis=1, mode="clip")
        logits = jnp.einsum("bsw,wv->bsv", x, kernel.astype(self.dtype), preferred_element_type=jnp.float32)
        return vocabulary_layout(adapted(self, x, rescaled(self, logits, outputs=ids), ids))


def vocabulary_layout(
    logits: Float32[Array, "batch length vocabulary"],
) -> Float32[Array, "batch length vocabulary"]:
    """The layout of logits."""
    return constrain(logits, "activation_batch", "activation_length", "activation_vocab")
