"""The rule for colour modes: every picture becomes 8-bit gray (L) or RGB, upright.

- L and RGB stay as they are; bilevel (1) becomes L; CMYK, YCbCr and HSV become RGB.
- Palette images (P) become RGB, also if the palette is gray.
- Alpha (LA, RGBA, PA, palette transparency) is composited on black and gone.
- The EXIF orientation is applied; of an animation the first frame is taken.
- More than 8 bits a channel, and any other mode, is refused by file name.
"""

import numpy as np
import PIL.Image

from data.decoding import orientation
from torch_utils.errors import UserError

_UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
_TARGET_MODES = {"1": "L", "L": "L", "LA": "L", "La": "L"} | dict.fromkeys(
    ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV"), "RGB"
)
_STRAIGHT_ALPHA = {"La": "LA", "RGBa": "RGBA"}


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
    method = _UPRIGHT.get(orientation(picture))
    if picture.mode in _STRAIGHT_ALPHA:
        picture = picture.convert(_STRAIGHT_ALPHA[picture.mode])
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        black = PIL.Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = PIL.Image.alpha_composite(black, picture).convert("RGB")
        if target == "L":
            picture = picture.getchannel(0)  # all three are the gray value
    elif picture.mode != target:
        picture = picture.convert(target)
    if method is not None:
        picture = picture.transpose(method)
    return np.asarray(picture)
