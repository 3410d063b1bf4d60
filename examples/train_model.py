"""Train a small model on the shipped digits, look at its statistics, and sample it.

python examples/train_model.py OUTDIR [SECTION.KEY=VALUE]...
"""

import sys

import driftless

outdir, *overrides = sys.argv[1:] or ["runs"]

run = driftless.train(
    {
        "base": "configs/digits.yaml",  # one of the recipes that ship with Driftless
        "network": {"model_channels": 16, "num_blocks": 1},
        "ema": {"halflife": "20it"},
        "run": {"duration": "200it", "tick": "20it"},
    },
    *overrides,
    outdir=outdir,
)

for row in run.stats:
    print(f"{row['Progress/kimg']['mean']:6.1f} kimg   loss {row['Loss/loss']['mean']:.4f}")

model = run.model()
print(model)
images = model.sample(range(4), label=3)
print(f"{tuple(images.shape)}, from {images.min():.2f} to {images.max():.2f}")
