"""PaLM-E's wiring (arXiv 2303.03378, section 3): patch tokens among the prompt's, in a decoder-only LM's prefix."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, UInt8

from rt2_jax.models.attention import softcap
from rt2_jax.models.config import ModelConfig, PrefixLmConfig
from rt2_jax.models.embedding import PAD_ID, Embedding
from rt2_jax.models.image_tokens import image_tokens, vision_parts
from rt2_jax.models.prefix_lm import PrefixCache, PrefixLm


class PalmE(nn.Module):
    """ViT + prefix LM, ``text`` being the config's. `rt2_jax.models.backbone` wraps it in pure functions.

    ``apart``: see models/stack.py.
    """

    config: ModelConfig
    text: PrefixLmConfig
    apart: bool

    def setup(self) -> None:
        config, text = self.config, self.text
        dtype = jnp.dtype(config.compute_dtype)
        self.vision, self.image_projection = vision_parts(config, self.apart)
        self.token_embedding = Embedding(config.vocab_size, text.width, dtype, text.scaled_inputs)
        self.decoder = PrefixLm(text, dtype=dtype, remat=config.remat, unroll=config.scan_unroll, apart=self.apart)

    def __call__(
        self,
        images: UInt8[Array, "batch images height width 3"],
        prompt: Int32[Array, "batch prompt"],
        target: Int32[Array, "batch length"],
    ) -> Float32[Array, "batch length {self.config.vocab_size}"]:
        """Teacher-forced logits: row i sees target[:, :i]."""
        prefix, mask = self.prefix(images, prompt)
        x = self.decoder(prefix, mask, self.token_embedding(target[:, :-1]))
        first = _last(x[:, : mask.shape[1]], mask)
        return self._head(jnp.concatenate([first, x[:, mask.shape[1] :]], axis=1))

    def prefix(
        self, images: UInt8[Array, "batch images height width 3"], prompt: Int32[Array, "batch prompt"]
    ) -> tuple[Float[Array, "batch prefix {self.text.width}"], Bool[Array, "batch prefix"]]:
        """The embedded prefix and its mask."""
        text = self.text
        ids = framed(prompt, text.bos_id, text.separator_id)
        embedded = self.token_embedding(ids)
        tokens, shown = image_tokens(self.vision, self.image_projection, images, embedded)
        x = jnp.concatenate([tokens, embedded], axis=1)
        mask = jnp.concatenate([shown, ids != PAD_ID], axis=1)
        if text.image_id is None or not images.shape[1]:
            return x, mask
        source = interleaved(ids == text.image_id, images.shape[1], self.config.tokens_per_image)
        mask = jnp.take_along_axis(mask, source, axis=1, mode="fill", fill_value=False)
        x = jnp.take_along_axis(x, source[..., None], axis=1, mode="fill", fill_value=0)
        return x, mask

    def prefill(
        self,
        images: UInt8[Array, "batch images height width 3"],
        prompt: Int32[Array, "batch prompt"],
        max_len: int,
        ids: Int32[Array | np.ndarray, " tokens"] | None,
    ) -> tuple[Float32[Array, "batch tokens"], PrefixCache]:
        """The first token's logits, and a cache for targets of ``max_len`` tokens."""
        prefix, mask = self.prefix(images, prompt)
        x, cache = self.decoder.prefill(prefix, mask, max_len)
        return self._head(_last(x, mask), ids)[:, 0], cache

    def decode_step(
        self,
        cache: PrefixCache,
        token: Int32[Array, " batch"],
        index: Int[Array, ""] | int,
        ids: Int32[Array | np.ndarray, " tokens"] | None,
    ) -> tuple[Float32[Array, "batch tokens"], PrefixCache]:
        """The logits of the token after the target's token number ``index``, and the cache."""
        x, cache = self.decoder.step(self.token_embedding(token[:, None]), cache, index)
        return self._head(x, ids)[:, 0], cache

    def _head(
        self, x: Float[Array, "batch length {self.text.width}"], ids: Int32[Array | np.ndarray, " tokens"] | None = None
    ) -> Float32[Array, "batch length tokens"]:
        return softcap(self.token_embedding.logits(x, ids), self.text.logits_softcap)


def framed(
    prompt: Int32[Array, "batch prompt"], bos_id: int | None, separator_id: int | None
) -> Int32[Array, "batch framed"]:
    """Prompts, padded on the right, between a first and a last token; each None adds nothing."""
    if bos_id is not None:
        prompt = jnp.pad(prompt, ((0, 0), (1, 0)), constant_values=bos_id)
    if separator_id is None:
        return prompt
    length = jnp.sum(prompt != PAD_ID, axis=1, keepdims=True)
    prompt = jnp.pad(prompt, ((0, 0), (0, 1)), constant_values=PAD_ID)
    return jnp.where(jnp.arange(prompt.shape[1]) == length, separator_id, prompt)


def interleaved(
    markers: Bool[Array, "batch length"], num_images: int, tokens_per_image: int
) -> Int32[Array, "batch {num_images}*{tokens_per_image}+length"]:
    """Where each slot of a prefix comes from, when images stand at their markers.

    A row's last images take the places of its markers, in order; the images before them, without a marker, stand before
    the text. Markers beyond the last image keep their own embedding.

    Args:
      markers: True on a prompt's image tokens.
      num_images, tokens_per_image: N and k.

    Returns:
      An index into the row's N * k image tokens followed by its T text tokens, or beyond both (N * k + T) for the slots
      at the end that the markers leave free.
    """
    batch, length = markers.shape
    total = num_images * tokens_per_image + length
    before = jnp.cumsum(markers, axis=1) - markers  # markers before each text token
    markers = markers & (before < num_images)
    before = jnp.minimum(before, num_images)
    unmarked = num_images - jnp.sum(markers, axis=1, keepdims=True)
    text_slot = unmarked * tokens_per_image + jnp.arange(length) + before * (tokens_per_image - 1)
    # Image i stands in its marker's slot: the markers of a row, in order, come first in this sort.
    marked = jnp.argsort(~markers, axis=1, stable=True)
    image = jnp.arange(num_images)
    marker = jnp.take_along_axis(marked, jnp.clip(image - unmarked, 0, length - 1), axis=1)
    at_marker = jnp.take_along_axis(text_slot, marker, axis=1)
    first_slot = jnp.where(image < unmarked, image * tokens_per_image, at_marker)
    image_slot = (first_slot[..., None] + jnp.arange(tokens_per_image)).reshape(batch, -1)
    slots = jnp.concatenate([image_slot, jnp.where(markers, total, text_slot)], axis=1)
    source = jnp.broadcast_to(jnp.arange(total, dtype=jnp.int32), slots.shape)
    rows = jnp.arange(batch)[:, None]
    return jnp.full((batch, total), total, jnp.int32).at[rows, slots].set(source, mode="drop")


def _last(x: Float[Array, "batch length width"], mask: Bool[Array, "batch length"]) -> Float[Array, "batch 1 width"]:
    """Each row's last token that is no padding."""
    last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    return jnp.take_along_axis(x, last[:, None, None], axis=1)
