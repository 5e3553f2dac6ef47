"""From RLDS and image-text datasets to batches; the only home of TensorFlow."""
