"""What a model is fed: images, prompts and the Batch. numpy and Pillow only."""

from rt2_jax.inputs.batch import Batch, prompt_tokens, target_tokens
from rt2_jax.inputs.images import check_image, decode_image, encode_jpeg, image_info, resize_image

__all__ = [
    "Batch",
    "check_image",
    "decode_image",
    "encode_jpeg",
    "image_info",
    "prompt_tokens",
    "resize_image",
    "target_tokens",
]
