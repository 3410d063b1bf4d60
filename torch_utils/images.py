"""Pictures: from model range to uint8, to PNG bytes, to one grid.

Only numpy and Pillow, so that data and metrics can use it without torch.
"""

import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.PngImagePlugin

from torch_utils.files import replacing
from torch_utils.fonts import Font, drawable

_MARK = ("Software", "Driftless grid")  # keyword and text by which a grid is known
_MOST_LABEL = 240  # pixels that a row's name may take


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


def save_grid(
    path: str | os.PathLike[str],
    images: Iterable[np.ndarray | None],
    num_columns: int,
    *,
    row_names: Sequence[str] = (),
    row_numbers: Sequence[int] = (),
    text: Mapping[str, str] | None = None,
    min_side: int = 32,
    gap: int = 2,
) -> None:
    """Write a grid of images as one PNG, enlarged by a whole factor so that small ones are seen.

    Args:
        path: the PNG to write.
        images: uint8 [C, H, W] each, row by row, at least one; None leaves a place empty, and the
            last row may be short.
        num_columns: images in a row.
        row_names: a name to print left of each row, in any script; empty for rows without names.
        row_numbers: printed in place of names that cannot be; by default the numbers of the rows.
        text: metadata of the PNG beside its mark as a grid: keyword -> text.
        min_side: enlarge until the shorter side of an image has at least this many pixels.
        gap: pixels between images.
    """
    cells = list(images)
    _, height, width = next(image.shape for image in cells if image is not None)
    num_rows = -(-len(cells) // num_columns)
    factor = max(1, -(-min_side // min(height, width)))
    cell_h, cell_w = height * factor + gap, width * factor + gap
    numbers = row_numbers or range(num_rows)
    labels = _labels(row_names[:num_rows], numbers, min(20, max(12, cell_h // 4)))
    margin = max((math.ceil(font.getlength(name)) + 8 for name, font in labels), default=0)
    grid = PIL.Image.new(
        "RGB", (margin + num_columns * cell_w + gap, num_rows * cell_h + gap), "white"
    )
    for index, image in enumerate(cells):
        if image is None:
            continue
        row, column = divmod(index, num_columns)
        picture = to_picture(image).convert("RGB")
        picture = picture.resize((width * factor, height * factor), PIL.Image.Resampling.NEAREST)
        grid.paste(picture, (margin + gap + column * cell_w, gap + row * cell_h))
    draw = PIL.ImageDraw.Draw(grid)
    for row, (name, font) in enumerate(labels):
        place = (4, gap + row * cell_h + cell_h // 2)
        draw.text(place, name, fill="black", anchor="lm", font=font)
    with replacing(path) as temporary:
        grid.save(temporary, format="png", pnginfo=_png_text(text or {}))


def _labels(names: Sequence[str], numbers: Sequence[int], size: int) -> list[tuple[str, Font]]:
    """Names as they are drawn, each with its font, cut to `_MOST_LABEL` pixels."""
    labels = []
    for name, number in zip(names, numbers, strict=False):
        shown, font = drawable(name, str(number), size)
        if font.getlength(shown) > _MOST_LABEL:
            while shown and font.getlength(f"{shown}...") > _MOST_LABEL:
                shown = shown[:-1]
            shown += "..."
        labels.append((shown, font))
    return labels


def _png_text(text: Mapping[str, str]) -> PIL.PngImagePlugin.PngInfo:
    """Text chunks, the mark first; long ones compressed, as in grids of many seeds."""
    info = PIL.PngImagePlugin.PngInfo()
    for key, value in {_MARK[0]: _MARK[1], **text}.items():
        info.add_text(key, value, zip=len(value) > 1000)
    return info


def is_grid(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a PNG that `save_grid` wrote, by its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(128)
    except OSError:
        return False
    return b"tEXt" + b"\0".join(part.encode() for part in _MARK) in head


def save_grid_of(
    files: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    num_columns: int,
    *,
    row_names: Sequence[str] = (),
    row_numbers: Sequence[int] = (),
    text: Mapping[str, str] | None = None,
) -> None:
    """As `save_grid`, of picture files of one size; the place of a missing file stays empty."""

    def pictures() -> Iterator[np.ndarray | None]:
        for file in files:
            if not os.path.exists(file):
                yield None
                continue
            with PIL.Image.open(file) as picture:
                yield from_picture(picture)

    save_grid(
        path, pictures(), num_columns, row_names=row_names, row_numbers=row_numbers, text=text
    )
