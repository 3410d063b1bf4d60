"""Load a model and sample it: a grid of all classes, batch by batch, and single calls of it.

python examples/sample_images.py RUN|SNAPSHOT [GRID.png]
"""

import sys

import torch

import driftless
from samplers.generate import to_uint8
from torch_utils.grids import save_grid

path, grid = sys.argv[1], (*sys.argv[2:], "grid.png")[0]

model = driftless.load(path)
print(model)

# a seed is an image: the same seeds in every class, one row a class
classes, seeds = range(len(model.label_names)), range(8)
labels = [index for index in classes for _ in seeds]
images = model.sample([*seeds] * len(classes), label=labels, steps=18)
pixels, columns = to_uint8(images).cpu().numpy(), [f"seed {seed}" for seed in seeds]
save_grid(grid, pixels, len(seeds), row_names=model.label_names, column_names=columns)
print(f"grid: {grid}")

# many images, never all of them in memory; what is drawn from the seed is the class
total = torch.zeros(())
for batch in model.batches(range(100), sampler="ddim", steps=10, batch=50):
    total += batch.sum().cpu()
print(f"mean of 100 images: {total / (100 * images[0].numel()):.3f}")

# the model itself is one function: the clean image that it sees in a noisy one
noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).to(model.device)
for sigma in (0.1, 0.5, 2.0):
    error = (model.denoise(images + sigma * noise, sigma, labels) - images).square().mean().sqrt()
    print(f"noise of {sigma:g} leaves an error of {error:.3f}")
