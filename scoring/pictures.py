"""Grids of images for a page: each image a PNG within it, small ones enlarged by the browser."""

import base64
from dataclasses import dataclass

import numpy as np
import PIL.Image

from torch_utils.images import as_rgb, from_picture, num_panels, png_bytes, to_picture

MOST = 64  # images of a grid
_COLUMNS = 8
_ENLARGED = 64  # pixels that an enlarged image has at most
_REDUCED = 128  # pixels of the longer side to which larger images are reduced


@dataclass(frozen=True)
class Grid:
    """Images of one set.

    Attributes:
        sources: `data:` addresses.
        width: of an image on the page, in its pixels.
        height: likewise.
        num_columns: images in a row, where the page has room for them.
        is_enlarged: by the browser, by a whole factor, each pixel a square.
        remarks: what was done to them, each a few words.
    """

    sources: list[str]
    width: int
    height: int
    num_columns: int
    is_enlarged: bool
    remarks: list[str]


def grid_of(images: np.ndarray) -> Grid:
    """Make PNGs of images.

    Args:
        images: uint8 [N, C, H, W]; those after the first 64 are left out.
    """
    assert images.dtype == np.uint8, images.dtype
    num_channels, height, width = images.shape[1:]
    shown = images[:MOST]
    remarks = [f"{width} × {height} pixels"]
    if len(images) > MOST:
        remarks.append(f"the first {MOST} of {len(images):,}")
    parts = num_panels(num_channels)
    if parts > 1:
        remarks.append(f"{num_channels} channels side by side")
    longer = max(height, width)
    factor = max(1, _ENLARGED // longer)
    if factor > 1:
        remarks.append(f"enlarged {factor} times")
    if longer > _REDUCED:
        size = max(1, width * _REDUCED // longer), max(1, height * _REDUCED // longer)
        remarks.append(f"reduced to {size[0]} × {size[1]}")
        shown = np.stack([_resized(image, size) for image in shown])
    if parts > 1:
        shown, factor = np.stack([as_rgb(image, factor) for image in shown]), 1
    height, width = (side * factor for side in shown.shape[2:])
    sources = [_address(image) for image in shown]
    columns = min(max(1, _COLUMNS // parts), len(shown))
    return Grid(sources, width, height, columns, factor > 1, remarks)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    resized = [
        from_picture(to_picture(part).resize(size, PIL.Image.Resampling.LANCZOS))
        for part in np.split(image, num_panels(len(image)))
    ]
    return np.concatenate(resized)


def _address(image: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode("ascii")
