"""What scores cost that compare two sets of features, beside the published programs.

    python -m benchmarks.bench_distances --device=cpu --out=benchmarks/results/distances-cpu.json

The Frechet distance beside a square root, as EDM computes it, once with full rank and once with
fewer images than features; the kernel distance, with so many subsets that they share kernels, as
usual, and with few; precision and recall. torch-fidelity is measured, too, if it is installed: as
it is, with kernels and distances in float32, and with features in float64, as ours are.

Where a call takes many seconds, there are fewer rounds (`--long-rounds`), and none to warm up.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
import numpy as np
import scipy
import torch

from benchmarks import published_scores as published
from benchmarks.bench_fid import EDM, FIDELITY
from benchmarks.comparison import OURS, compared, told
from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.options import count_option
from benchmarks.timing import FEWEST_PAIRS
from metrics.frechet import frechet_distance
from metrics.kernel import NUM_SUBSETS, SUBSET_SIZE, kernel_distance
from metrics.manifold import precision_recall
from metrics.statistics import Gaussian
from torch_utils.command import Command

FEW_SUBSETS = 5
Ways = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Stage:
    """A score.

    Attributes:
        images: that it is computed from, as rates count them.
        ways: to compute it, by name.
        is_long: whether a call takes many seconds.
    """

    images: int
    ways: Ways
    is_long: bool = False


def gaussian(seed: int, num_features: int, num_images: int) -> Gaussian:
    """Of random features with a spread-out spectrum, as a network's are."""
    random = np.random.default_rng(seed)
    scales = np.logspace(0, -3, num_features)
    features = random.normal(size=(num_images, num_features)) * scales
    features += 0.1 * np.roll(features, 1, axis=1)
    return Gaussian(features.mean(0), np.cov(features.T), num_images)


def distance_ways(first: Gaussian, second: Gaussian) -> Ways:
    """The Frechet distance."""
    ways: Ways = {
        OURS: lambda: frechet_distance(first, second),
        EDM: lambda: published.distance(first, second),
    }
    if importlib.util.find_spec("torch_fidelity"):
        from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

        one, two = ({"mu": each.mu, "sigma": each.sigma} for each in (first, second))
        ways[FIDELITY] = lambda: fid_statistics_to_metric(one, two, False)[KEY_METRIC_FID]
    return ways


def kernel_ways(ours: np.ndarray, theirs: np.ndarray, subsets: int, device: torch.device) -> Ways:
    """The kernel distance; with many subsets, torch-fidelity only as it is."""
    ways: Ways = {OURS: lambda: kernel_distance(ours, theirs, subsets=subsets, device=device)[0]}
    if importlib.util.find_spec("torch_fidelity"):
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

        one, two = torch.from_numpy(ours), torch.from_numpy(theirs)

        def score(one: torch.Tensor, two: torch.Tensor) -> float:
            found: dict[str, float] = kid_features_to_metric(
                one, two, kid_subsets=subsets, kid_subset_size=SUBSET_SIZE, verbose=False
            )
            return found[KEY_METRIC_KID_MEAN]

        ways[FIDELITY] = lambda: score(one, two)
        if subsets <= FEW_SUBSETS:
            ways[f"{FIDELITY} in float64"] = lambda: score(one.double(), two.double())
    return ways


def manifold_ways(ours: np.ndarray, theirs: np.ndarray, device: torch.device) -> Ways:
    """Precision and recall."""
    ways: Ways = {OURS: lambda: precision_recall(ours, theirs, device=device)[0]}
    if importlib.util.find_spec("torch_fidelity"):
        from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, prc_features_to_metric

        one, two = (torch.from_numpy(values).to(device) for values in (ours, theirs))

        def score(one: torch.Tensor, two: torch.Tensor) -> float:
            found: dict[str, float] = prc_features_to_metric(one, two, verbose=False)
            return found[KEY_METRIC_PRECISION]

        ways[FIDELITY] = lambda: score(one, two)
        ways[f"{FIDELITY} in float64"] = lambda: score(one.double(), two.double())
    return ways


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@count_option("--features", 2048, "Features of an image.")
@click.option(
    "--num",
    type=click.IntRange(SUBSET_SIZE),
    default=3000,
    show_default=True,
    help="Images in each set, of the kernel distance and of precision and recall.",
)
@count_option("--subsets", NUM_SUBSETS, "Of the kernel distance.")
@count_option("--rounds", FEWEST_PAIRS, "All ways, in turn.")
@count_option("--long-rounds", 3, "Where a call takes long.")
@click.option("--only", type=click.Choice(["frechet", "others"]), help="Measure only this.")
@click.option("--out", metavar="JSON", help="Where the results go.")
def main(
    device: str,
    features: int,
    num: int,
    subsets: int,
    rounds: int,
    long_rounds: int,
    only: str | None,
    out: str | None,
) -> None:
    """Time the scores that compare two sets of features."""
    target = prepared_device(device)
    random = np.random.default_rng(0)
    ours, theirs = (random.random((num, features), np.float32) for _ in range(2))
    other = gaussian(1, features, 10 * features)
    stages: dict[str, Stage] = {}
    if only != "others":
        for count in (10 * features, features // 2):
            ways = distance_ways(gaussian(0, features, count), other)
            stages[f"Frechet distance, {count} images"] = Stage(1, ways, is_long=True)
    if only != "frechet":
        for count in (subsets, FEW_SUBSETS):
            ways = kernel_ways(ours + np.float32(0.1), theirs, count, target)
            name = f"kernel distance, {count} subsets"
            stages[name] = Stage(count * SUBSET_SIZE, ways, is_long=count > FEW_SUBSETS)
        stages["precision and recall"] = Stage(num, manifold_ways(ours, theirs, target))
    record: dict[str, Any] = {
        "hardware": hardware(target) | {"numpy": np.__version__, "scipy": scipy.__version__},
        "features": features,
        "torch_fidelity": bool(importlib.util.find_spec("torch_fidelity")),
        "stages": {},
    }
    for name, stage in stages.items():
        found: dict[str, float] = {}

        def kept(way: str, stage: Stage = stage, found: dict[str, float] = found) -> None:
            found[way] = stage.ways[way]()

        row = compared(
            {way: partial(kept, way) for way in stage.ways},
            stage.images,
            target,
            long_rounds if stage.is_long else rounds,
            warms_up=not stage.is_long,
        )
        row["relative_difference"] = {
            way: abs(value - found[OURS]) / (abs(found[OURS]) or 1.0)
            for way, value in found.items()
            if way != OURS
        }
        record["stages"][name] = row
        print(told(name, row), row["relative_difference"], flush=True)
    write_results(out, record)


if __name__ == "__main__":
    main()
