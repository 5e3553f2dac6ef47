"""Episode films for a page: all frames of an episode in one picture, one below the other.

A browser plays such a strip with a CSS animation alone, and a few lines of script can stop it at any frame and show
what was decoded there, which an animated GIF or WebP cannot do.
"""

import base64
import collections
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from rt2_jax.evaluate.results import Film

# WebP pictures end at 16383 pixels; a longer episode keeps every n-th frame and its last one.
MAX_FRAMES = 64


def kept_frames(count: int, most: int = MAX_FRAMES) -> np.ndarray:
    """int32[min(count, most)]: evenly spread frame numbers of 0..count-1, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round()).astype(np.int32)


def encode_strip(frames: np.ndarray, quality: int = 80) -> bytes:
    """uint8[T, h, w, 3] -> one WebP picture, h * T pixels high; `decode_strip` is its inverse but for compression."""
    count, height, width, channels = frames.shape
    buffer = io.BytesIO()
    Image.fromarray(frames.reshape(count * height, width, channels)).save(buffer, "webp", quality=quality, method=4)
    return buffer.getvalue()


def decode_strip(data: bytes, count: int) -> np.ndarray:
    """The frames of `encode_strip`'s picture: uint8[T, h, w, 3]."""
    strip = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    return strip.reshape(count, strip.shape[0] // count, *strip.shape[1:])


def data_url(data: bytes, kind: str = "image/webp") -> str:
    """Bytes as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def choose_films(films: Sequence[Film], count: int) -> list[Film]:
    """At most `count` films, as varied as they come, in the order given.

    A fifth of them are the controls', if there are any: they are the footnotes.
    """
    own = [index for index, film in enumerate(films) if film.control is None]
    controls = [index for index, film in enumerate(films) if film.control is not None]
    footnotes = min(len(controls), max(count // 5, count - len(own)))
    chosen = _varied(films, own, count - footnotes) + _varied(films, controls, footnotes)
    return [films[index] for index in sorted(chosen)]


def _varied(films: Sequence[Film], indices: Sequence[int], count: int) -> list[int]:
    """One by one, the film whose split, skill, control and outcome were taken least so far; the first of equals."""
    used: collections.Counter[object] = collections.Counter()
    left, chosen = list(indices), []
    while left and len(chosen) < count:

        def taken(index: int) -> int:
            return sum(used[feature] for feature in _features(films[index]))

        best = min(left, key=taken)
        used.update(_features(films[best]))
        left.remove(best)
        chosen.append(best)
    return chosen


def _features(film: Film) -> tuple[object, ...]:
    success = film.outcome.success
    return film.split, film.skill, ("control", film.control), success, (film.split, success), (film.skill, success)
