"""A TensorFlow SavedModel of a bundle; beside `rt2_jax.datasets` the only home of TensorFlow."""
