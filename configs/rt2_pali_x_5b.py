"""RT-2-PaLI-X-5B: learning rate 1e-3, batch 2048, 270k steps, half robot data. For a TPU pod.

rt2 train --config configs/rt2_pali_x_5b.py --workdir RUN \\
    --config.data_dir=DATA --config.init_from=VLM --config.vocabulary=VOCABULARY
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = "pali_x_5b"
    config.data_dir = "DATA"
    config.mixture = "tabletop_cofinetune_50"
    config.batch_size = 2048
    config.steps = 270000
    config.prompt_len = 128
    config.target_len = 64
    # 64: its heads are so wide, and their kernels' statistics are to be factored too (docs/models.md).
    config.optimizer = {
        "name": "adafactor",
        "learning_rate": 1e-3,
        "schedule": "rsqrt",
        "warmup_steps": 1000,
        "min_dim_size_to_factor": 64,
    }
    config.dropout = 0.1
    config.mesh = {"data": 1, "fsdp": -1, "tensor": 4}
    config.checkpoint_every = 1000
    return config
