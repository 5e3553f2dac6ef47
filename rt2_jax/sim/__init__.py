"""The tabletop world: scenes, physics, skills, experts, splits. Never imports TensorFlow or JAX."""
