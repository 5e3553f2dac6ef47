"""Stage 2 of the small VLM: questions, places and captions on top of what stage 1 sees.

rt2 train --config configs/tabletop_pretrain_web.py --workdir runs/web
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = "tiny"
    config.data_dir = "runs/data"
    config.mixture = {
        "tabletop_web_detect": 0.30,
        "tabletop_web_locate": 0.30,
        "tabletop_web_vqa": 0.25,
        "tabletop_web_caption": 0.10,
        "tabletop_web_alt_text": 0.05,
    }
    config.batch_size = 32
    config.steps = 3000
    config.prompt_len = 48
    config.target_len = 56
    config.init_from = "runs/detect"
    config.optimizer = {
        "name": "muon",
        "learning_rate": 1.5e-3,
        "schedule": "cosine",
        "warmup_steps": 100,
        "beta2": 0.98,
        "weight_decay": 1e-2,
        "clip_norm": 1.0,
    }
    config.eval_every = 500
    config.checkpoint_every = 500
    return config
