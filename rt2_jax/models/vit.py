"""The vision transformer: frames to patch tokens, unpooled."""

import flax.linen as nn
import jax.numpy as jnp

from rt2_jax.models.config import VitConfig
from rt2_jax.models.layers import Attention, Dropout, LayerNorm, Linear, axes, hidden, scaled
from rt2_jax.models.stack import stacked
from rt2_jax.parallel.rules import constrain

XAVIER = nn.initializers.xavier_uniform()
XAVIER_HEADS_IN = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=-3, out_axis=(-2, -1))
XAVIER_HEADS_OUT = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=(-3, -2), out_axis=-1)
LECUN = nn.initializers.lecun_normal()


def patches(x, size: int):
    """[B, H, W, C] -> [B, H / size, W / size, size * size * C], a patch's numbers in the order row, column, channel.

    A linear map of these is the convolution with stride and window ``size`` whose kernel is [size, size, C, features].
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // size, size, width // size, size * channels)
    return x.swapaxes(2, 3).reshape(batch, height // size, width // size, size * size * channels)


class VitMlp(nn.Module):
    """x -> gelu(x W1 + b1) W2 + b2."""

    config: VitConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        x = Linear(self.config.mlp, self.dtype, ("embed", "mlp"), XAVIER, name="up")(x)
        x = nn.gelu(constrain(x, "activation_batch", "activation_length", "activation_mlp"))
        down_init = scaled(XAVIER, self.config.branch_init)
        return hidden(Linear(self.config.width, self.dtype, ("mlp", "embed"), down_init, name="down")(x))


class VitBlock(nn.Module):
    """x + attention(norm(x)), then + mlp(norm(x)); or both at once from one norm (``parallel_blocks``, ViT-22B)."""

    config: VitConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        config = self.config
        drop = Dropout(config.dropout_rate, name="dropout")
        attention = Attention(
            config.heads, config.head_dim, config.width, self.dtype,
            kernel_init=XAVIER_HEADS_IN, query_init=XAVIER_HEADS_IN,
            out_init=scaled(XAVIER_HEADS_OUT, config.branch_init),
            query_scale=config.head_dim**-0.5, use_qkv_bias=config.qkv_bias, use_out_bias=True, qk_norm=config.qk_norm,
            name="attention",
        )  # fmt: skip
        mlp = VitMlp(config, self.dtype, name="mlp")
        y = LayerNorm(self.dtype, config.norm_bias, name="norm_attention")(x)
        if config.parallel_blocks:
            return x + drop(attention(y, y) + mlp(y)), None
        x = x + drop(attention(y, y))
        return x + drop(mlp(LayerNorm(self.dtype, config.norm_bias, name="norm_mlp")(x))), None


class Vit(nn.Module):
    """images[B, H, W, 3] in [-1, 1] -> tokens[B, (H / patch) * (W / patch), width], row by row."""

    config: VitConfig
    dtype: jnp.dtype
    remat: str
    unroll: bool

    @nn.compact
    def __call__(self, images):
        config = self.config
        x = images.astype(self.dtype)
        stages = config.stem_patches or (config.patch_size,)
        for i, size in enumerate(stages[:-1]):
            stage = Linear(config.stem_width, self.dtype, ("patch", "stem"), LECUN, name=f"stem_{i}")
            x = nn.gelu(stage(patches(x, size)))
        x = Linear(config.width, self.dtype, ("patch", "embed"), LECUN, name="patch_embedding")(patches(x, stages[-1]))
        x = x.reshape(x.shape[0], -1, config.width)
        position_init = axes(nn.initializers.normal(config.position_std or config.width**-0.5), "position", "embed")
        x = x + self.param("position_embedding", position_init, x.shape[1:], jnp.float32).astype(self.dtype)
        x = Dropout(config.dropout_rate, name="dropout")(hidden(x))
        blocks = stacked(VitBlock, config.layers, {"__call__": ()}, remat=self.remat, unroll=self.unroll)
        x, _ = blocks(config, self.dtype, name="blocks")(x)
        return LayerNorm(self.dtype, config.norm_bias, name="norm")(x)
