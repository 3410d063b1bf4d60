"""Score images: `fid.py calc` compares them with a reference, `fid.py ref` makes one.

The distance is called FID only with Inception's features; any other is named by its detector.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from importers.spellings import explain
from metrics import detectors
from metrics.names import shown_name
from torch_utils.command import Command, Group, device_option
from torch_utils.errors import UserError, explain_names_with

if TYPE_CHECKING:
    import numpy as np

    from data.dataset import ImageDataset
    from metrics.detectors import Detector
    from metrics.evaluate import Evaluation
    from metrics.reference import Reference
    from metrics.statistics import Gaussian
    from torch_utils.distributed import World
    from torch_utils.progress import Progress

explain_names_with(explain)


def _known_detector(ctx: click.Context, param: click.Parameter, value: str) -> str:
    detectors.row(value)
    return value


detector_option = click.option(
    "--detector",
    required=True,
    callback=_known_detector,
    metavar=f"[{'|'.join(detectors.DETECTORS)}]",
    help="; ".join(f"{name}: {row.summary}" for name, row in detectors.DETECTORS.items()) + ".",
)
batch_option = click.option(
    "--batch", type=click.IntRange(1), default=64, show_default=True, help="Images at a time."
)
NEEDS_LESS = "compute fewer images at once (--batch)"


@click.group(cls=Group)
def main() -> None:
    """Compare images with a data set by the Frechet distance of their features."""


@main.command(cls=Command, needs_less=NEEDS_LESS)
@click.option("--images", required=True, metavar="PATH", help="Folder or zip of the images.")
@click.option("--ref", required=True, metavar="NPZ", help="Reference made by `fid.py ref`.")
@click.option(
    "--num", type=click.IntRange(2), default=50000, show_default=True, help="Images to use."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Picks the subset if there are more."
)
@batch_option
@detector_option
@device_option
def calc(
    images: str, ref: str, num: int, seed: int, batch: int, detector: str, device: str
) -> None:
    """Print the distance of images from a reference, and the classifier score."""
    import scipy.special

    from data.dataset import ImageDataset
    from metrics.frechet import frechet_distance
    from metrics.reference import load_reference
    from torch_utils.distributed import world

    reference = load_reference(ref, detector)
    grids = _own_grids(images)
    dataset = ImageDataset(images, max_size=num, subset_seed=seed, leave_out=grids)
    if len(dataset) < num:
        raise UserError(
            f"Found {len(dataset)} images, but expected at least {num}: "
            f"generate more or give --num={len(dataset)}"
        )
    with world(device) as here:
        loaded = detectors.load(detector, here.device)
        _check_images(loaded, dataset, ref, reference)
        found = _evaluate(loaded, dataset, batch, here)
    if not here.is_main:
        return
    _print_left_out(grids)
    distance = frechet_distance(found.statistics.finalize(), reference.gaussian)
    _warn_of_bias(len(dataset), reference.gaussian)
    reference_num = reference.gaussian.num or "unknown number of"
    print(
        f"{shown_name('fid', detector, len(dataset))}: {distance:g}   "
        f"{len(dataset)} images vs {Path(ref).name} ({reference_num} images)"
    )
    if found.logits is not None:
        _print_scores(detector, scipy.special.softmax(found.logits.astype("f8"), axis=1))


@main.command(cls=Command, needs_less=NEEDS_LESS)
@click.option("--data", required=True, metavar="PATH", help="Folder or zip of the data set.")
@click.option("--dest", required=True, metavar="NPZ", help="Reference file to write.")
@batch_option
@detector_option
@device_option
def ref(data: str, dest: str, batch: int, detector: str, device: str) -> None:
    """Write the reference statistics of all images of a data set."""
    from data.dataset import ImageDataset
    from metrics.reference import Reference, check_destination, save_reference
    from torch_utils.distributed import world

    grids = _own_grids(data)
    dataset = ImageDataset(data, leave_out=grids)
    check_destination(dest)
    with world(device) as here:
        loaded = detectors.load(detector, here.device)
        gaussian = _evaluate(loaded, dataset, batch, here).statistics.finalize()
    if not here.is_main:
        return
    _print_left_out(grids)
    _warn_of_bias(None, gaussian)
    save_reference(dest, Reference(gaussian, detector, dataset.name, dataset.image_shape))
    print(f"{dest}: {len(gaussian.mu)} features ({detector}) of {gaussian.num} images")


def _own_grids(images: str) -> frozenset[str]:
    """The grids of generate.py in a folder, which are not images to be scored."""
    from torch_utils.images import is_grid

    found = (path for path in Path(images).rglob("*.png") if is_grid(path))
    return frozenset(path.relative_to(images).as_posix() for path in found)


def _print_left_out(grids: frozenset[str]) -> None:
    if grids:
        print(f"left out: {', '.join(sorted(grids))} (grids of generate.py)")


def _check_images(
    detector: Detector, dataset: ImageDataset, ref: str, reference: Reference
) -> None:
    """Check before the work that the reference is about images of this shape."""
    from metrics.evaluate import num_features

    shape = "x".join(map(str, dataset.image_shape))
    expected = reference.image_shape
    if expected not in (None, dataset.image_shape):
        raise UserError(
            f"{ref} was made of {'x'.join(map(str, expected))} images (channels x height x width), "
            f"these are {shape}: compare images of one shape"
        )
    found, known = num_features(detector, dataset.image_shape), len(reference.gaussian.mu)
    if found != known:
        raise UserError(
            f"{ref} has {known} features ({detector.name}), {shape} images have {found}: "
            "use a reference of images of the same size"
        )


def _warn_of_bias(num: int | None, reference: Gaussian) -> None:
    """Warn that a distance is too large if a covariance comes from too few images."""
    features = len(reference.mu)
    for whose, count in (("", num), ("the reference's ", reference.num)):
        if count is not None and count <= features:
            print(
                f"warning: {whose}{count:,} images are too few for {features:,} features: the "
                "distance is biased upwards; compare it with those of as many images only",
                file=sys.stderr,
            )


def _evaluate(detector: Detector, dataset: ImageDataset, batch: int, here: World) -> Evaluation:
    """Run the detector over this process's share and put the shares together."""
    from metrics.evaluate import combine, evaluate
    from torch_utils.progress import Progress

    first, stop = here.range_of(len(dataset))
    with Progress(stop - first, dataset.name, shown=here.is_main) as bar:
        batches = _counted(dataset.batches(batch, first, stop), bar)
        part = evaluate(detector, batches, dataset.image_shape)
    here.meet()  # some have slower images than others
    return combine(part, first, len(dataset), here)


def _counted(batches: Iterator[np.ndarray], bar: Progress) -> Iterator[np.ndarray]:
    for batch in batches:
        yield batch
        bar.update(len(batch))


def _print_scores(detector: str, probabilities: np.ndarray) -> None:
    """Print the score over all images and, if there are enough, over splits of them."""
    from metrics.scores import NUM_SPLITS, classifier_score, split_score

    num, whole = len(probabilities), classifier_score(probabilities)
    name = shown_name("is", detector, num)
    if num < NUM_SPLITS:
        print(f"{name}: {whole:g}   {num} images at once; published scores use {NUM_SPLITS} splits")
        return
    mean, std = split_score(probabilities)
    print(
        f"{name}: {mean:g} +- {std:g}   over {NUM_SPLITS} splits of {num} images, as published; "
        f"{whole:g} over all at once"
    )


if __name__ == "__main__":
    main()
