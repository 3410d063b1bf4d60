"""Train the digits detector and write its weights into metrics/, the same on every run.

    python -m assets.train_digits_detector

Trains on four fifths of assets/digits-8x8.zip, measures on the fifth that training never saw, and
prints the sha256 to be pinned in metrics/digits.py. The last weights are kept, not the best ones:
the held-out fifth selects nothing.
"""

import hashlib
import json
import math
from pathlib import Path

import click
import torch

from torch_utils.command import Command

DATASET = Path(__file__).resolve().with_name("digits-8x8.zip")
WEIGHTS = Path(__file__).resolve().parents[1] / "metrics" / "digits-detector.safetensors"
LICENCE = (
    "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, 1998, "
    "UCI Machine Learning Repository, CC BY 4.0"
)
NUM_TRAIN, SUBSET_SEED = 1437, 0


def load_digits(held_out: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 1, 8, 8] in [-1, 1] and classes [N] of one side of the split."""
    from data.dataset import ImageDataset
    from metrics.digits import to_network_range

    dataset = ImageDataset(
        str(DATASET),
        use_labels=True,
        max_size=NUM_TRAIN,
        subset_seed=SUBSET_SEED,
        held_out=held_out,
    )
    assert dataset.labels is not None
    images = torch.as_tensor(dataset.load().copy())
    return to_network_range(images, torch.float32), torch.as_tensor(dataset.labels).argmax(1)


def distort(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn by up to 9 degrees, stretch by up to 10%, shift by up to 0.8 pixel, add noise."""
    num = len(images)
    u = torch.rand([5, num], generator=generator) * 2 - 1
    angle, stretch = u[0] * math.radians(9), torch.exp(u[1:3] * math.log(1.1))
    shift = u[3:5] * 0.8 / 4  # affine_grid counts half the width, 4 pixels, as 1
    theta = torch.stack(
        [
            torch.stack([angle.cos() * stretch[0], -angle.sin(), shift[0]], 1),
            torch.stack([angle.sin(), angle.cos() * stretch[1], shift[1]], 1),
        ],
        1,
    )
    grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    # The background is -1: sample images + 1, where the outside is 0.
    moved = torch.nn.functional.grid_sample(images + 1, grid, align_corners=False) - 1
    return moved + 0.05 * torch.randn(images.shape, generator=generator)


def train(epochs: int, batch: int, seed: int) -> torch.nn.Module:
    """Train with AdamW and a learning rate that falls to 0 along a cosine."""
    from metrics.digits import DigitsNet

    images, classes = load_digits(held_out=False)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = DigitsNet()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=generator).split(batch):
            _, logits = net(distort(images[index], generator))
            loss = torch.nn.functional.cross_entropy(logits, classes[index], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        scheduler.step()
    return net.eval().requires_grad_(False)


def accuracy(net: torch.nn.Module, held_out: bool) -> tuple[float, int]:
    """Share of images whose most probable class is the right one, and how many images."""
    images, classes = load_digits(held_out)
    _, logits = net(images)
    return float((logits.argmax(1) == classes).double().mean()), len(images)


@click.command(cls=Command)
@click.option("--epochs", type=click.IntRange(1), default=120, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--dest", default=str(WEIGHTS), help="File to write.")
def main(epochs: int, batch: int, seed: int, dest: str) -> None:
    """Train the detector `digits` and write its weights."""
    import safetensors.torch

    from metrics.digits import METADATA_KEY
    from torch_utils.files import replacing

    torch.set_num_threads(1)  # sums of several threads differ in the last bit
    net = train(epochs, batch, seed)
    train_accuracy, num_train = accuracy(net, held_out=False)
    held_out_accuracy, num_held_out = accuracy(net, held_out=True)
    record = {
        "held_out_accuracy": held_out_accuracy,
        "train_accuracy": train_accuracy,
        "num_train": num_train,
        "num_held_out": num_held_out,
        "epochs": epochs,
        "batch": batch,
        "seed": seed,
        "torch": torch.__version__,
        "dataset": DATASET.name,
        "dataset_sha256": hashlib.sha256(DATASET.read_bytes()).hexdigest(),
        "data_licence": LICENCE,
    }
    content = safetensors.torch.save(net.state_dict(), metadata={METADATA_KEY: json.dumps(record)})
    with replacing(dest) as temporary:
        temporary.write_bytes(content)
    print(f"accuracy: {train_accuracy:.4f} of {num_train} training images")
    print(f"accuracy: {held_out_accuracy:.4f} of {num_held_out} held-out images")
    print(f"{dest}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
