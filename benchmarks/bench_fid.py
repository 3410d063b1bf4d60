"""What a pass of fid.py costs, stage by stage, beside the published programs.

    python -m benchmarks.bench_fid --device=cpu --out=benchmarks/results/fid-cpu.json

Images a second of reading images, resizing them, the detector, the sums, and the whole pass, and
of the file of a reference. Beside ours stands EDM's way (`benchmarks.published_scores`) and, if it
is installed, torch-fidelity. The weights of Inception are random unless a file is given, which
changes no cost; all get the same ones. The few images that Inception sees are also read alone:
that is nearly all start, of processes where a loader has some. Numbers from features:
`bench_distances.py`.
"""

import importlib.util
import io
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import published_scores as published
from benchmarks.comparison import OURS, compared, told
from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.options import count_option
from benchmarks.timing import FEWEST_PAIRS, interleaved, spread
from data.dataset import ImageDataset
from metrics import detectors, inception
from metrics.detectors import Detector
from metrics.evaluate import evaluate
from metrics.reference import Reference, save_reference
from metrics.statistics import FeatureStatistics, worthwhile_rows
from tests.inception import save_weights
from torch_utils.command import Command
from torch_utils.errors import UserError

FIDELITY = "torch-fidelity"
EDM = "edm"
Ways = dict[str, Callable[[], object]]


