"""Where everything of a grid of images goes: how large, how many, which names and how cut.

Names never overlap and never leave the picture: a row is at least as high as the names of rows, a
column at least as wide as the names of columns, and longer names are cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import PIL.ImageFont

from torch_utils.fonts import Font, drawable
from torch_utils.images import num_panels

_WIDE, _TALL = 4096, 16384  # pixels beyond which images are enlarged less
_MOST_SIDE = 32_000  # pixels a side that browsers and viewers show
MOST_PIXELS = 89_000_000  # Pillow warns of larger pictures when it opens them
_MOST_ROW = 240  # pixels that a name left of a row may take
_MOST_COLUMN = 96  # pixels that a name may take above a narrower image
_MOST_TITLE = 480  # pixels to which a title may widen a picture
_PAD = 4  # pixels around names
_APART = 10  # pixels between images of several panels, which are nearer to each other

Corner = tuple[int, int]  # left and top


@dataclass(frozen=True)
class Names:
    """What is printed on a grid.

    Attributes:
        rows: left of the rows; may be fewer than there are.
        row_numbers: in place of names that cannot be printed; empty for the numbers of the rows.
        columns: above the columns.
        title: above all.
    """

    rows: Sequence[str] = ()
    row_numbers: Sequence[int] = ()
    columns: Sequence[str] = ()
    title: str = ""


@dataclass(frozen=True)
class Layout:
    """Sizes and places, in pixels.

    Attributes:
        factor: by which images are enlarged.
        has_frames: there is room for a line around each image.
        width: of the picture.
        height: of the picture.
        images: position and corner of every image that is in the picture.
        words: text, font and corner, from which it is drawn, of every name.
    """

    factor: int
    has_frames: bool
    width: int
    height: int
    images: list[tuple[int, Corner]]
    words: list[tuple[str, Font, Corner]]


@dataclass(frozen=True)
class _Word:
    """A name as it is drawn. Lengths are those of its ink."""

    text: str
    font: Font
    left: int  # from the corner to the ink
    width: int
    ascent: int  # from the corner down to the baseline
    rise: int  # of the ink above the baseline
    drop: int  # of the ink below the baseline

    def at(self, left: int, baseline: int) -> tuple[str, Font, Corner]:
        """Text, font and corner that put the ink's left edge and the baseline there."""
        return self.text, self.font, (left - self.left, baseline - self.ascent)


@dataclass(frozen=True)
class _Line:
    """Names of rows or of columns, or the title, on baselines of one kind.

    A line is as high with small letters only as with large ones, so that frames have one height.
    """

    words: list[_Word]
    usual: _Word

    @property
    def width(self) -> int:
        """Of the widest, with room around it; 0 without names."""
        return max(word.width for word in self.words) + 2 * _PAD if self.words else 0

    @property
    def rise(self) -> int:
        """Of the highest, above the baseline."""
        return max(word.rise for word in [*self.words, self.usual])

    @property
    def height(self) -> int:
        """Of ink that is as high and as low as any of it."""
        return self.rise + max(word.drop for word in [*self.words, self.usual])

    @property
    def band(self) -> int:
        """Height of a line of its own, with room around it; 0 without names."""
        return self.height + 2 * _PAD if self.words else 0


