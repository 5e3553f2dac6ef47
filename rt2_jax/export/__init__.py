"""A bundle as an artifact that runs without this package: a `jax.export` program, a TensorFlow SavedModel; its card."""
