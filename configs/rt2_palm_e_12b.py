"""RT-2-PaLM-E-12B: learning rate 4e-4, batch 512, 1M steps, two thirds robot data. For a TPU pod.

rt2 train --config configs/rt2_palm_e_12b.py --workdir RUN \\
    --config.data_dir=DATA --config.init_from=VLM --config.vocabulary=VOCABULARY
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = "palm_e_12b"
    config.data_dir = "DATA"
    config.mixture = "tabletop_cofinetune_66"
    config.batch_size = 512
    config.steps = 1000000
    config.prompt_len = 128
    config.target_len = 64
    config.optimizer = {"name": "adafactor", "learning_rate": 4e-4, "schedule": "rsqrt", "warmup_steps": 1000}
    config.dropout = 0.1
    config.mesh = {"data": 1, "fsdp": -1, "tensor": 4}
    config.checkpoint_every = 1000
    return config
