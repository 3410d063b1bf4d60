"""Masks of inpainting: which pixels are known."""

import os
from collections.abc import Callable

import numpy as np

from data.archive import MAX_FILE_BYTES
from data.decoding import open_picture
from data.modes import to_plain
from data.sources import open_source
from torch_utils.bounded import read_file
from torch_utils.errors import UserError

_WHITE = 128  # the least byte that counts as white


def open_masks(path: str, resolution: tuple[int, int]) -> Callable[[int], np.ndarray]:
    """Open the masks of `--mask`.

    Args:
        path: a picture for all images, or a source of one for each image.
        resolution: (height, width) of the model's images.

    Returns:
        Number of an image -> bool [1, H, W], true for pixels that are known: the black ones.

    Raises:
        UserError: the path cannot be used, or the first mask has another size.
    """
    if os.path.isfile(path) and not path.lower().endswith(".zip"):
        try:
            content = read_file(path, MAX_FILE_BYTES)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        single = _known(to_plain(open_picture(content, path), path), path, resolution)
        return lambda index: single
    source = open_source(path)

    def read(index: int) -> np.ndarray:
        number = index % len(source)
        return _known(source.read(number)[0], source.where(number), resolution)

    read(0)
    return read


def _known(picture: np.ndarray, where: str, resolution: tuple[int, int]) -> np.ndarray:
    """Black pixels of a picture [H, W] or [H, W, 3]; a coloured one counts by its mean."""
    height, width = picture.shape[:2]
    if (height, width) != resolution:
        raise UserError(
            f"the mask {where} has {width}x{height} pixels, the model's images "
            f"{resolution[1]}x{resolution[0]}: make the mask as large as the images"
        )
    gray = picture if picture.ndim == 2 else picture.mean(axis=2)
    is_known: np.ndarray = gray[None] < _WHITE
    return is_known
