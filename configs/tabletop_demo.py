"""The demo: co-fine-tunes the shipped VLM on two thirds robot, one third web data, for some minutes on two cores.

rt2 train --config configs/tabletop_demo.py --workdir runs/demo/run --config.data_dir=runs/demo/data
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = "tiny"
    config.data_dir = "runs/demo/data"
    config.mixture = "tabletop_cofinetune_66"
    config.batch_size = 32
    config.steps = 2400
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
    config.eval_every = 300
    config.checkpoint_every = 300
    return config
