"""A model of a few thousand parameters and a prepared dataset of a few dozen examples, for tests that train."""

import pathlib

import numpy as np

from rt2_jax.actions.embodiment import load_card
from rt2_jax.data.writer import write_frames
from rt2_jax.data.writer import write_split as write_examples
from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.tokens.vocabulary import Vocabulary

IMAGE_SIZE = 32
TASKS = ("reach", "name")
MODEL = {
    "size": "tiny",
    "image_size": IMAGE_SIZE,
    "scan_unroll": False,
    "vision": {"width": 16, "layers": 1, "heads": 2, "head_dim": 8, "mlp": 32, "patch_size": 16, "stem_widths": (4, 8)},
    "text": {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "head_dim": 8, "mlp": 32},
}
FIELDS = {
    "mixture": {"reach": 3.0, "name": 1.0},
    "model": MODEL,
    "steps": 12,
    "batch_size": 8,
    "prompt_len": 8,
    "target_len": 12,
    "log_every": 1,
    "eval_every": 0,
    "eval_batches": 1,
    "checkpoint_every": 3,
    "optimizer": {"name": "adamw", "beta1": 0.9, "learning_rate": 3e-3, "warmup_steps": 2, "clip_norm": 1.0},
}


def write_split(data_dir, task, split, count, seed, card="tabletop", embodiment=None):
    """Prepares `count` examples: a frame of one grey, and three times its level, or "3 4", as the answer.

    The integers of "reach" are actions of `card`, "name" is a task of words. Of an `embodiment` the answer is an action
    of it, each integer as far up its range as the grey is.
    """
    vocabulary = Vocabulary.load()
    examples, rng = [], np.random.default_rng(seed)
    for _ in range(count):
        level = int(rng.integers(0, 256))
        frame = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), level, np.uint8)
        prompt = np.asarray(vocabulary.encode("7 8 9"), np.int32)
        text = f"{level} {level} {level}" if task == "reach" else "3 4"
        if embodiment:
            allowed = (np.flatnonzero(row) for row in embodiment.allowed)
            text = " ".join(str(integers[level * len(integers) // 256]) for integers in allowed)
        target = np.asarray([*vocabulary.encode(text), vocabulary.eos_id], np.int32)
        examples.append(([encode_jpeg(frame)], prompt, target, ""))
    frames = ({"image": images} for images, *_ in examples)
    data_dir = pathlib.Path(data_dir)
    cameras = write_frames(data_dir, task, split, ["image"], frames, task=task)
    embodiment = embodiment or (load_card(card) if task == "reach" else None)
    return write_examples(data_dir, task, split, examples, cameras, vocabulary=vocabulary.sha256, embodiment=embodiment)
