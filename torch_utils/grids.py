"""Many pictures in one: a grid with names, small images enlarged by a whole factor.

Every picture that shows several images is drawn here: grids, strips, frames of animations.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.PngImagePlugin

from torch_utils.files import replacing
from torch_utils.grid_layout import MOST_PIXELS, Layout, Names, lay_out
from torch_utils.images import LINE, as_rgb, num_panels, png_bound

_MARK = ("Software", "Driftless grid")  # keyword and text by which a grid is known


class Images(Protocol):
    """Images by position, uint8 [C, H, W] of one shape; None for a place that stays empty."""

    def __len__(self) -> int:
        """How many places there are."""

    def __getitem__(self, index: int, /) -> np.ndarray | None:
        """One image."""


def square_columns(num_images: int, num_channels: int) -> int:
    """How many images in a row make a grid about as wide as high."""
    return math.ceil(math.sqrt(num_images / num_panels(num_channels)))


def grid_bound(num_images: int, shape: tuple[int, int, int]) -> int:
    """The most bytes that `save_grid` makes of images of shape (C, H, W), noise included.

    Enlarged noise takes up to half as much again as the noise itself, measured.
    """
    channels, height, width = shape
    images = num_images * png_bound((3, height, num_panels(channels) * width)) * 3 // 2
    return min(images, png_bound((3, 1, MOST_PIXELS))) + (1 << 16)  # for names


def grid_picture(
    images: Images,
    num_columns: int,
    *,
    row_names: Sequence[str] = (),
    row_numbers: Sequence[int] = (),
    column_names: Sequence[str] = (),
    title: str = "",
    min_side: int = 64,
    min_width: int = 0,
    gap: int = 2,
) -> PIL.Image.Image:
    """Draw a grid of images, enlarged by a whole factor so that small ones are seen.

    The factor is smaller if the picture would have more than 4,096 pixels in width or 16,384 in
    height. What makes a picture of factor 1 larger than programs open (32,000 pixels a side, 89
    million in all) is left out: the last columns, then the last rows.

    Args:
        images: row by row, at least one that is not None; the last row may be short. See `as_rgb`
            for images that are neither gray nor RGB.
        num_columns: images in a row.
        row_names: printed left of each row, in any script; empty for rows without names. A name
            that is too long is cut.
        row_numbers: printed in place of names that cannot be; by default the numbers of the rows.
        column_names: printed above the columns, likewise.
        title: a line above all; it widens a narrow picture.
        min_side: enlarge until the shorter side of an image has at least this many pixels.
        min_width: pixels that the picture has at least, for frames with titles of several lengths.
        gap: pixels between images.

    Returns:
        A picture in RGB.
    """
    names = Names(row_names, row_numbers, column_names, title)
    layout = lay_out(
        *(_shape(images), len(images), num_columns, names),
        min_side=min_side,
        min_width=min_width,
        gap=gap,
    )
    return _drawn(images, layout)


def save_grid(
    path: str | os.PathLike[str],
    images: Images,
    num_columns: int,
    *,
    row_names: Sequence[str] = (),
    row_numbers: Sequence[int] = (),
    column_names: Sequence[str] = (),
    title: str = "",
    text: Mapping[str, str] | None = None,
    min_side: int = 64,
    gap: int = 2,
) -> int:
    """Write the picture of `grid_picture` as PNG, whole or not at all.

    Args:
        path: the PNG to write.
        images: as for `grid_picture`, and the other arguments.
        num_columns: images in a row.
        row_names: printed left of the rows.
        row_numbers: printed in place of names that cannot be.
        column_names: printed above the columns.
        title: a line above all.
        text: metadata of the PNG beside its mark as a grid: keyword -> text.
        min_side: enlarge until the shorter side of an image has at least this many pixels.
        gap: pixels between images.

    Returns:
        How many images (and empty places) are in the picture; fewer than there are if it would
        become too large.
    """
    names = Names(row_names, row_numbers, column_names, title)
    layout = lay_out(
        *(_shape(images), len(images), num_columns, names), min_side=min_side, min_width=0, gap=gap
    )
    picture = _drawn(images, layout)
    with replacing(path) as temporary:
        picture.save(temporary, format="png", pnginfo=_png_text(text or {}))
    return len(layout.images)


def is_grid(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a PNG that `save_grid` wrote, by its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(128)
    except OSError:
        return False
    return b"tEXt" + b"\0".join(part.encode() for part in _MARK) in head


def _shape(images: Images) -> tuple[int, int, int]:
    """(C, H, W) of the first image that is there."""
    found = (images[index] for index in range(len(images)))
    channels, height, width = next(image.shape for image in found if image is not None)
    return channels, height, width


def _drawn(images: Images, layout: Layout) -> PIL.Image.Image:
    """The picture of a layout."""
    grid = PIL.Image.new("RGB", (layout.width, layout.height), "white")
    draw = PIL.ImageDraw.Draw(grid)
    for index, (left, top) in layout.images:
        image = images[index]
        if image is None:
            continue
        picture = PIL.Image.fromarray(
            np.ascontiguousarray(as_rgb(image, layout.factor).transpose(1, 2, 0))
        )
        if layout.has_frames:
            box = left - 1, top - 1, left + picture.width, top + picture.height
            draw.rectangle(box, outline=(LINE, LINE, LINE))
        grid.paste(picture, (left, top))
    for text, font, corner in layout.words:
        draw.text(corner, text, fill="black", font=font)
    return grid


def _png_text(text: Mapping[str, str]) -> PIL.PngImagePlugin.PngInfo:
    """Text chunks, the mark first; long ones compressed, as in grids of many seeds."""
    info = PIL.PngImagePlugin.PngInfo()
    for key, value in {_MARK[0]: _MARK[1], **text}.items():
        info.add_text(key, value, zip=len(value) > 1000)
    return info
