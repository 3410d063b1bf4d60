"""What scoring costs: the Frechet distance beside a matrix square root, and every stage of fid.py.

    python benchmarks/bench_fid.py --device=cpu --out=benchmarks/results/fid-cpu.json

Distance: two covariances of random features, by `metrics.frechet` and by the published formula
with `scipy.linalg.sqrtm` in float64, in turn; once with full rank and once with fewer images than
features, as FIDs of few images have it. Stages: images a second of decoding PNGs from a data set's
zip, the detector, the sums, and these three in one pass; of the kernel distance (its images are
those of its subsets, so the rate is the same for sets of any size); and of precision and recall,
whose rate falls as the sets grow. The detector's weights are random unless a file of weights is
given, which changes no cost.
"""

import io
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import PIL.Image
import scipy.linalg
import torch

from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.timing import now
from data.dataset import ImageDataset
from metrics import detectors
from metrics.detectors import Detector
from metrics.evaluate import evaluate, num_features
from metrics.frechet import frechet_distance
from metrics.kernel import NUM_SUBSETS, SUBSET_SIZE, kernel_distance
from metrics.manifold import precision_recall
from metrics.statistics import FeatureStatistics, Gaussian
from tests.inception import save_weights
from torch_utils.command import Command


def gaussian(seed: int, num_features: int, num_images: int) -> Gaussian:
    """Of random features with a spread-out spectrum, as a network's are."""
    random = np.random.default_rng(seed)
    scales = np.logspace(0, -3, num_features)
    features = random.normal(size=(num_images, num_features)) * scales
    features += 0.1 * np.roll(features, 1, axis=1)
    return Gaussian(features.mean(0), np.cov(features.T), num_images)


def by_square_root(first: Gaussian, second: Gaussian) -> float:
    """The published formula."""
    root = scipy.linalg.sqrtm(first.sigma @ second.sigma)
    offset = first.mu - second.mu
    return float(offset @ offset + np.trace(first.sigma + second.sigma - 2 * np.real(root)))


def distance_times(size: int, num_images: int, pairs: int) -> dict[str, Any]:
    """Seconds of both ways, run in turn, and how far apart their results are."""
    first, second = gaussian(0, size, num_images), gaussian(1, size, 10 * size)
    small = gaussian(2, 8, 80)
    frechet_distance(small, small), by_square_root(small, small)  # loads libraries
    times: dict[str, list[float]] = {"driftless": [], "sqrtm": []}
    found = {}
    for _ in range(pairs):
        for name, function in (("driftless", frechet_distance), ("sqrtm", by_square_root)):
            start = time.perf_counter()
            found[name] = function(first, second)
            times[name].append(time.perf_counter() - start)
    ratios = [b / a for a, b in zip(times["driftless"], times["sqrtm"], strict=True)]
    return {
        "images": num_images,
        "seconds": {name: round(median(values), 3) for name, values in times.items()},
        "ratio": round(median(ratios), 2),
        "ratio_spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "relative_difference": abs(found["driftless"] / found["sqrtm"] - 1),
    }


