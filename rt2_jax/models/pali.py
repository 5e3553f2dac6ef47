"""PaLI's wiring (arXiv 2209.06794, 3.1; 2305.18565, 3.1): the patch tokens of every image, then the prompt, encoded."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from rt2_jax.models.config import ModelConfig
from rt2_jax.models.encoder_decoder import FAN_IN, Cache, Decoder, Encoder
from rt2_jax.models.layers import Linear, axes, hidden
from rt2_jax.models.vit import Vit
from rt2_jax.parallel.rules import constrain

PAD_ID = 0  # padding of prompts and targets, and the decoder's first input


@flax.struct.dataclass
class Encoded:
    """The encoder's output: hidden [B, S, width] in the compute dtype; mask bool[B, S], False on padding."""

    hidden: jax.Array
    mask: jax.Array


class Embedding(nn.Module):
    """The token table [vocab, width], and the logits head where they are tied."""

    vocab_size: int
    width: int
    dtype: jnp.dtype

    def setup(self):
        init = axes(nn.initializers.normal(1.0), "vocab", "embed")
        self.embedding = self.param("embedding", init, (self.vocab_size, self.width), jnp.float32)

    def __call__(self, ids):
        return hidden(jnp.take(self.embedding, ids, axis=0, mode="clip").astype(self.dtype))

    def logits(self, x):
        table = self.embedding.astype(self.dtype)
        return jnp.einsum("bsw,vw->bsv", x * self.width**-0.5, table, preferred_element_type=jnp.float32)


class Logits(nn.Module):
    """x[B, S, width] -> float32[B, S, vocab] by a head of its own."""

    vocab_size: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", axes(FAN_IN, "embed", "vocab"), (x.shape[-1], self.vocab_size), jnp.float32)
        return jnp.einsum("bsw,wv->bsv", x, kernel.astype(self.dtype), preferred_element_type=jnp.float32)


class Pali(nn.Module):
    """ViT + encoder-decoder. `rt2_jax.models.backbone` wraps it in pure functions."""

    config: ModelConfig

    def setup(self):
        config = self.config
        dtype = jnp.dtype(config.compute_dtype)
        common = {"dtype": dtype, "remat": config.remat, "unroll": config.scan_unroll}
        self.vision = Vit(config.vision, **common)
        self.image_projection = Linear(config.text.width, dtype, ("patch", "embed"), FAN_IN)
        self.token_embedding = Embedding(config.vocab_size, config.text.width, dtype)
        self.encoder = Encoder(config.text, **common)
        self.decoder = Decoder(config.text, **common)
        if not config.text.tied_embeddings:
            self.logits = Logits(config.vocab_size, dtype)

    def __call__(self, images, prompt, target):
        """Teacher-forced logits float32[B, L, V]: row i sees target[:, :i]."""
        encoded = self.encode(images, prompt)
        inputs = jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=PAD_ID)
        return self._head(self.decoder(self.token_embedding(inputs), encoded.hidden, encoded.mask))

    def encode(self, images, prompt) -> Encoded:
        """uint8[B, N, H, W, 3] and int32[B, T] -> Encoded with S = N * tokens_per_image + T."""
        batch, count = images.shape[:2]
        frames = images.reshape(batch * count, *images.shape[2:])
        frames = constrain(frames, "activation_batch", None, None, None)
        tokens = self.vision(frames.astype(jnp.float32) / 127.5 - 1.0)
        tokens = self.image_projection(tokens).reshape(batch, -1, self.config.text.width)
        x = jnp.concatenate([tokens, self.token_embedding(prompt)], axis=1)
        mask = jnp.concatenate([jnp.ones(tokens.shape[:2], bool), prompt != PAD_ID], axis=1)
        return Encoded(self.encoder(x, mask), mask)

    def start_cache(self, encoded: Encoded, max_len: int) -> Cache:
        """An empty cache for ``max_len`` tokens over this encoder output."""
        return self.decoder.start_cache(encoded.hidden, max_len)

    def decode_step(self, encoded: Encoded, cache: Cache, token, index):
        """Input token int32[B] at position index -> (float32[B, V] logits of the next token, cache)."""
        x, cache = self.decoder.step(self.token_embedding(token[:, None]), encoded.mask, cache, index)
        return self._head(x)[:, 0], cache

    def _head(self, x):
        logits = self.token_embedding.logits(x) if self.config.text.tied_embeddings else self.logits(x)
        return constrain(logits, "activation_batch", "activation_length", "activation_vocab")