def lay_out(
    shape: tuple[int, int, int],
    num_images: int,
    num_columns: int,
    names: Names,
    *,
    min_side: int,
    min_width: int,
    gap: int,
) -> Layout:
    """Place images and names; see `torch_utils.grids.grid_picture`.

    Args:
        shape: (C, H, W) of an image.
        num_images: row by row.
        num_columns: images in a row.
        names: what is printed.
        min_side: enlarge until the shorter side of an image has at least this many pixels.
        min_width: pixels that the picture has at least.
        gap: pixels between images.
    """
    num_rows, gap_x = -(-num_images // num_columns), _gap_x(shape, gap)
    factor = _factor(shape, num_rows, num_columns, min_side, gap)
    cell_w, cell_h = _cell(shape, factor)
    rows, columns = _lines(names, num_rows, num_columns, cell_w, cell_h)
    pitch_x, pitch_y = max(cell_w + gap_x, columns.width), cell_h + gap
    if rows.words:
        pitch_y = max(pitch_y, rows.height + _PAD)

    left = rows.width + gap
    num_columns_shown = max(1, min(num_columns, (_MOST_SIDE - left) // pitch_x))
    width = left + num_columns_shown * pitch_x
    titles = [names.title] if names.title else []
    title = _line(titles, ["?"], 16, max(_MOST_TITLE, width - 2 * _PAD))
    width = max(width, min_width, title.width)
    top = title.band + (columns.band or gap)
    most = min(_MOST_SIDE, MOST_PIXELS // width)
    num_rows_shown = max(1, min(num_rows, (most - top) // pitch_y))

    lefts = [left + column * pitch_x for column in range(num_columns_shown)]
    tops = [top + row * pitch_y for row in range(num_rows_shown)]
    inset_x, inset_y = (pitch_x - gap_x - cell_w) // 2, (pitch_y - gap - cell_h) // 2
    images = [
        (row * num_columns + column, (x + inset_x, y + inset_y))
        for row, y in enumerate(tops)
        for column, x in enumerate(lefts)
        if row * num_columns + column < num_images
    ]
    middle = (pitch_y - gap - rows.height) // 2 + rows.rise
    words = [
        *(word.at(_PAD, _PAD + title.rise) for word in title.words),
        *(
            word.at(x + (pitch_x - gap_x - word.width) // 2, title.band + _PAD + columns.rise)
            for word, x in zip(columns.words, lefts, strict=False)
        ),
        *(word.at(_PAD, y + middle) for word, y in zip(rows.words, tops, strict=False)),
    ]
    return Layout(factor, gap >= 2, width, top + num_rows_shown * pitch_y, images, words)


def _cell(shape: tuple[int, int, int], factor: int) -> tuple[int, int]:
    """Width and height of an enlarged image."""
    channels, height, width = shape
    return num_panels(channels) * (width * factor + 1) - 1, height * factor


def _gap_x(shape: tuple[int, int, int], gap: int) -> int:
    """Pixels from an image to the next one in its row."""
    return gap if num_panels(shape[0]) == 1 else max(gap, _APART)


def _factor(
    shape: tuple[int, int, int], num_rows: int, num_columns: int, min_side: int, gap: int
) -> int:
    """The factor that makes images large enough, or the largest one that the grid has room for."""
    factor = max(1, -(-min_side // min(shape[1:])))
    while factor > 1:
        cell_w, cell_h = _cell(shape, factor)
        width, height = num_columns * (cell_w + _gap_x(shape, gap)), num_rows * (cell_h + gap)
        if width <= _WIDE and height <= _TALL:
            break
        factor -= 1
    return factor


def _lines(
    names: Names, num_rows: int, num_columns: int, cell_w: int, cell_h: int
) -> tuple[_Line, _Line]:
    """The names of rows and of columns, except those that have no place in any picture."""
    numbers = names.row_numbers or range(num_rows)
    size = min(20, max(12, cell_h // 4))
    shown = names.rows[: min(num_rows, _MOST_SIDE // cell_h + 1)]
    rows = _line(shown, numbers, size, _MOST_ROW)
    size = min(16, max(12, min(cell_w, cell_h) // 6))
    shown = names.columns[: min(num_columns, _MOST_SIDE // cell_w + 1)]
    return rows, _line(shown, range(num_columns), size, max(cell_w, _MOST_COLUMN))


def _line(names: Sequence[str], numbers: Sequence[int | str], size: int, most: int) -> _Line:
    """Names as they are drawn, cut to a number of pixels."""
    found = zip(names, numbers, strict=False)
    words = [_word(name, str(number), size, most) for name, number in found]
    return _Line(words, _word("\u00c9(gjy|", "", size, most))


def _word(name: str, fallback: str, size: int, most: int) -> _Word:
    shown, font = drawable(name, fallback, size)
    if _ink(font, shown)[2] > most:
        shown = shown[:most]  # no letter that counts is narrower than a pixel
        while shown and _ink(font, f"{shown}...")[2] > most:
            shown = shown[:-1]
        shown += "..."
    left, top, width, bottom = _ink(font, shown)
    ascent = font.getmetrics()[0] if isinstance(font, PIL.ImageFont.FreeTypeFont) else bottom
    return _Word(shown, font, left, width, ascent, ascent - top, bottom - ascent)


def _ink(font: Font, text: str) -> tuple[int, int, int, int]:
    """Left edge, top, width and bottom of a text drawn from (0, 0)."""
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    return left, top, right - left, bottom
