"""From RLDS and image-text datasets to prepared records; the only home of TensorFlow and seqio."""

import os

# TensorFlow greets with a page of notes on the processor; warnings and errors stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
