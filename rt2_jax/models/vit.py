"""The vision transformer: frames to patch tokens, unpooled."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rt2_jax.models.attention import Attention
from rt2_jax.models.config import VitConfig
from rt2_jax.models.layers import Dropout, LayerNorm, Linear, axes, hidden, scaled
from rt2_jax.models.nonlinear import activate
from rt2_jax.models.stack import stacked
from rt2_jax.parallel.rules import constrain

XAVIER = nn.initializers.xavier_uniform()
XAVIER_HEADS_IN = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=-3, out_axis=(-2, -1))
XAVIER_HEADS_OUT = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=(-3, -2), out_axis=-1)
HE = nn.initializers.he_normal()
LECUN = nn.initializers.lecun_normal()


def patches(
    x: Float[Array, "batch height width channels"], size: int
) -> Float[Array, "batch height//{size} width//{size} {size}**2*channels"]:
    """Patches of ``size`` pixels a side, a patch's numbers in the order row, column, channel.

    A linear map of these is the convolution with stride and window ``size`` whose kernel is [size, size, C, features].
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // size, size, width // size, size * channels)
    return x.swapaxes(2, 3).reshape(batch, height // size, width // size, size * size * channels)


def windows(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch height//2 width//2 9*channels"]:
    """The 3 x 3 windows of a convolution of stride 2, padded by one pixel.

    A linear map of these is that convolution with the kernel [3, 3, C, features].
    """
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([x[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)], axis=-1)


class VitMlp(nn.Module):
    """x -> gelu(x W1 + b1) W2 + b2."""

    config: VitConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        x = Linear(self.config.mlp, self.dtype, ("embed", "mlp"), XAVIER, name="up")(x)
        x = activate("gelu", constrain(x, "activation_batch", "activation_length", "activation_mlp"))
        down_init = scaled(XAVIER, self.config.branch_init)
        return hidden(Linear(self.config.width, self.dtype, ("mlp", "embed"), down_init, name="down")(x))


class VitBlock(nn.Module):
    """x + attention(norm(x)), then + mlp(norm(x)); or both at once from one norm (``parallel_blocks``, ViT-22B)."""

    config: VitConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> tuple[Float[Array, "batch tokens width"], None]:
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
    """Images in [-1, 1] to the tokens of their patches, row by row."""

    config: VitConfig
    dtype: jnp.dtype
    remat: str
    unroll: bool
    apart: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch height*width//{self.config.patch_size}**2 {self.config.width}"]:
        config = self.config
        x = images.astype(self.dtype)
        for i, features in enumerate(config.stem_widths):
            x = activate("gelu", Linear(features, self.dtype, ("patch", "stem"), HE, name=f"stem_{i}")(windows(x)))
        x = patches(x, config.patch_size // 2 ** len(config.stem_widths))
        x = Linear(config.width, self.dtype, ("patch", "embed"), LECUN, name="patch_embedding")(x)
        x = x.reshape(x.shape[0], -1, config.width)
        position_init = axes(nn.initializers.normal(config.position_std or config.width**-0.5), "position", "embed")
        x = x + self.param("position_embedding", position_init, x.shape[1:], jnp.float32).astype(self.dtype)
        x = Dropout(config.dropout_rate, name="dropout")(hidden(x))
        blocks = stacked(
            VitBlock, config.layers, {"__call__": ()}, remat=self.remat, unroll=self.unroll, apart=self.apart
        )
        x, _ = blocks(config, self.dtype, name="blocks")(x)
        return LayerNorm(self.dtype, config.norm_bias, name="norm")(x)
