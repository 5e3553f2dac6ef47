"""Floating-point operations of a model, counted from its config; a multiply and an add are two.

Counted are the matrix products: dense kernels, both products of attention, the logits head. They are counted as the
programs compute them, so padding, masked keys and the free places of a decoding cache are in. Left out are softmax,
norms, activations, position terms and the optimizer's update, which take memory bandwidth rather than arithmetic;
embeddings, which are gathers; and T5's relative bias, whose small product a batch shares.
"""

import dataclasses

from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig, PrefixLmConfig, VitConfig

ACTION_TOKENS = 8  # terminate, six of motion, the gripper: RT-2 (arXiv 2307.15818), section 3.2


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations by the group of parameters that does them, as the parameter tree names its groups.

    A prefix LM does all of its layers in ``decoder``; ``logits`` is the head, whether it has a kernel or is tied.
    """

    vision: int = 0
    image_projection: int = 0
    encoder: int = 0
    decoder: int = 0
    logits: int = 0

    @property
    def total(self) -> int:
        """The sum of the groups."""
        return sum(dataclasses.astuple(self))

    def __add__(self, other: "Flops") -> "Flops":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Flops(*(one + another for one, another in pairs))

    def __mul__(self, times: int) -> "Flops":
        return Flops(*(times * value for value in dataclasses.astuple(self)))


def prefix_len(config: ModelConfig, prompt_len: int) -> int:
    """Tokens that the language model reads before it answers: every image's, the prompt's, and those put around it."""
    text = config.text
    framing = isinstance(text, PrefixLmConfig) and (text.bos_id is not None) + (text.separator_id is not None)
    return config.num_images * config.tokens_per_image + prompt_len + framing


def forward_flops(config: ModelConfig, prompt_len: int, target_len: int) -> Flops:
    """One example's teacher-forced logits (`Backbone.logits`)."""
    text, prefix = config.text, prefix_len(config, prompt_len)
    head = Flops(logits=_head(config, target_len))
    if isinstance(text, PrefixLmConfig):
        length = prefix + target_len - 1  # the last target token is only predicted
        return _images(config) + Flops(decoder=_prefix_lm(text, length, length).flops) + head
    return _read(config, text, prompt_len) + Flops(decoder=_decoder(text, target_len, target_len, prefix).flops) + head


def train_flops(config: ModelConfig, prompt_len: int, target_len: int) -> Flops:
    """One example's forward and backward pass: model FLOPs, as model FLOPs utilisation (MFU) is reckoned in.

    The backward pass is taken as twice the forward: each product has two gradients, and both are products of its size.
    What rematerialisation computes again is not in it: see `recomputed_flops`.
    """
    return forward_flops(config, prompt_len, target_len) * 3


def recomputed_flops(config: ModelConfig, prompt_len: int, target_len: int) -> int:
    """What one example's backward pass computes again under ``config.remat``; with `train_flops`, hardware FLOPs.

    "full" does every layer's forward again, but for the products that only the residual sum reads; "dots" keeps what
    the dense kernels gave and does attention's products again.
    """
    if config.remat == "none":
        return 0
    text, prefix = config.text, prefix_len(config, prompt_len)
    if isinstance(text, PrefixLmConfig):
        length = prefix + target_len - 1
        stacks, cross = [_prefix_lm(text, length, length)], 0
    else:
        stacks = [_encoder(text, prefix), _decoder(text, target_len, target_len, prefix)]
        cross = _cross_keys_values(text, prefix)
    stacks += [_vit(config.vision, config.tokens_per_image)] * config.num_images if config.vision else []
    if config.remat == "dots":
        return sum(stack.attention for stack in stacks)
    return sum(stack.flops - stack.last for stack in stacks) + cross


def prefill_flops(config: ModelConfig, prompt_len: int, max_len: int) -> Flops:
    """Reading one example's images and prompt, the first token's logits included (`Backbone.prefill`)."""
    text, prefix = config.text, prefix_len(config, prompt_len)
    if isinstance(text, PrefixLmConfig):
        layers = Flops(decoder=_prefix_lm(text, prefix, prefix).flops)
        return _images(config) + layers + Flops(logits=_head(config, 1))
    # The decoder's step on the pad gives the first token's logits.
    return _read(config, text, prompt_len) + decode_step_flops(config, prompt_len, max_len)


def decode_step_flops(config: ModelConfig, prompt_len: int, max_len: int) -> Flops:
    """One more token (`Backbone.decode_step`), whose attention goes over all places of the cache, the free ones too."""
    text, prefix = config.text, prefix_len(config, prompt_len)
    if isinstance(text, PrefixLmConfig):
        layers = _prefix_lm(text, 1, prefix + max_len)
    else:
        layers = _decoder(text, 1, max_len, prefix)
    return Flops(decoder=layers.flops, logits=_head(config, 1))


