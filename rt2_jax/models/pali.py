"""PaLI's wiring (arXiv 2209.06794, 3.1; 2305.18565, 3.1): the patch tokens of every image, then the prompt, encoded."""

import flax.linen as nn
import jax.numpy as jnp

from rt2_jax.models.config import ModelConfig
from rt2_jax.models.embedding import PAD_ID, Embedding, Logits
from rt2_jax.models.encoder_decoder import Cache, Decoder, Encoder
from rt2_jax.models.image_tokens import image_tokens, vision_parts


class Pali(nn.Module):
    """ViT + encoder-decoder. `rt2_jax.models.backbone` wraps it in pure functions."""

    config: ModelConfig

    def setup(self):
        config = self.config
        dtype = jnp.dtype(config.compute_dtype)
        common = {"dtype": dtype, "remat": config.remat, "unroll": config.scan_unroll}
        self.vision, self.image_projection = vision_parts(config)
        self.token_embedding = Embedding(config.vocab_size, config.text.width, dtype)
        self.encoder = Encoder(config.text, **common)
        self.decoder = Decoder(config.text, **common)
        if not config.text.tied_embeddings:
            self.logits = Logits(config.vocab_size, dtype)

    def __call__(self, images, prompt, target):
        """Teacher-forced logits float32[B, L, V]: row i sees target[:, :i]."""
        encoded, mask = self.encode(images, prompt)
        inputs = jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=PAD_ID)
        return self._head(self.decoder(self.token_embedding(inputs), encoded, mask))

    def encode(self, images, prompt):
        """uint8[B, N, H, W, 3], int32[B, T] -> (encoder output [B, S, width], mask bool[B, S]), images before text."""
        text = self.token_embedding(prompt)
        tokens, shown = image_tokens(self.vision, self.image_projection, images, text)
        mask = jnp.concatenate([shown, prompt != PAD_ID], axis=1)
        return self.encoder(jnp.concatenate([tokens, text], axis=1), mask), mask

    def prefill(self, images, prompt, max_len: int):
        """The first token's logits float32[B, V], and a cache for targets of ``max_len`` tokens."""
        cache = self.decoder.start_cache(*self.encode(images, prompt), max_len)
        return self._step(cache, jnp.full(prompt.shape[0], PAD_ID, jnp.int32), 0)

    def decode_step(self, cache: Cache, token, index):
        """Target token int32[B] number ``index`` -> (the next token's logits float32[B, V], cache)."""
        return self._step(cache, token, index + 1)  # the pad took place 0

    def _step(self, cache, token, place):
        x, cache = self.decoder.step(self.token_embedding(token[:, None]), cache, place)
        return self._head(x)[:, 0], cache

    def _head(self, x):
        return self.token_embedding.logits(x) if self.config.text.tied_embeddings else self.logits(x)
