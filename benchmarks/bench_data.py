"""Images a second: from the cache into training batches, and at the first decoding.

    python benchmarks/bench_data.py --out=benchmarks/results/data-cpu.json

Makes a data set of CIFAR's size in a temporary folder. The first decoding is compared with a plain
loop of Pillow on one core, the two timed in turn. What decoding does not need is imported late: the
processes that decode import this file too.
"""

import io
import os
import tempfile
import time
import zipfile
from pathlib import Path

import click
import numpy as np
import PIL.Image

from data.cache import cached_images, clear
from data.dataset import ImageDataset
from data.writer import DatasetWriter, encode
from torch_utils.command import Command


def write_dataset(path: Path, num: int) -> None:
    """A zip of smooth random colour images, 32x32, with ten classes."""
    random = np.random.default_rng(0)
    with DatasetWriter(path) as writer:
        for index in range(num):
            coarse = PIL.Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            picture = coarse.resize((32, 32), PIL.Image.Resampling.BICUBIC)
            image = np.asarray(picture).transpose(2, 0, 1)
            writer.add(encode(image), index % 10, index=index, origin="random")


def plain_loop(path: Path) -> float:
    """Seconds of decoding every image, one after the other."""
    start = time.perf_counter()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".png"):
                np.asarray(PIL.Image.open(io.BytesIO(archive.read(name)))).transpose(2, 0, 1).copy()
    return time.perf_counter() - start


def first_decoding(path: Path) -> float:
    """Seconds of our first decoding, into the cache."""
    clear()
    start = time.perf_counter()
    cached_images(ImageDataset(path), progress=False)
    return time.perf_counter() - start


@click.command(cls=Command)
@click.option("--num", default=50000, show_default=True, help="Images in the data set.")
@click.option("--batch", default=512, show_default=True, help="Images in a batch.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(num: int, batch: int, out: str | None) -> None:
    """Measure data loading on this CPU."""
    import torch

    from benchmarks.hardware import hardware, write_results
    from training.config import DataConfig
    from training.data import load_training_data
    from training.order import image_indices

    with tempfile.TemporaryDirectory() as folder:
        os.environ["DRIFTLESS_CACHE"] = str(Path(folder) / "cache")
        path = Path(folder) / "images.zip"
        write_dataset(path, num)
        times = [(plain_loop(path), first_decoding(path)) for _ in range(3)]
        plain, ours = (min(column) for column in zip(*times, strict=True))
        load_training_data(DataConfig(path=str(path), cond=True, xflip=True))  # fills the cache
        data = load_training_data(DataConfig(path=str(path), cond=True, xflip=True))
        generator = torch.Generator().manual_seed(0)
        start, seen = time.perf_counter(), 0
        while time.perf_counter() - start < 3:
            data.batch(image_indices(0, seen, batch, len(data)), generator, label_dropout=0.1)
            seen += batch
        rate = seen / (time.perf_counter() - start)
    record = {
        "hardware": hardware(torch.device("cpu")),
        "batches_images_per_s": round(rate),
        "decoding_images_per_s": round(num / ours),
        "plain_pillow_images_per_s": round(num / plain),
        "decoding_over_plain": round(plain / ours, 2),
    }
    print(record)
    write_results(out, record)


if __name__ == "__main__":
    main()
