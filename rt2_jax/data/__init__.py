"""From RLDS and image-text datasets to batches; the only home of TensorFlow.

`records`, `schedule`, `reader`, `mixtures`, `inspect` and `demonstrations` never import TensorFlow: training and the
simulator's processes use them. `datasets`, `rlds`, `tfds_folder`, `tasks`, `seqio_vocabulary` and `prepare` do.
"""

import os

# TensorFlow greets with a page of notes on the processor; warnings and errors stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
