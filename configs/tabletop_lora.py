"""The demo by LoRA: adapters of rank 8 on every kernel in the blocks of the shipped VLM, whose own weights stand still.

make demo  # for its data
rt2 train --config configs/tabletop_lora.py --workdir runs/lora
rt2 export --checkpoint runs/lora --out runs/lora_merged --merge-lora
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = "tiny"
    config.data_dir = "runs/demo/data"
    config.mixture = "tabletop_cofinetune_50"
    config.batch_size = 32
    config.steps = 3000
    config.prompt_len = 48
    config.target_len = 40
    config.init_from = "data/checkpoints/tabletop_vlm"
    config.lora = {"pattern": ".*/blocks/.*", "rank": 8, "alpha": 16.0}
    config.optimizer = {
        "name": "adamw",
        "learning_rate": 5e-3,
        "schedule": "cosine",
        "warmup_steps": 100,
        "beta2": 0.98,
        "clip_norm": 1.0,
    }
    config.eval_every = 300
    config.checkpoint_every = 300
    return config
