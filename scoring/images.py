"""Images to score or to compare with: a folder, a dataset zip, or an .npz of samples."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from data.dataset import ImageDataset
from metrics.npz_images import NpzImages, is_npz
from torch_utils.errors import UserError
from torch_utils.grids import is_grid


class Images(Protocol):
    """A set of images of one shape, decoded on demand."""

    @property
    def name(self) -> str:
        """A short name for people."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""

    def __len__(self) -> int: ...

    def batches(
        self, batch_size: int, first: int = 0, stop: int | None = None
    ) -> Iterator[np.ndarray]:
        """The images first <= i < stop in order, uint8 [n, C, H, W]."""

    def content_key(self) -> str:
        """A name for their content, which changes with any image."""


def open_images(path: str, num: int | None = None, seed: int = 0) -> Images:
    """Open images, without the grids that generate.py writes beside them.

    Args:
        path: a folder, a dataset zip, or an .npz of samples in guided-diffusion's form.
        num: how many to use, chosen by the seed; None for all.
        seed: of the choice.

    Raises:
        UserError: they cannot be used, or there are fewer than `num`.
    """
    images: Images
    if is_npz(path):
        images = NpzImages(path)
        if num is not None and num < len(images):
            images = images.subset(num, seed)
    else:
        images = ImageDataset(path, max_size=num, subset_seed=seed, leave_out=own_grids(path))
    if num is not None and len(images) < num:
        raise UserError(
            f"Found {len(images)} images, but expected at least {num}: "
            f"generate more or give --num={len(images)}"
        )
    return images


def own_grids(path: str | os.PathLike[str]) -> frozenset[str]:
    """The grids of generate.py in a folder, which are not images to be scored."""
    found = (file for file in Path(path).rglob("*.png") if is_grid(file))
    return frozenset(file.relative_to(path).as_posix() for file in found)
