"""From encoded images to a model's frames inside a TensorFlow graph, as `inputs.images` makes them."""

from typing import Any

import tensorflow as tf

_PRECISION = 22  # bits behind the point of a coefficient, as Pillow's


def decoded(encoded: Any) -> Any:
    """uint8[H, W, 3] of a scalar string: JPEG or PNG.

    JPEG by the accurate integer transform and with smooth chroma, which is what Pillow asks libjpeg for; a PNG's alpha
    is dropped, and palettes and grey become RGB.
    """
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True),
        lambda: tf.io.decode_png(encoded, channels=3),
    )


def resized(image: Any, size: int) -> Any:
    """uint8[size, size, 3] of uint8[H, W, 3]: bilinear with antialiasing, to the bit what Pillow 13 makes of it.

    `tf.image.resize` computes in float32 and rounds once; Pillow resamples along rows, rounds, then along columns, with
    coefficients of 22 bits. Whole numbers in float64 are exact.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    # Pillow 13's order; releases before took rows first always.
    columns_first = (height > size) & (height - size > 2 * (width - size))
    image = tf.cond(
        columns_first,
        lambda: _along_rows(_resample(image, size), size),
        lambda: _resample(_along_rows(image, size), size),
    )
    return tf.cast(tf.ensure_shape(image, (size, size, 3)), tf.uint8)


def _along_rows(image: Any, size: int) -> Any:
    return tf.transpose(_resample(tf.transpose(image, (1, 0, 2)), size), (1, 0, 2))


def _resample(image: Any, size: int) -> Any:
    """float64[size, W, 3], whole numbers of 0..255, of [H, W, 3]."""
    shape = tf.shape(image)
    rows = tf.reshape(tf.cast(image, tf.float64), (shape[0], -1))
    summed = tf.matmul(_coefficients(shape[0], size), rows)
    rounded = tf.floor((summed + 2.0 ** (_PRECISION - 1)) / 2.0**_PRECISION)
    return tf.reshape(tf.clip_by_value(rounded, 0.0, 255.0), (size, shape[1], 3))


def _coefficients(source: Any, size: int) -> Any:
    """float64[size, source]: how much of each input pixel an output pixel holds, in units of 2 ** -22."""
    pixels = tf.cast(source, tf.float64)
    scale = pixels / size
    support = tf.maximum(scale, 1.0)
    centre = (tf.range(size, dtype=tf.float64)[:, None] + 0.5) * scale
    first = tf.maximum(tf.floor(centre - support + 0.5), 0.0)
    last = tf.minimum(tf.floor(centre + support + 0.5), pixels)
    place = tf.range(pixels, dtype=tf.float64)[None]
    weights = tf.maximum(1.0 - tf.abs((place - centre + 0.5) * (1.0 / support)), 0.0)
    weights = tf.where((place >= first) & (place < last), weights, 0.0)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    return tf.floor(weights * 2.0**_PRECISION + 0.5)
