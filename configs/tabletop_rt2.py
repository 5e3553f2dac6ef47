"""The shipped policy, data/checkpoints/tabletop_rt2: a run like the demo's, gone on with on more, rougher robot data.

make demo    # for its data
rt2 data prepare --data runs/demo/data --mixture tabletop_cofinetune_50
rt2 train --config configs/tabletop_demo.py --workdir runs/first --config.data_dir=runs/demo/data \
    --config.mixture=tabletop_cofinetune_50 --config.steps=3000
rt2 data build --data runs/data --robot-episodes 4000 --web-images 32000 --noise 0.3
rt2 data prepare --data runs/data --mixture tabletop_cofinetune_50
rt2 train --config configs/tabletop_rt2.py --workdir runs/rt2
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = "tiny"
    config.data_dir = "runs/data"
    config.mixture = "tabletop_cofinetune_50"
    config.batch_size = 32
    config.steps = 4000
    config.prompt_len = 48
    config.target_len = 40
    config.init_from = "runs/first"
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
