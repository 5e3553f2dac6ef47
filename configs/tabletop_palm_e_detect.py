"""Stage 1 of the small PaLM-E: its prefix LM learns to read what the ViT of the shipped VLM sees.

rt2 convert --size tiny_palm_e --model data/checkpoints/tabletop_vlm \\
    --vocabulary rt2_jax/resources/vocabularies/tabletop.model \\
    --ignore '(encoder|decoder|logits)/.*' --new 'decoder/.*' --out runs/palm_e_start
rt2 train --config configs/tabletop_palm_e_detect.py --workdir runs/palm_e_detect
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = "tiny_palm_e"
    config.data_dir = "runs/data"
    config.mixture = "tabletop_detect_only"
    config.batch_size = 32
    config.steps = 1500
    config.prompt_len = 8
    config.target_len = 52
    config.init_from = "runs/palm_e_start"
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
