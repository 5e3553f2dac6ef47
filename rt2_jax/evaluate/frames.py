"""Frames of an episode, as films keep them."""

import numpy as np
from PIL import Image

MAX_FRAME_SIZE = 128


def shrink_frame(frame: np.ndarray, size: int = MAX_FRAME_SIZE) -> np.ndarray:
    """uint8[H, W, 3] -> uint8[h, w, 3] whose longer side is at most `size` pixels; never enlarged."""
    height, width = frame.shape[:2]
    longest = max(height, width)
    if longest <= size:
        return frame.copy()
    shape = (max(1, round(width * size / longest)), max(1, round(height * size / longest)))
    return np.asarray(Image.fromarray(frame).resize(shape, Image.Resampling.LANCZOS))
