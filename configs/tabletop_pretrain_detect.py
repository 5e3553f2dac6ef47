"""Stage 1 of the small VLM: seeing comes first. Detection strings alone, from random weights.

rt2 train --config configs/tabletop_pretrain_detect.py --workdir runs/detect
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = "tiny"
    config.data_dir = "runs/data"
    config.mixture = "tabletop_detect_only"
    config.batch_size = 32
    config.steps = 3200
    config.prompt_len = 8
    config.target_len = 52
    config.ordered_integers = True
    config.optimizer = {
        "name": "muon",
        "learning_rate": 2e-3,
        "schedule": "cosine",
        "warmup_steps": 100,
        "beta2": 0.98,
        "weight_decay": 1e-2,
        "clip_norm": 1.0,
    }
    config.eval_every = 500
    config.checkpoint_every = 500
    return config
