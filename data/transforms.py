"""How dataset_tool.py brings an image to size: EDM's three transforms, published CelebA crops.

Each takes a uint8 image [H, W] or [H, W, 3] and returns one, or None for "leave it out". The
conversions to gray and RGB are here, too.
"""

import functools
from collections.abc import Callable, Mapping

import numpy as np
import PIL.Image

from torch_utils.errors import UserError

Transform = Callable[[np.ndarray, int, int], np.ndarray | None]


def _resize(
    image: np.ndarray,
    width: int,
    height: int,
    method: PIL.Image.Resampling = PIL.Image.Resampling.LANCZOS,
) -> np.ndarray:
    return np.asarray(PIL.Image.fromarray(image).resize((width, height), method))


def _to_rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image


def _to_gray(image: np.ndarray) -> np.ndarray:
    """The luma of ITU-R 601; an RGB image that is gray keeps its values."""
    return image if image.ndim == 2 else np.asarray(PIL.Image.fromarray(image).convert("L"))


def scale(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize to exactly width x height; an image of that size stays as it is, gray stays gray."""
    if image.shape[:2] == (height, width):
        return image
    return _resize(image, width, height)


def bilinear(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize to exactly width x height, bilinear: MNIST in published DDPM and v-diffusion code."""
    return _resize(image, width, height, PIL.Image.Resampling.BILINEAR)


def center_crop(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Cut the central square of the shorter side and resize it to width x height, RGB."""
    rows, columns = image.shape[:2]
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    square = image[top : top + side, left : left + side]
    return _resize(_to_rgb(square), width, height)


def center_crop_wide(image: np.ndarray, width: int, height: int) -> np.ndarray | None:
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
    rows, columns = image.shape[:2]
    crop_rows = round(width * rows / columns)
    if columns < width or crop_rows < height:
        return None
    top = (rows - crop_rows) // 2
    strip = _resize(_to_rgb(image[top : top + crop_rows]), width, height)
    canvas = np.zeros((width, width, 3), np.uint8)
    margin = (width - height) // 2
    canvas[margin : margin + height] = strip
    return canvas


# The size of aligned CelebA, and the published squares of it: top, left, side.
_CELEBA_SIZE = (218, 178)
_CELEBA_CROPS: Mapping[str, tuple[int, int, int]] = {
    "celeba-128": (57, 25, 128),  # DDIM (Song et al. 2021) and SA-DPM
    "celeba-148": (40, 15, 148),  # v-diffusion
}


def celeba_crop(image: np.ndarray, width: int, height: int, *, name: str) -> np.ndarray:
    """Cut a published square out of an aligned CelebA image; resize it, bilinear as published.

    Raises:
        UserError: the image has another size than 178x218.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) != _CELEBA_SIZE:
        raise UserError(f"{name} is for aligned CelebA, 178x218 pixels, not {columns}x{rows}")
    top, left, side = _CELEBA_CROPS[name]
    square = image[top : top + side, left : left + side]
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
CHANNELS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"rgb": _to_rgb, "gray": _to_gray}