def write_dataset(path: Path, shape: tuple[int, int, int], num: int) -> None:
    """A zip of PNGs, stored as a data set's are."""
    random = np.random.default_rng(0)
    channels, height, width = shape
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index in range(num):
            smooth = random.integers(0, 256, (height // 4 or 1, width // 4 or 1, 3), np.uint8)
            picture = PIL.Image.fromarray(smooth).resize((width, height))
            content = io.BytesIO()
            picture.convert("RGB" if channels == 3 else "L").save(content, format="png")
            archive.writestr(f"{index:08d}.png", content.getvalue())


def rate(
    images: int, work: Callable[[], Any], device: torch.device, repeats: int
) -> dict[str, Any]:
    """Images a second: median, least and most of several runs after one that does not count."""
    work()
    rates = []
    for _ in range(repeats):
        start = now(device)
        work()
        rates.append(images / (now(device) - start))
    return {
        "images": images,
        "per_second": round(median(rates), 1),
        "spread": [round(min(rates), 1), round(max(rates), 1)],
    }


def pass_rates(
    detector: Detector, shape: tuple[int, int, int], num: int, repeats: int
) -> dict[str, Any]:
    """Rates of what every image goes through."""
    device = detector.device
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.zip"
        write_dataset(path, shape, num)
        dataset = ImageDataset(path)
        images = torch.from_numpy(dataset.load(progress=False))
        size = num_features(detector, shape)
        features = torch.rand([num, size], device=device)
        statistics = FeatureStatistics(size, device)

        def decode() -> None:
            for _ in dataset.batches(64):
                pass

        def extract() -> None:
            with torch.no_grad():
                detector(images)

        def add_up() -> None:
            for part in torch.split(features, detector.batch):
                statistics.update(part)

        def all_three() -> None:
            evaluate(detector, dataset.batches(64), shape)

        stages = {
            "decode": decode,
            "detector": extract,
            "statistics": add_up,
            "all three": all_three,
        }
        return {name: rate(num, work, device, repeats) for name, work in stages.items()}


def comparison_rates(size: int, num: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Rates of what compares two sets of `num` features of a size."""
    random = np.random.default_rng(0)
    ours, theirs = (random.random((num, size), np.float32) for _ in range(2))

    def kernel() -> None:
        kernel_distance(ours, theirs, device=device)

    def manifold() -> None:
        precision_recall(ours, theirs, device=device)

    return {
        "kernel distance": rate(NUM_SUBSETS * SUBSET_SIZE, kernel, device, repeats),
        "precision and recall": rate(num, manifold, device, repeats),
    }


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--detector", default=detectors.DEFAULT, show_default=True, help="Its name.")
@click.option("--weights", metavar="FILE", help="Its weights.  [default: random ones, or its own]")
@click.option("--size", default=32, show_default=True, help="Height and width of the images.")
@click.option("--num", default=256, show_default=True, help="Images of the pass.")
@click.option(
    "--compared",
    type=click.IntRange(SUBSET_SIZE),
    default=5000,
    show_default=True,
    help="Features in each of the sets that are compared one by one.",
)
@click.option("--features", default=2048, show_default=True, help="Of the distance.")
@click.option("--pairs", default=7, show_default=True, help="Runs of both distances.")
@click.option("--repeats", default=3, show_default=True, help="Runs of each stage.")
@click.option("--out", metavar="JSON", help="Where the results go.")
def main(
    device: str,
    detector: str,
    weights: str | None,
    size: int,
    num: int,
    compared: int,
    features: int,
    pairs: int,
    repeats: int,
    out: str | None,
) -> None:
    """Time the Frechet distance and the stages of scoring."""
    target = prepared_device(device)
    record: dict[str, Any] = {
        "hardware": hardware(target) | {"numpy": np.__version__, "scipy": scipy.__version__},
        "features": features,
    }
    record["distance"] = [
        distance_times(features, num_images, pairs) for num_images in (10 * features, features // 2)
    ]
    for row in record["distance"]:
        print(
            f"distance, {features} features of {row['images']} images: {row['ratio']} times as "
            f"fast as a square root, relative difference {row['relative_difference']:.0e}"
        )
    with tempfile.TemporaryDirectory() as folder:
        if weights is None and detector == detectors.DEFAULT:
            weights = str(save_weights(Path(folder) / "random.pth"))
        options = detectors.check_weights(detector, weights)
        loaded = detectors.load(detector, target, **options)
    channels = 1 if detector == "digits" else 3
    shape = channels, size, size
    record["detector"], record["image_shape"] = detector, shape
    rates = pass_rates(loaded, shape, num, repeats)
    rates |= comparison_rates(num_features(loaded, shape), compared, repeats, target)
    record["stages"] = rates
    for name, row in rates.items():
        print(f"{name}: {row['per_second']:g} images/s")
    write_results(out, record)


if __name__ == "__main__":
    main()
