"""Images a second: from the cache into training batches, and at the first decoding.

    python -m benchmarks.bench_data --out=benchmarks/results/data-cpu.json

Makes a data set of CIFAR's size in a temporary folder. The first decoding, which includes opening
the zip, is compared with a plain loop of zipfile and Pillow on one core, the two timed in turn.
Then the next start, which finds the images in the cache. What decoding does not need is imported
late: the processes that decode import this file too.
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

from benchmarks.options import count_option
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


def plain_loop(path: Path) -> None:
    """Decode every image, one after the other."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".png"):
                np.asarray(PIL.Image.open(io.BytesIO(archive.read(name)))).transpose(2, 0, 1).copy()


def first_decoding(path: Path) -> None:
    """Our first decoding, into the cache."""
    clear()
    cached_images(ImageDataset(path), progress=False)


def next_start(path: Path) -> None:
    """What another start does: the images are in the cache."""
    cached_images(ImageDataset(path), progress=False)


@click.command(cls=Command)
@count_option("--num", 60000, "Images in the data set.")
@count_option("--batch", 512, "Images in a batch.")
@count_option("--rounds", 7, "All ways, in turn.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(num: int, batch: int, rounds: int, out: str | None) -> None:
    """Measure data loading on this CPU."""
    import torch

    from benchmarks.hardware import hardware, write_results
    from benchmarks.timing import interleaved, ratio, spread
    from training.config import DataConfig
    from training.data import load_training_data
    from training.order import image_indices

    with tempfile.TemporaryDirectory() as folder:
        os.environ["DRIFTLESS_CACHE"] = str(Path(folder) / "cache")
        path = Path(folder) / "images.zip"
        write_dataset(path, num)
        calls = {
            "plain": lambda: plain_loop(path),
            "first": lambda: first_decoding(path),
        }
        times = interleaved(calls, torch.device("cpu"), rounds)
        later = interleaved({"next": lambda: next_start(path)}, torch.device("cpu"), rounds)
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
        "images": num,
        "batches_images_per_s": round(rate),
        "seconds": {name: spread(found) for name, found in (times | later).items()},
        "first_over_plain": ratio(times["plain"], times["first"]),
    }
    print(record)
    write_results(out, record)


if __name__ == "__main__":
    main()
