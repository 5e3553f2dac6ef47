"""Stage 2 of the small PaLM-E: questions, captions and places, also as counted from under the robot's gripper.

rt2 train --config configs/tabletop_palm_e_web.py --workdir runs/palm_e_web
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = "tiny_palm_e"
    config.data_dir = "runs/data"
    config.mixture = "tabletop_web_only"
    config.batch_size = 32
    config.steps = 3000
    config.prompt_len = 48
    config.target_len = 56
    config.init_from = "runs/palm_e_detect"
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
