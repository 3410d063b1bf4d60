"""One picture: from uint8 to Pillow and back, to PNG, and to RGB whatever its channels are.

Only numpy and Pillow, so that data and metrics can use it without torch. Grids of pictures are in
`torch_utils.grids`.
"""

import os
import struct
import zlib

import numpy as np
import PIL.Image

from torch_utils.files import replacing

LINE = 192  # gray of lines around and within images: seen beside black and white
_PNG_BLOCK = 2**16  # bytes of packed pixels in a part of a PNG, or four for each pixel of a row


def to_picture(image: np.ndarray) -> PIL.Image.Image:
    """Turn one uint8 image [C, H, W] with 1 or 3 channels into a Pillow picture (L or RGB)."""
    return picture_of(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def picture_of(pixels: np.ndarray) -> PIL.Image.Image:
    """Turn uint8 [H, W] or [H, W, 3] into a Pillow picture (L or RGB)."""
    assert pixels.dtype == np.uint8, pixels.dtype
    assert pixels.ndim == 2 or pixels.shape[2:] == (3,), pixels.shape
    mode = "L" if pixels.ndim == 2 else "RGB"
    return PIL.Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), pixels.tobytes())


def from_picture(picture: PIL.Image.Image) -> np.ndarray:
    """The pixels of a Pillow picture (L or RGB) as uint8 [C, H, W]."""
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def png_bytes(image: np.ndarray, compress_level: int = 6) -> bytes:
    """Encode one uint8 image [C, H, W] as PNG.

    The bytes are those that Pillow saves; its own way there takes longer for a small image.
    """
    return picture_png(to_picture(image), compress_level)


def picture_png(picture: PIL.Image.Image, compress_level: int = 6) -> bytes:
    """Encode a Pillow picture (L or RGB) as PNG, as `png_bytes` does."""
    # as Pillow saves it: no search for the best way, zlib's usual one, no dictionary
    packed = picture.tobytes("zip", picture.mode, False, compress_level, -1, b"")
    block = max(_PNG_BLOCK, 4 * picture.width)
    colours = 0 if picture.mode == "L" else 2
    header = struct.pack(">2I5B", picture.width, picture.height, 8, colours, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _png_part(b"IHDR", header),
            *(
                _png_part(b"IDAT", packed[first : first + block])
                for first in range(0, len(packed), block)
            ),
            _png_part(b"IEND", b""),
        )
    )


def _png_part(name: bytes, content: bytes) -> bytes:
    part = name + content
    return len(content).to_bytes(4, "big") + part + zlib.crc32(part).to_bytes(4, "big")


def save_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write one uint8 image [C, H, W] as PNG, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(png_bytes(image))


def png_bound(shape: tuple[int, int, int]) -> int:
    """The most bytes that `png_bytes` makes of an image of shape (C, H, W), noise included."""
    channels, height, width = shape
    rows = height * (1 + width * channels)
    # deflate stores what does not compress, in parts with 12 bytes around each
    return rows + rows // 512 + 12 * (rows // _PNG_BLOCK) + 256


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
