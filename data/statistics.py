"""Numbers that describe a source of images before it is used: pixels, sizes, labels.

Exact: every statistic of the pixels comes from a histogram of the byte values.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from data.archive import Label
from data.labels import LabelRule, absent_classes
from data.listing import LeftOut, phrases
from data.modes import Plain
from data.sources.interface import Source
from torch_utils.errors import UserError
from torch_utils.progress import Progress

_SHOWN = 20  # lines of a histogram


@dataclass
class ImageStatistics:
    """Counts over the images and labels of a source.

    Attributes:
        num_images: images that could be read.
        num_bad: images that could not be read, and were left out.
        left_out: other things in the source, which are not images.
        gray: int64 [1, 256], how often gray images have each value.
        colour: int64 [3, 256], the same for RGB images.
        sizes: number of images by (width, height).
        classes: number of images by class, or by tag or element that is not 0.
        num_labelled: images with a label.
        has_vectors: whether labels are lists.
        label_names: names of classes or elements, or None.
    """

    num_images: int = 0
    num_bad: int = 0
    left_out: Sequence[str] = ()
    gray: np.ndarray = field(default_factory=lambda: np.zeros((1, 256), np.int64))
    colour: np.ndarray = field(default_factory=lambda: np.zeros((3, 256), np.int64))
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)
    num_labelled: int = 0
    has_vectors: bool = False
    label_names: list[str] | None = None

    def channels(self) -> np.ndarray:
        """Counts of the values, int64 [C, 256]; gray counts as RGB if there is RGB as well."""
        return self.colour + self.gray if self.colour.any() else self.gray

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each channel, in the units of the model, [-1, 1]."""
        counts = self.channels()
        values = np.arange(256) / 127.5 - 1
        total = counts.sum(axis=1)
        mean = counts @ values / total
        variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
        return mean, np.sqrt(variance)

    def sigma_data(self) -> float:
        """The standard deviation of the data, over channels: EDM's sigma_data."""
        return math.sqrt(np.mean(self.mean_and_std()[1] ** 2))


def _histogram(image: Plain, _: str) -> tuple[np.ndarray, tuple[int, int]]:
    pixels = np.asarray(image)
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    counts = [
        np.bincount(channels[..., c].ravel(), minlength=256) for c in range(channels.shape[2])
    ]
    return np.stack(counts), (pixels.shape[1], pixels.shape[0])


def _count_label(statistics: ImageStatistics, label: Label) -> None:
    statistics.num_labelled += 1
    if isinstance(label, list):
        statistics.has_vectors = True
        statistics.classes.update(index for index, value in enumerate(label) if value != 0)
    else:
        statistics.classes[int(label)] += 1


def measure(source: Source) -> ImageStatistics:
    """Read all images of a source and count.

    Raises:
        UserError: an image cannot be read, or a label cannot be used.
    """
    rule = LabelRule()
    statistics = ImageStatistics(label_names=source.label_names, left_out=source.left_out)
    with Progress(len(source), "counting") as progress:
        for index, visited in enumerate(source.images(_histogram)):
            progress.update()
            if visited.result is None:
                statistics.num_bad += 1
                continue
            counts, size = visited.result
            statistics.num_images += 1
            statistics.sizes[size] += 1
            if len(counts) == 1:
                statistics.gray += counts
            else:
                statistics.colour += counts
            if visited.label is not None:
                rule.check(visited.label, source.where(index))
                _count_label(statistics, visited.label)
    return statistics


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def _most(counts: Counter[str], what: str) -> Iterator[str]:
    """Lines of a histogram, the most frequent first, cut at `_SHOWN`."""
    width = max(map(len, counts), default=0)
    for name, num in counts.most_common(_SHOWN):
        yield f"  {name:<{width}}  {num}"
    if rest := counts.most_common()[_SHOWN:]:
        lowest, highest = rest[-1][1], rest[0][1]
        yield f"  {len(rest)} more {what}, {lowest} to {highest} images each"


def _left_out(statistics: ImageStatistics) -> Iterator[str]:
    bad = LeftOut({("image", "cannot be read"): statistics.num_bad} if statistics.num_bad else {})
    if found := [*statistics.left_out, *phrases(bad)]:
        yield f"left out: {', '.join(found)}"


def report(statistics: ImageStatistics) -> Iterator[str]:
    """Yield the lines that `dataset_tool.py stats` prints.

    Raises:
        UserError: there is no image to report on.
    """
    if not statistics.num_images:
        raise UserError("no image could be read: see the warnings above")
    mean, std = statistics.mean_and_std()
    kinds = {"gray": statistics.gray, "RGB": statistics.colour}
    colours = " and ".join(name for name, counts in kinds.items() if counts.any())
    yield f"images: {statistics.num_images} ({colours})"
    yield from _left_out(statistics)
    yield f"mean of channels in [-1, 1]: {_numbers(mean)}"
    yield f"std of channels in [-1, 1]: {_numbers(std)}"
    yield f"suggested sigma_data: {statistics.sigma_data():.4f}"
    yield f"sizes: {len(statistics.sizes)}"
    sizes = {f"{width}x{height}": num for (width, height), num in statistics.sizes.items()}
    yield from _most(Counter(sizes), "sizes")
    if not statistics.num_labelled:
        yield "labels: none"
        return
    what = "elements that are not 0" if statistics.has_vectors else "classes"
    yield f"labels: {statistics.num_labelled} images; {what}: {len(statistics.classes)}"
    if num := statistics.num_images - statistics.num_labelled:
        yield f"without a label: {num} images"
    names = statistics.label_names or []
    if not statistics.has_vectors and (absent := absent_classes(statistics.classes.keys(), names)):
        yield absent
    classes = {
        f"{number} {names[number]}" if number < len(names) else str(number): num
        for number, num in sorted(statistics.classes.items())
    }
    yield from _most(Counter(classes), what)
