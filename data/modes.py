"""The rule for colour modes: every picture becomes 8-bit gray (L) or RGB, upright.

- L and RGB stay as they are; bilevel (1) becomes L; CMYK, YCbCr and HSV become RGB.
- Palette images (P) become RGB, even if the palette is gray.
- Alpha (LA, RGBA, PA, palette transparency) is composited on black.
- The EXIF orientation is applied; of an animation the first frame is taken.
- More than 8 bits a channel, and any other mode, is refused by file name.
"""

from collections.abc import Callable, Mapping

import numpy as np
import PIL.Image

from data.decoding import orientation
from torch_utils.errors import UserError

# An upright image: uint8 [H, W] or [H, W, 3], or a picture in mode L or RGB
Plain = np.ndarray | PIL.Image.Image

# EXIF orientation -> what makes an image [H, W, ...] upright
_UPRIGHT: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image),
}
_TARGET_MODES = {"1": "L", "L": "L", "LA": "L", "La": "L"} | dict.fromkeys(
    ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV"), "RGB"
)
_STRIPE = 2**22  # pixels
_STRAIGHT_ALPHA = {"La": "LA", "RGBa": "RGBA"}


def plain_picture(picture: PIL.Image.Image, where: str) -> Plain:
    """As `to_plain`, but a picture of usual size that is plain already is returned as it is.

    A part of it can then be cut out without an array of the whole, which takes as long as to
    decode half of a photograph. The array of a large one is made part by part.
    """
    target = _TARGET_MODES.get(picture.mode)
    is_plain = picture.mode == target and not picture.has_transparency_data
    if is_plain and picture.width * picture.height <= _STRIPE and orientation(picture) == 1:
        return picture
    return to_plain(picture, where)


def to_plain(picture: PIL.Image.Image, where: str) -> np.ndarray:
    """Bring a picture of any mode to gray or RGB, by the rule at the top of this module.

    Args:
        picture: the decoded picture.
        where: the file's name, for messages.

    Returns:
        uint8 [H, W] or [H, W, 3].

    Raises:
        UserError: there is no rule for the mode.
    """
    target = _TARGET_MODES.get(picture.mode)
    if target is None:
        raise UserError(f"{where} has the colour mode {picture.mode}: convert it to RGB first")
    turn = _UPRIGHT.get(orientation(picture))
    image = _pixels(picture, target)
    return image if turn is None else np.ascontiguousarray(turn(image))


def _pixels(picture: PIL.Image.Image, target: str) -> np.ndarray:
    """A picture in the target mode; a large one part by part, as each step makes a copy of it."""
    width, height = picture.size
    rows = max(1, _STRIPE // width)
    if rows >= height:
        return np.asarray(_plain_mode(picture, target))
    image = np.empty((height, width) if target == "L" else (height, width, 3), np.uint8)
    for top in range(0, height, rows):
        stripe = picture.crop((0, top, width, min(top + rows, height)))
        image[top : top + rows] = np.asarray(_plain_mode(stripe, target))
    return image


def _plain_mode(picture: PIL.Image.Image, target: str) -> PIL.Image.Image:
    if not picture.has_transparency_data:
        return picture if picture.mode == target else picture.convert(target)
    if picture.mode in _STRAIGHT_ALPHA:
        picture = picture.convert(_STRAIGHT_ALPHA[picture.mode])
    picture = picture.convert("RGBA")
    black = PIL.Image.new("RGBA", picture.size, (0, 0, 0, 255))
    picture = PIL.Image.alpha_composite(black, picture).convert("RGB")
    return picture.getchannel(0) if target == "L" else picture  # all three are the gray value