def write_images(folder: Path, size: int, num: int) -> Path:
    """A zip of PNGs, stored as a data set's are, and the same files in a folder."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_STORED) as archive:
        for index in range(num):
            coarse = random.integers(0, 256, (size // 4 or 1, size // 4 or 1, 3), np.uint8)
            content = io.BytesIO()
            picture = PIL.Image.fromarray(coarse).resize((size, size))
            picture.save(content, format="png", compress_level=0)
            archive.writestr(f"{index:08d}.png", content.getvalue())
            (folder / "images" / f"{index:08d}.png").write_bytes(content.getvalue())
    return folder / "images.zip"


def each(batches: "ImageDataset | DataLoader[Any]") -> None:
    """Go through all batches."""
    found = batches.batches(published.BATCH) if isinstance(batches, ImageDataset) else batches
    for _ in found:
        pass


def reading_ways(path: Path) -> tuple[Ways, Ways]:
    """Reading the zip, and the folder beside it."""
    folder = path.with_suffix("")
    from_zip: Ways = {
        OURS: lambda: each(ImageDataset(path)),
        EDM: lambda: each(published.loader(path)),
    }
    from_folder: Ways = {OURS: lambda: each(ImageDataset(folder))}
    if importlib.util.find_spec("torch_fidelity"):
        from torch_fidelity.datasets import ImagesPathDataset

        files = sorted(map(str, folder.iterdir()))
        # its number of processes is 4 on two cores and more
        load = DataLoader(ImagesPathDataset(files), batch_size=published.BATCH, num_workers=4)
        from_folder[FIDELITY] = lambda: each(load)
    return from_zip, from_folder


def reading_few(path: Path, device: torch.device, rounds: int) -> dict[str, Any]:
    """Seconds of reading few images, from a zip and from the folder beside it."""
    found: dict[str, Any] = {}
    for source, ways in zip(("zip", "folder"), reading_ways(path), strict=True):
        times = interleaved(ways, device, rounds)
        found[source] = {name: spread(values) for name, values in times.items()}
        told_ways = (f"{name} {row['median']:g} s" for name, row in found[source].items())
        print(f"reading few images from a {source}: {', '.join(told_ways)}", flush=True)
    return found


def network_ways(detector: Detector, images: Tensor, weights: Path) -> tuple[Ways, Ways]:
    """Resizing to the size that Inception sees, and all of Inception."""
    device = detector.device
    state = torch.load(weights, map_location=device, weights_only=True)
    plain = published.plain_network(state)
    batches = torch.split(images.to(device), published.BATCH)

    def resized() -> None:
        for part in torch.split(images.to(device), detector.batch):
            inception.resize(part.float())

    resizing: Ways = {OURS: resized}
    features: Ways = {
        OURS: lambda: detector(images),
        EDM: lambda: [plain(part) for part in batches],
    }
    if importlib.util.find_spec("torch_fidelity"):
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        from torch_fidelity.interpolate_compat_tensorflow import (
            interpolate_bilinear_2d_like_tensorflow1x as theirs,
        )

        extract = FeatureExtractorInceptionV3(
            "inception-v3-compat",
            ["2048", "logits_unbiased"],
            feature_extractor_weights_path=str(weights),
        ).to(device)
        wanted = (inception.SIZE, inception.SIZE)
        resizing[FIDELITY] = lambda: [
            theirs(part.float(), wanted, align_corners=False) for part in batches
        ]
        features[FIDELITY] = lambda: [extract(part) for part in batches]
    return resizing, features


def statistics_ways(features: Tensor) -> Ways:
    """From features to mean and covariance."""
    size, device = features.shape[1], features.device

    def ours() -> None:
        found = FeatureStatistics(size, device)
        for part in torch.split(features, worthwhile_rows(size)):
            found.update(part)
        found.finalize()

    def edm() -> None:
        found = published.Sums(size, device)
        for part in torch.split(features, published.BATCH):
            found.add(part)
        found.gaussian()

    ways: Ways = {OURS: ours, EDM: edm}
    if importlib.util.find_spec("torch_fidelity"):
        from torch_fidelity.metric_fid import fid_features_to_statistics

        ways[FIDELITY] = lambda: fid_features_to_statistics(features.cpu())
    return ways


def pass_ways(detector: Detector, path: Path, weights: Path) -> Ways:
    """From a zip to mean and covariance."""
    device = detector.device
    state = torch.load(weights, map_location=device, weights_only=True)
    network = published.plain_network(state)

    def ours() -> None:
        dataset = ImageDataset(path)
        evaluate(detector, dataset.batches(published.BATCH), dataset.image_shape)

    return {
        OURS: ours,
        EDM: lambda: published.score(path, network, inception.NUM_FEATURES, device),
    }


def file_ways(features: Tensor, folder: Path) -> Ways:
    """Writing mean and covariance. Ours is flushed to disk, as theirs is in one of the two ways."""
    found = FeatureStatistics(features.shape[1], features.device)
    found.update(features)
    gaussian = found.finalize()
    reference = Reference(gaussian, "inception", "random", (3, 32, 32))

    def edm(is_flushed: bool) -> None:
        with open(folder / "edm.npz", "wb") as file:
            np.savez(file, mu=gaussian.mu, sigma=gaussian.sigma)
            if is_flushed:
                file.flush()
                os.fsync(file.fileno())

    return {
        OURS: lambda: save_reference(folder / "ours.npz", reference),
        EDM: lambda: edm(False),
        f"{EDM}, flushed": lambda: edm(True),
    }


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--weights", metavar="FILE", help="Inception's weights.  [default: random ones]")
@count_option("--size", 32, "Height and width of the images.")
@count_option("--num", 64, "Images that Inception sees.")
@count_option("--read", 20_000, "Images that are only read.")
@count_option("--features", 5000, "Features that are added up.")
@count_option("--rounds", FEWEST_PAIRS, "All ways, in turn.")
@click.option("--out", metavar="JSON", help="Where the results go.")
def main(
    device: str,
    weights: str | None,
    size: int,
    num: int,
    read: int,
    features: int,
    rounds: int,
    out: str | None,
) -> None:
    """Time the stages of scoring that see every image."""
    target = prepared_device(device)
    random = torch.rand([features, inception.NUM_FEATURES], device=target)
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        folder = Path(name)
        (folder / "few").mkdir()
        many, few = write_images(folder, size, read), write_images(folder / "few", size, num)
        path = Path(weights) if weights else save_weights(folder / "random.pth")
        detector = detectors.load("inception", target, weights=str(path))
        if num % detector.batch:
            raise UserError(f"--num={num} is no multiple of {detector.batch}, the batch")
        images = torch.from_numpy(ImageDataset(few).load(progress=False))
        from_zip, from_folder = reading_ways(many)
        resizing, network = network_ways(detector, images, path)
        stages = {
            "reading a zip": (read, from_zip),
            "reading a folder": (read, from_folder),
            "resizing to 299x299": (num, resizing),
            "Inception": (num, network),
            "mean and covariance": (features, statistics_ways(random)),
            "the whole pass": (num, pass_ways(detector, few, path)),
            "the file of a reference": (1, file_ways(random, folder)),
        }
        record: dict[str, Any] = {"hardware": hardware(target), "image_shape": [3, size, size]}
        record["torch_fidelity"] = bool(importlib.util.find_spec("torch_fidelity"))
        record["reading_few_s"] = reading_few(few, target, rounds)
        record["stages"] = {}
        for stage, (count, ways) in stages.items():
            record["stages"][stage] = compared(ways, count, target, rounds)
            print(told(stage, record["stages"][stage]), flush=True)
    if not record["torch_fidelity"]:
        print("torch-fidelity is not installed: it was not measured")
    write_results(out, record)


if __name__ == "__main__":
    main()
