"""From RLDS and image-text datasets to batches; the only home of TensorFlow.

`records`, `schedule`, `reader`, `mixtures`, `inspect` and `demonstrations` never import TensorFlow: training and the
simulator's processes use them. `datasets`, `rlds`, `tfds_folder`, `tasks`, `seqio_vocabulary` and `prepare` do.
"""
