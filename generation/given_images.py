"""Images that a mode works on, from any source that dataset_tool.py reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data.archive import Label
from data.shapes import describe_shape, remedy
from data.sources import open_source
from data.sources.interface import Source
from diffusion.denoiser import device_of
from generation.setup import Setup
from samplers.generate import to_float
from samplers.labels import LabelSource
from samplers.starts import Sample, check_samples
from torch_utils.devices import upload
from torch_utils.errors import UserError


@dataclass(frozen=True)
class GivenImages:
    """Images of the model's shape, read when they are used.

    Attributes:
        path: of the source.
        source: reads them.
        shape: (C, H, W) of the model's images.
        num_seeds: seeds; seed number i works on image i, counted round.
        classes: the model's class of each of the source's, if both have names.
        has_labels: whether the labels of the source are used.
    """

    path: str
    source: Source
    shape: tuple[int, int, int]
    num_seeds: int
    classes: Sequence[int]
    has_labels: bool

    def index(self, position: int) -> int:
        """The image that belongs to a position in `Setup.requested`."""
        return position % self.num_seeds % len(self.source)

    def image(self, position: int) -> np.ndarray:
        """Read the image of a position: uint8 [C, H, W].

        Raises:
            UserError: it cannot be read, or has another shape than the model's images.
        """
        return self._read(position)[0]

    def batch(
        self, setup: Setup, positions: Sequence[int], dtype: torch.dtype
    ) -> tuple[list[Sample], Tensor]:
        """Read the images of some positions.

        Args:
            setup: opened and checked.
            positions: in `Setup.requested`.
            dtype: of the images.

        Returns:
            Samples, with the labels of the images if those are used; and the images in [-1, 1],
            [N, C, H, W], on the model's device.
        """
        found = [self._read(position) for position in positions]
        samples = [
            self._labelled(setup.requested[position][0], label)
            for position, (_, label) in zip(positions, found, strict=True)
        ]
        check_samples(samples, setup.source.dim, setup.source)
        images = to_float(torch.from_numpy(np.stack([image for image, _ in found])))
        return samples, upload(images.to(dtype), device_of(setup.sampling.denoiser))

    def _read(self, position: int) -> tuple[np.ndarray, Label | None]:
        index = self.index(position)
        pixels, label = self.source.read(index)
        image = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if image.shape != self.shape:
            raise UserError(
                f"{self.source.where(index)} has {describe_shape(image.shape)}, the model's images "
                f"{describe_shape(self.shape)}: convert them with dataset_tool.py "
                f"{remedy(image.shape, self.shape)}"
            )
        return image, label

    def _labelled(self, sample: Sample, label: Label | None) -> Sample:
        if not self.has_labels or label is None:
            return sample
        if isinstance(label, list):
            return replace(sample, label=label)
        return replace(sample, class_index=self.classes[int(label)] if self.classes else int(label))


def open_images(setup: Setup, path: str) -> tuple[GivenImages, list[str]]:
    """Open the images of `--images`.

    Args:
        setup: opened and checked.
        path: any source of images.

    Returns:
        The images, and a warning if they have labels that the model does not know.

    Raises:
        UserError: the path cannot be used, or the first image has another shape than the model's.
    """
    source = open_source(path)
    label = source.read(0)[1]
    has_labels, warnings = False, []
    classes: tuple[int, ...] = ()
    asks = bool(setup.asked.words.given) or setup.sampling.ignores_labels
    if label is not None and setup.source.dim and not asks:
        found = _classes(source, label, setup.source)
        has_labels = found is not None
        if found is None:
            warnings.append(
                f"the labels of {path} are not the model's: labels are drawn from the seeds"
            )
        else:
            classes = found
    images = GivenImages(
        path, source, setup.image_shape, len(setup.asked.seeds), classes, has_labels
    )
    images.image(0)
    return images, warnings


def _classes(source: Source, label: Label, known: LabelSource) -> tuple[int, ...] | None:
    """The model's classes of a source's, empty if they are the same; None if labels differ."""
    if isinstance(label, list) or not known.is_class:
        is_same = isinstance(label, list) and not known.is_class and len(label) == known.dim
        is_same = is_same and (not known.names or source.label_names in (None, [*known.names]))
        return () if is_same else None
    if not known.names or not source.label_names:
        return ()
    if not set(source.label_names) <= set(known.names):
        return None
    return tuple([*known.names].index(name) for name in source.label_names)


def one_seed_each(setup: Setup, num: int, what: str) -> tuple[Setup, list[str]]:
    """Drop the seeds that have no partner.

    Args:
        setup: opened and checked.
        num: how many partners there are.
        what: a partner is called.

    Returns:
        The setup with the seeds that have one, and a line if some seed or partner has none.
    """
    seeds = setup.asked.seeds
    if len(seeds) == num:
        return setup, []
    if len(seeds) < num:
        return setup, [f"{len(seeds):,} of {num:,} {what}s are used, one for each seed"]
    kept = [pair for i, pair in enumerate(setup.requested) if i % len(seeds) < num]
    remark = f"{num:,} of {len(seeds):,} seeds are used, one for each {what}"
    asked = replace(setup.asked, seeds=seeds[:num])
    return replace(setup, asked=asked, requested=kept), [remark]
