"""The small PaLM-E, co-fine-tuned as RT-2-PaLM-E was: about 66% robot data, the rest web data.

rt2 train --config configs/tabletop_palm_e.py --workdir runs/palm_e
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = "tiny_palm_e"
    config.data_dir = "runs/data"
    config.mixture = "tabletop_cofinetune_66"
    config.batch_size = 32
    config.steps = 4000
    config.prompt_len = 48
    config.target_len = 40
    config.init_from = "runs/palm_e_web"
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