def action_flops(config: ModelConfig, prompt_len: int) -> Flops:
    """One action from frame and instruction, as the sampler decodes it.

    The prefill gives the first of its tokens, so 8 take 7 steps; the EOS that must follow is not asked of the model,
    but has its place in the cache.
    """
    max_len = ACTION_TOKENS + 1
    steps = decode_step_flops(config, prompt_len, max_len) * (ACTION_TOKENS - 1)
    return prefill_flops(config, prompt_len, max_len) + steps


@dataclasses.dataclass(frozen=True)
class _Stack:
    """Equal layers over ``tokens`` of one example, each of which attends to ``keys`` in all attentions of a layer.

    ``heads``: all heads' widths together. ``kernels``: the other sides of all kernels with one side of ``width``, and
    ``last_kernels`` of those among them whose product nothing but the residual sum reads.
    """

    layers: int
    tokens: int
    keys: int
    width: int
    heads: int
    kernels: int
    last_kernels: int

    @property
    def flops(self) -> int:
        return self.layers * _product(self.tokens, self.width, self.kernels) + self.attention

    @property
    def attention(self) -> int:
        """Scores, and the weighted sum of values."""
        return self.layers * 2 * _product(self.tokens, self.heads, self.keys)

    @property
    def last(self) -> int:
        return self.layers * _product(self.tokens, self.width, self.last_kernels)


def _product(rows: int, inner: int, columns: int) -> int:
    return 2 * rows * inner * columns


def _head(config: ModelConfig, tokens: int) -> int:
    return _product(tokens, config.text.width, config.vocab_size)


def _read(config: ModelConfig, text: EncoderDecoderConfig, prompt_len: int) -> Flops:
    """Images and prompt through an encoder-decoder's encoder, and the keys and values its decoder makes of them."""
    prefix = prefix_len(config, prompt_len)
    return _images(config) + Flops(encoder=_encoder(text, prefix).flops, decoder=_cross_keys_values(text, prefix))


def _images(config: ModelConfig) -> Flops:
    """One example's images, to tokens of the language model."""
    if config.vision is None:
        return Flops()
    tokens, vision = config.tokens_per_image, config.vision
    projection = _product(tokens, vision.width, config.text.width)
    of_one = Flops(vision=_patches(config, vision) + _vit(vision, tokens).flops, image_projection=projection)
    return of_one * config.num_images


def _patches(config: ModelConfig, vision: VitConfig) -> int:
    """One image's pixels to the first layer's tokens: the convolutions of the stem, the patch embedding."""
    side, channels, flops = config.image_size, 3, 0
    for features in vision.stem_widths:
        side //= 2
        flops += _product(side * side, 9 * channels, features)
        channels = features
    patch = vision.patch_size // 2 ** len(vision.stem_widths)
    return flops + _product(config.tokens_per_image, patch * patch * channels, vision.width)


def _vit(vision: VitConfig, tokens: int) -> _Stack:
    heads = vision.heads * vision.head_dim
    return _Stack(
        vision.layers, tokens, tokens, vision.width, heads,
        kernels=4 * heads + 2 * vision.mlp,
        last_kernels=vision.mlp + (heads if vision.parallel_blocks else 0),
    )  # fmt: skip


def _encoder(text: EncoderDecoderConfig, tokens: int) -> _Stack:
    heads = text.heads * text.head_dim
    kernels = 4 * heads + 3 * text.mlp
    return _Stack(text.encoder_layers, tokens, tokens, text.width, heads, kernels, last_kernels=text.mlp)


def _decoder(text: EncoderDecoderConfig, tokens: int, keys: int, encoded: int) -> _Stack:
    """Without the keys and values of the ``encoded`` tokens: see `_cross_keys_values`."""
    heads = text.heads * text.head_dim
    kernels = 6 * heads + 3 * text.mlp
    return _Stack(text.decoder_layers, tokens, keys + encoded, text.width, heads, kernels, last_kernels=text.mlp)


def _cross_keys_values(text: EncoderDecoderConfig, encoded: int) -> int:
    return text.decoder_layers * _product(encoded, text.width, 2 * text.heads * text.head_dim)


def _prefix_lm(text: PrefixLmConfig, tokens: int, keys: int) -> _Stack:
    heads, kv_heads = text.heads * text.head_dim, text.kv_heads * text.head_dim
    last = text.mlp + (heads if text.parallel_block else 0)
    return _Stack(
        text.layers, tokens, keys, text.width, heads,
        kernels=2 * heads + 2 * kv_heads + 3 * text.mlp,
        last_kernels=0 if text.post_norms else last,
    )  # fmt: skip
