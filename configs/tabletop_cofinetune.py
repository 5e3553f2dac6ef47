"""Co-fine-tuning at 50% robot from the shipped VLM: what the two ablations are compared with (RT-2, section 4.3).

rt2 train --config configs/tabletop_cofinetune.py --workdir runs/cofinetune
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = "tiny"
    config.data_dir = "runs/data"
    config.mixture = "tabletop_cofinetune_50"
    config.batch_size = 32
    config.steps = 7000
    config.prompt_len = 48
    config.target_len = 40
    config.init_from = "data/checkpoints/tabletop_vlm"
    config.optimizer = {
        "name": "muon",
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "warmup_steps": 100,
        "beta2": 0.98,
        "weight_decay": 1e-2,
        "clip_norm": 1.0,
    }
    config.eval_every = 500
    config.checkpoint_every = 500
    return config
