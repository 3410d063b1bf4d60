"""Pictures: from model range to uint8, to PNG bytes, to one grid.

Only numpy and Pillow, so that data and metrics can use it without torch.
"""

import io
import os
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw

from torch_utils.files import replacing


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


def save_grid(
    path: str | os.PathLike[str],
    images: np.ndarray,
    num_columns: int,
    *,
    row_names: Sequence[str] = (),
    min_side: int = 32,
    gap: int = 2,
) -> None:
    """Write a grid of images as one PNG, enlarged by a whole factor so that small ones are seen.

    Args:
        path: the PNG to write.
        images: uint8 [N, C, H, W], row by row; the last row may be short.
        num_columns: images in a row.
        row_names: a name to print left of each row; empty for none.
        min_side: enlarge until the shorter side of an image has at least this many pixels.
        gap: pixels between images.
    """
    num, _, height, width = images.shape
    num_rows = -(-num // num_columns)
    factor = max(1, -(-min_side // min(height, width)))
    cell_h, cell_w = height * factor + gap, width * factor + gap
    margin = (8 * max(map(len, row_names)) + 8) if row_names else 0
    grid = PIL.Image.new(
        "RGB", (margin + num_columns * cell_w + gap, num_rows * cell_h + gap), "white"
    )
    for index, image in enumerate(images):
        row, column = divmod(index, num_columns)
        picture = to_picture(image).convert("RGB")
        picture = picture.resize((width * factor, height * factor), PIL.Image.Resampling.NEAREST)
        grid.paste(picture, (margin + gap + column * cell_w, gap + row * cell_h))
    draw = PIL.ImageDraw.Draw(grid)
    for row, name in enumerate(row_names[:num_rows]):
        draw.text((4, gap + row * cell_h + cell_h // 2), name, fill="black", anchor="lm")
    with replacing(path) as temporary:
        grid.save(temporary, format="png")


def save_grid_of(
    files: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    num_columns: int,
    *,
    row_names: Sequence[str] = (),
) -> None:
    """`save_grid` of pictures that lie in files, all of one size."""
    images = []
    for file in files:
        with PIL.Image.open(file) as picture:
            images.append(from_picture(picture))
    save_grid(path, np.stack(images), num_columns, row_names=row_names)
