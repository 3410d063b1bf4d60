"""Random small configs of UNet2DModel and of schedulers, for the library to judge ours by."""

import random
from typing import Any

BASE: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [16, 32],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 8,
}


def random_unet(seed: int) -> dict[str, Any]:
    """A config that our networks can express."""
    draw = random.Random(seed)
    num = draw.choice([1, 2, 3])
    unit = draw.choice([16, 32])
    attention = [draw.random() < 0.5 for _ in range(num)]
    is_resnet = draw.random() < 0.3
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    plain = plain if is_resnet and draw.random() < 0.5 else ("DownBlock2D", "UpBlock2D")
    kind = "resnet" if is_resnet else "conv"
    return {
        "sample_size": draw.choice([8, [8, 16]]),
        "in_channels": (channels := draw.choice([1, 3])),
        "out_channels": channels,
        "block_out_channels": [unit * draw.choice([1, 2, 3]) for _ in range(num)],
        "down_block_types": ["AttnDownBlock2D" if has else plain[0] for has in attention],
        "up_block_types": ["AttnUpBlock2D" if has else plain[1] for has in attention[::-1]],
        "layers_per_block": draw.choice([1, 2]),
        "norm_num_groups": draw.choice([4, 8, 16]),
        "norm_eps": draw.choice([1e-5, 1e-6, 1e-3]),
        "attention_head_dim": draw.choice([None, 4, 8, 16]),
        "add_attention": draw.random() < 0.8,
        "resnet_time_scale_shift": draw.choice(["default", "scale_shift"]),
        "downsample_padding": draw.choice([0, 1]),
        "downsample_type": kind,
        "upsample_type": kind,
        "flip_sin_to_cos": draw.random() < 0.5,
        "freq_shift": draw.choice([0, 1]),
        "num_class_embeds": draw.choice([None, None, 5]),
        "time_embedding_dim": draw.choice([None, 48]),
        "dropout": 0.1,
    }


def random_scheduler(seed: int) -> dict[str, Any]:
    """A config of either scheduler."""
    draw = random.Random(seed)
    schedule = draw.choice(["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
    config: dict[str, Any] = {
        "num_train_timesteps": draw.choice([50, 100]),
        "beta_start": 1e-3,
        "beta_end": 0.15,
        "beta_schedule": schedule,
        "prediction_type": draw.choice(["epsilon", "sample", "v_prediction"]),
        "clip_sample": draw.random() < 0.7,
        "timestep_spacing": draw.choice(["leading", "linspace", "trailing"]),
        "variance_type": draw.choice(["fixed_small", "fixed_small_log", "fixed_large"]),
    }
    if draw.random() < 0.25:
        config["trained_betas"] = [0.001 + 0.1 * i / 60 for i in range(60)]
        config["num_train_timesteps"] = 60
    elif config["prediction_type"] != "epsilon":
        config["rescale_betas_zero_snr"] = draw.random() < 0.4
    return config
