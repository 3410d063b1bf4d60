"""Reading the pictures of modes back: the images that are in them, whatever is printed around."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from torch_utils.grid_layout import Names, lay_out


def cells(
    picture: Path | PIL.Image.Image,
    shape: tuple[int, int, int],
    num_images: int,
    num_columns: int,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    min_width: int = 0,
) -> np.ndarray:
    """The images of a picture with these names, uint8 [N, C, H, W], one pixel a square of them."""
    if isinstance(picture, Path):
        with PIL.Image.open(picture) as opened:
            return cells(
                opened.copy(), shape, num_images, num_columns, rows=rows, columns=columns,
                title=title, min_width=min_width,
            )  # fmt: skip
    names = Names(rows, (), columns, title)
    layout = lay_out(shape, num_images, num_columns, names, min_side=64, min_width=min_width, gap=2)
    assert picture.size == (layout.width, layout.height)
    pixels, factor = np.asarray(picture.convert("RGB")), layout.factor
    channels, height, width = shape
    found = []
    for _, (left, top) in layout.images:
        cell = pixels[top : top + height * factor, left : left + width * factor]
        small = cell[::factor, ::factor]
        np.testing.assert_array_equal(cell, small.repeat(factor, 0).repeat(factor, 1))
        found.append(small.transpose(2, 0, 1)[:channels])
    return np.stack(found)
