"""How dataset_tool.py brings an image to size: EDM's three transforms, published CelebA crops.

Each takes a plain image (`data.modes`) and returns one, of an array an array, or None for "leave it
out". The conversions to gray and RGB are here, too.
"""

import functools
from collections.abc import Callable, Mapping

import numpy as np
import PIL.Image

from data.modes import Plain
from torch_utils.errors import UserError
from torch_utils.images import picture_of

Transform = Callable[[Plain, int, int], Plain | None]


def _size(image: Plain) -> tuple[int, int]:
    """Rows and columns."""
    if isinstance(image, np.ndarray):
        return image.shape[0], image.shape[1]
    return image.height, image.width


def _cut(image: Plain, top: int, left: int, rows: int, columns: int) -> Plain:
    if isinstance(image, np.ndarray):
        return image[top : top + rows, left : left + columns]
    return image.crop((left, top, left + columns, top + rows))


def _resize(
    image: Plain,
    width: int,
    height: int,
    method: PIL.Image.Resampling = PIL.Image.Resampling.LANCZOS,
) -> Plain:
    if isinstance(image, np.ndarray):
        return np.asarray(picture_of(image).resize((width, height), method))
    return image.resize((width, height), method)


def _to_rgb(image: Plain) -> Plain:
    if isinstance(image, np.ndarray):
        return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_gray(image: Plain) -> Plain:
    """The luma of ITU-R 601; an RGB image that is gray keeps its values."""
    if isinstance(image, np.ndarray):
        return image if image.ndim == 2 else np.asarray(picture_of(image).convert("L"))
    return image if image.mode == "L" else image.convert("L")


def scale(image: Plain, width: int, height: int) -> Plain:
    """Resize to exactly width x height; an image of that size stays as it is, gray stays gray."""
    if _size(image) == (height, width):
        return image
    return _resize(image, width, height)


def bilinear(image: Plain, width: int, height: int) -> Plain:
    """Resize to exactly width x height, bilinear: MNIST in published DDPM and v-diffusion code."""
    return _resize(image, width, height, PIL.Image.Resampling.BILINEAR)


def center_crop(image: Plain, width: int, height: int) -> Plain:
    """Cut the central square of the shorter side and resize it to width x height, RGB."""
    rows, columns = _size(image)
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    return _to_rgb(_resize(_cut(image, top, left, side, side), width, height))


def center_crop_wide(image: Plain, width: int, height: int) -> Plain | None:
    """Cut central rows, resize to width x height and centre on a black width x width square, RGB.

    As published, round(width * rows / columns) rows are cut; an image narrower than `width`, or
    one for which that number is below `height`, is left out.

    Raises:
        UserError: the height is larger than the width.
    """
    if height > width:
        raise UserError(
            f"center-crop-wide needs a resolution at least as wide as high, not {width}x{height}"
        )
    rows, columns = _size(image)
    crop_rows = round(width * rows / columns)
    if columns < width or crop_rows < height:
        return None
    top = (rows - crop_rows) // 2
    strip = _to_rgb(_resize(_cut(image, top, 0, crop_rows, columns), width, height))
    canvas = np.zeros((width, width, 3), np.uint8)
    margin = (width - height) // 2
    canvas[margin : margin + height] = np.asarray(strip)
    return canvas


# The size of aligned CelebA, and the published squares of it: top, left, side.
_CELEBA_SIZE = (218, 178)
_CELEBA_CROPS: Mapping[str, tuple[int, int, int]] = {
    "celeba-128": (57, 25, 128),  # DDIM (Song et al. 2021) and SA-DPM
    "celeba-148": (40, 15, 148),  # v-diffusion
}


def celeba_crop(image: Plain, width: int, height: int, *, name: str) -> Plain:
    """Cut a published square out of an aligned CelebA image; resize it, bilinear as published.

    Raises:
        UserError: the image has another size than 178x218.
    """
    rows, columns = _size(image)
    if (rows, columns) != _CELEBA_SIZE:
        raise UserError(f"{name} is for aligned CelebA, 178x218 pixels, not {columns}x{rows}")
    top, left, side = _CELEBA_CROPS[name]
    square = _cut(image, top, left, side, side)
    if (height, width) == (side, side):
        return square
    return _resize(square, width, height, PIL.Image.Resampling.BILINEAR)


TRANSFORMS: Mapping[str, Transform] = {
    "none": scale,
    "center-crop": center_crop,
    "center-crop-wide": center_crop_wide,
    "bilinear": bilinear,
    **{name: functools.partial(celeba_crop, name=name) for name in _CELEBA_CROPS},
}
# These cut off a margin of zeros first.
UNPADDED = frozenset({"bilinear"})
# The size that a transform gives without --resolution; other transforms need that option.
NATURAL_SIZES: Mapping[str, tuple[int, int]] = {
    name: (side, side) for name, (_, _, side) in _CELEBA_CROPS.items()
}
# --channels of dataset_tool.py.
CHANNELS: Mapping[str, Callable[[Plain], Plain]] = {"rgb": _to_rgb, "gray": _to_gray}
