"""Vision towers and language models at their published sizes, each with its source."""

from typing import Any

from rt2_jax.models.config import EncoderDecoderConfig, PrefixLmConfig, VitConfig

# --- vision towers ----------------------------------------------------------------------------------------------------

# 0.41B: arXiv 2305.13035, table 1, without the pooling head; SigLIP's and SigLIP 2's So400m/14.
VIT_SO400M = VitConfig(patch_size=14, width=1152, layers=27, heads=16, head_dim=72, mlp=4304)
# 1.84B: arXiv 2106.04560, table 2.
VIT_G = VitConfig(patch_size=14, width=1664, layers=48, heads=16, head_dim=104, mlp=8192)
# 3.80B: arXiv 2209.06794, table 1.
VIT_E = VitConfig(patch_size=14, width=1792, layers=56, heads=16, head_dim=112, mlp=15360)
# 21.7B: arXiv 2302.05442, section 2 and table 1.
VIT_22B = VitConfig(
    patch_size=14, width=6144, layers=48, heads=48, head_dim=128, mlp=24576,
    parallel_blocks=True, qk_norm=True, qkv_bias=False, norm_bias=False,
)  # fmt: skip

# --- encoder-decoders -------------------------------------------------------------------------------------------------

# 1.23B with 250k tokens: arXiv 2010.11934, section 3.2.
MT5_L = EncoderDecoderConfig(width=1024, encoder_layers=24, decoder_layers=24, heads=16, head_dim=64, mlp=2816)
# T5-XL's shape, which the 3B of PaLI's relatives have: 2.85B with 32k tokens, 3.74B with 250k.
UL2_3B = EncoderDecoderConfig(width=2048, encoder_layers=24, decoder_layers=24, heads=32, head_dim=64, mlp=5120)
# 3.7B with 256k tokens: arXiv 2304.09151, with a relative bias in every layer.
UMT5_XL = EncoderDecoderConfig(
    width=2048, encoder_layers=24, decoder_layers=24, heads=32, head_dim=64, mlp=5120, per_layer_bias=True
)
# 19.6B with 32k tokens: arXiv 2205.05131, section 5, and its public configuration.
UL2_20B = EncoderDecoderConfig(
    width=4096, encoder_layers=32, decoder_layers=32, heads=16, head_dim=256, mlp=16384,
    activation="silu", decoder_norm_scale=False,
)  # fmt: skip
# 32.2B with 250k tokens: arXiv 2305.18565, section 3.1 gives the 50 + 50 layers; the rest is UL2-20B's.
UL2_32B = EncoderDecoderConfig(
    width=4096, encoder_layers=50, decoder_layers=50, heads=16, head_dim=256, mlp=16384,
    activation="silu", decoder_norm_scale=False,
)  # fmt: skip

# --- prefix language models -------------------------------------------------------------------------------------------

# PaLM's choices, whatever the size: arXiv 2204.02311, section 2.
PALM: dict[str, Any] = {"activation": "silu", "parallel_block": True, "norm": "layer", "scaled_inputs": False}
# 8.6B with 256k tokens: its table 1.
PALM_8B = PrefixLmConfig(width=4096, layers=32, heads=16, kv_heads=1, head_dim=256, mlp=16384, **PALM)
# 2.5B with 256k tokens: arXiv 2403.08295, table 1. The ids are its vocabulary's: BOS, and the line's end that PaliGemma
# puts after a prompt (arXiv 2407.07726, section 3.1).
PALIGEMMA_PROMPT: dict[str, Any] = {"bos_id": 2, "separator_id": 108}
GEMMA_2B = PrefixLmConfig(width=2048, layers=18, heads=8, kv_heads=1, head_dim=256, mlp=16384, **PALIGEMMA_PROMPT)
# Gemma 2's choices, and its sizes 2.6B, 9.2B and 27.2B with 256k tokens: arXiv 2408.00118, section 2 and table 1.
GEMMA_2: dict[str, Any] = {
    "post_norms": True, "sliding_window": 4096, "attention_softcap": 50.0, "logits_softcap": 30.0,
}  # fmt: skip
GEMMA2_2B = PrefixLmConfig(
    width=2304, layers=26, heads=8, kv_heads=4, head_dim=256, mlp=9216, **GEMMA_2, **PALIGEMMA_PROMPT
)
GEMMA2_9B = PrefixLmConfig(
    width=3584, layers=42, heads=16, kv_heads=8, head_dim=256, mlp=14336, **GEMMA_2, **PALIGEMMA_PROMPT
)
GEMMA2_27B = PrefixLmConfig(
    width=4608, layers=46, heads=32, kv_heads=16, head_dim=128, mlp=36864, query_scale=144**-0.5,
    **GEMMA_2, **PALIGEMMA_PROMPT,
)  # fmt: skip

# --- the small ones of this project -----------------------------------------------------------------------------------

TINY_VIT = VitConfig(
    patch_size=12, width=128, layers=2, heads=4, head_dim=32, mlp=512, stem_widths=(16, 32),
    branch_init=0.0, position_std=0.25,
)  # fmt: skip
TINY_T5 = EncoderDecoderConfig(
    width=128, encoder_layers=2, decoder_layers=2, heads=4, head_dim=32, mlp=384, encoder_branch_init=0.1
)
TINY_PALM = PrefixLmConfig(width=128, layers=4, heads=4, kv_heads=1, head_dim=32, mlp=512, branch_init=0.1, **PALM)
SMALL_VIT = VitConfig(patch_size=12, width=384, layers=6, heads=6, head_dim=64, mlp=1536, stem_widths=(32, 64))
SMALL_T5 = EncoderDecoderConfig(width=384, encoder_layers=4, decoder_layers=4, heads=6, head_dim=64, mlp=1024)
