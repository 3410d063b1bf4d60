"""Sample grids during training: fixed seeds, so that pictures of one run can be compared."""

from pathlib import Path

import torch

from diffusion.denoiser import Denoiser
from samplers.generate import Sample, generate, to_uint8
from samplers.options import GenerationSettings
from torch_utils.images import save_grid

NUM_COLUMNS = 8
MAX_ROWS = 10


def save_preview(
    path: Path,
    denoiser: Denoiser,
    settings: GenerationSettings,
    label_names: list[str] | None = None,
) -> None:
    """Write a grid of samples: one row a class, or eight rows without classes.

    Args:
        path: the PNG.
        denoiser: the model in evaluation mode; 1 or 3 channels.
        settings: sampler, guidance and the rest, as the snapshots' default.
        label_names: names of the rows' classes.
    """
    samples = [Sample(seed) for seed in range(NUM_COLUMNS * 8)]
    names: list[str] = []
    if denoiser.label_dim:
        classes = range(min(denoiser.label_dim, MAX_ROWS))
        samples = [Sample(seed, index) for index in classes for seed in range(NUM_COLUMNS)]
        names = [label_names[index] if label_names else str(index) for index in classes]
    batches = [to_uint8(batch.images).cpu() for batch in generate(denoiser, settings, samples)]
    save_grid(path, torch.cat(batches).numpy(), NUM_COLUMNS, row_names=names)
