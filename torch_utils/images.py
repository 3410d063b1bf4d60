"""One picture: from uint8 to Pillow and back, to PNG, and to RGB whatever its channels are.

Only numpy and Pillow, so that data and metrics can use it without torch. Grids of pictures are in
`torch_utils.grids`.
"""

import io
import os

import numpy as np
import PIL.Image

from torch_utils.files import replacing

LINE = 192  # gray of lines around and within images: seen beside black and white


def to_picture(image: np.ndarray) -> PIL.Image.Image:
    """Turn one uint8 image [C, H, W] with 1 or 3 channels into a Pillow picture (L or RGB)."""
    channels = image.shape[0]
    assert image.dtype == np.uint8, image.dtype
    assert channels in (1, 3), image.shape
    return PIL.Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0))


def from_picture(picture: PIL.Image.Image) -> np.ndarray:
    """The pixels of a Pillow picture (L or RGB) as uint8 [C, H, W]."""
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def png_bytes(image: np.ndarray, compress_level: int = 6) -> bytes:
    """Encode one uint8 image [C, H, W] as PNG."""
    buffer = io.BytesIO()
    to_picture(image).save(buffer, format="png", compress_level=compress_level)
    return buffer.getvalue()


def save_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write one uint8 image [C, H, W] as PNG, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(png_bytes(image))


def png_bound(shape: tuple[int, int, int]) -> int:
    """The most bytes that `png_bytes` makes of an image of shape (C, H, W), noise included."""
    channels, height, width = shape
    rows = height * (1 + width * channels)
    # deflate stores what does not compress; Pillow writes it in chunks of 64 KB
    return rows + rows // 512 + 12 * (rows // 65536) + 256


def num_panels(num_channels: int) -> int:
    """How many panels `as_rgb` makes of an image: one of gray and RGB, else one a channel."""
    return 1 if num_channels in (1, 3) else num_channels


def as_rgb(image: np.ndarray, factor: int = 1) -> np.ndarray:
    """An image of any number of channels as RGB.

    Gray is repeated, and RGB stays as it is. Of other images, all channels are shown side by side
    in gray, the first one on the left, with a gray line of one pixel between them.

    Args:
        image: uint8 [C, H, W].
        factor: each pixel becomes a square of so many pixels a side; the lines do not.

    Returns:
        uint8 [3, H * factor, num_panels * (W * factor + 1) - 1].
    """
    assert image.dtype == np.uint8, image.dtype
    large = image.repeat(factor, axis=1).repeat(factor, axis=2)
    num = num_panels(len(large))
    if num > 1:
        lined = np.pad(large, ((0, 0), (0, 0), (0, 1)), constant_values=LINE)
        large = np.concatenate(list(lined), axis=1)[None, :, :-1]
    return np.broadcast_to(large, (3, *large.shape[1:]))
