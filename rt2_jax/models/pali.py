"""PaLI's wiring (arXiv 2209.06794, 3.1; 2305.18565, 3.1): the patch tokens of every image, then the prompt, encoded."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, UInt8

from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig
from rt2_jax.models.embedding import PAD_ID, Embedding, Logits
from rt2_jax.models.encoder_decoder import Cache, Decoder, Encoder
from rt2_jax.models.image_tokens import image_tokens, vision_parts


class Pali(nn.Module):
    """ViT + encoder-decoder, ``text`` being the config's. `rt2_jax.models.backbone` wraps it in pure functions.

    ``apart``: see models/stack.py.
    """

    config: ModelConfig
    text: EncoderDecoderConfig
    apart: bool

    def setup(self) -> None:
        config, text = self.config, self.text
        dtype = jnp.dtype(config.compute_dtype)
        self.vision, self.image_projection = vision_parts(config, self.apart)
        self.token_embedding = Embedding(config.vocab_size, text.width, dtype)
        self.encoder = Encoder(text, dtype=dtype, remat=config.remat, unroll=config.scan_unroll, apart=self.apart)
        self.decoder = Decoder(text, dtype=dtype, remat=config.remat, unroll=config.scan_unroll, apart=self.apart)
        if not text.tied_embeddings:
            self.logits = Logits(config.vocab_size, dtype)

    def __call__(
        self,
        images: UInt8[Array, "batch images height width 3"],
        prompt: Int32[Array, "batch prompt"],
        target: Int32[Array, "batch length"],
    ) -> Float32[Array, "batch length {self.config.vocab_size}"]:
        """Teacher-forced logits: row i sees target[:, :i]."""
        encoded, mask = self.encode(images, prompt)
        inputs = jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=PAD_ID)
        return self._head(self.decoder(self.token_embedding(inputs), encoded, mask))

    def encode(
        self, images: UInt8[Array, "batch images height width 3"], prompt: Int32[Array, "batch prompt"]
    ) -> tuple[Float[Array, "batch source {self.text.width}"], Bool[Array, "batch source"]]:
        """The encoder's output and its mask, images before text."""
        text = self.token_embedding(prompt)
        tokens, shown = image_tokens(self.vision, self.image_projection, images, text)
        mask = jnp.concatenate([shown, prompt != PAD_ID], axis=1)
        return self.encoder(jnp.concatenate([tokens, text], axis=1), mask), mask

    def prefill(
        self,
        images: UInt8[Array, "batch images height width 3"],
        prompt: Int32[Array, "batch prompt"],
        max_len: int,
        ids: Int32[Array | np.ndarray, " tokens"] | None,
    ) -> tuple[Float32[Array, "batch tokens"], Cache]:
        """The first token's logits, and a cache for targets of ``max_len`` tokens."""
        cache = self.decoder.start_cache(*self.encode(images, prompt), max_len)
        return self._step(cache, jnp.full(prompt.shape[0], PAD_ID, jnp.int32), 0, ids)

    def decode_step(
        self,
        cache: Cache,
        token: Int32[Array, " batch"],
        index: Int[Array, ""] | int,
        ids: Int32[Array | np.ndarray, " tokens"] | None,
    ) -> tuple[Float32[Array, "batch tokens"], Cache]:
        """The logits of the token after the target's token number ``index``, and the cache."""
        return self._step(cache, token, index + 1, ids)  # the pad took place 0

    def _step(
        self,
        cache: Cache,
        token: Int32[Array, " batch"],
        place: Int[Array, ""] | int,
        ids: Int32[Array | np.ndarray, " tokens"] | None,
    ) -> tuple[Float32[Array, "batch tokens"], Cache]:
        x, cache = self.decoder.step(self.token_embedding(token[:, None]), cache, place)
        return self._head(x, ids)[:, 0], cache

    def _head(
        self, x: Float[Array, "batch length {self.text.width}"], ids: Int32[Array | np.ndarray, " tokens"] | None = None
    ) -> Float32[Array, "batch length tokens"]:
        return self.token_embedding.logits(x, ids) if self.text.tied_embeddings else self.logits(x, ids)
