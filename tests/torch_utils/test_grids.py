"""Grids: enlarged images of any channels, names in any script, and a mark of their own."""

import os
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageFont
import pytest

from torch_utils.fonts import as_ascii, drawable, has_letters
from torch_utils.grid_layout import MOST_PIXELS, Names, lay_out
from torch_utils.grids import grid_bound, grid_picture, is_grid, save_grid
from torch_utils.images import as_rgb, save_png

NOISE = np.random.default_rng(0).integers(0, 256, (5, 3, 40, 50), dtype=np.uint8)
has_freetype = pytest.mark.skipif(
    not PIL.features.check("freetype2"), reason="this Pillow has no scalable fonts"
)


def margin(path: Path, columns: int) -> int:
    """Pixels left of the images of `NOISE`."""
    with PIL.Image.open(path) as picture:
        return picture.width - (columns * 102 + 2)


def ink(path: Path, row: int) -> int:
    """Dark pixels left of a row of images."""
    left = margin(path, 2)
    with PIL.Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    return int((pixels[2 + 82 * row : 2 + 82 * row + 80, :left] < 128).sum())


def test_the_margin_is_as_wide_as_the_widest_name(tmp_path: Path) -> None:
    widths = {}
    for name in ("", "i", "cat", "a word of more", "W" * 500):
        path = tmp_path / f"{len(name)}.png"
        save_grid(path, NOISE, 2, row_names=[name, "i"])
        widths[name] = margin(path, 2)
    assert widths[""] == widths["i"] < widths["cat"] < widths["a word of more"]
    assert widths["cat"] < 8 * 3 + 20
    assert 200 < widths["W" * 500] <= 248
    save_grid(tmp_path / "none.png", NOISE, 2)
    assert margin(tmp_path / "none.png", 2) == 0


@has_freetype
@pytest.mark.parametrize(
    "name",
    [
        "Tiere und Natur \u2013 B\u00e4ume",
        "Voyages \u00e0 c\u00f4t\u00e9",
        "\u98df\u3079\u7269 food",
        "\u043a\u043e\u0448\u043a\u0430",
        "\U0001f600",
        "\x1b[31mred",
        "\u0301",
    ],
)
def test_a_name_in_any_script_is_drawn_with_letters_that_its_font_has(
    name: str, tmp_path: Path
) -> None:
    """Whatever fonts this machine has: never a box, and never nothing."""
    shown, font = drawable(name, "7", 14)
    assert has_letters(font, shown)
    assert shown.isprintable()
    assert shown.strip()
    save_grid(tmp_path / "grid.png", NOISE[:2], 2, row_names=[name], row_numbers=[7])
    assert ink(tmp_path / "grid.png", 0) > 5


@has_freetype
def test_a_letter_that_a_font_lacks_is_known() -> None:
    font = PIL.ImageFont.load_default(14)
    assert has_letters(font, "Baum 12")
    for text in ("\u98df", "a\u98dfb", "\uffff", "\U0001f600"):
        assert not has_letters(font, text)


def test_letters_without_a_font_become_ascii_or_a_number() -> None:
    for name, plain in [
        ("B\u00e4ume \u2013 \u00e0 c\u00f4t\u00e9", "Baume - a cote"),
        ("stra\u00dfe", "strasse"),
        ("\u0141\u00f3d\u017a", "Lodz"),
        ("\u98df\u3079\u7269 food", None),
        ("\uff21\uff22", "AB"),
    ]:
        assert as_ascii(name) == plain
    unknown = "\U00030000" * 2  # of an extension that hardly a font has
    shown, font = drawable(f"{unknown} food", "12", 14)
    assert shown in ("12 food", f"{unknown} food")
    assert has_letters(font, shown)


def test_a_grid_is_known_and_says_where_it_is_from(tmp_path: Path) -> None:
    text = {"seeds": "0-4", "snapshot": "B\u00e4ume.safetensors", "sampler": "x" * 5000}
    save_grid(tmp_path / "grid.png", NOISE, 3, text=text)
    with PIL.Image.open(tmp_path / "grid.png") as picture:
        picture.load()
        assert {key: picture.text[key] for key in text} == text
    assert is_grid(tmp_path / "grid.png")
    save_png(tmp_path / "image.png", NOISE[0])
    assert not is_grid(tmp_path / "image.png")
    assert not is_grid(tmp_path / "absent.png")
    with PIL.Image.open(tmp_path / "image.png") as picture:
        assert picture.text == {}


def test_images_that_are_absent_leave_their_places_empty(tmp_path: Path) -> None:
    images = [image if index in (0, 2, 3) else None for index, image in enumerate(NOISE)]
    assert save_grid(tmp_path / "grid.png", images, 3) == 5
    with PIL.Image.open(tmp_path / "grid.png") as picture:
        pixels = np.asarray(picture)
    for index in range(5):
        row, column = divmod(index, 3)
        top, left = 2 + 82 * row, 2 + 102 * column
        cell = pixels[top : top + 80 : 2, left : left + 100 : 2]
        expected = NOISE[index].transpose(1, 2, 0) if index in (0, 2, 3) else 255
        assert (cell == expected).all()


def noise(num: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, *shape), dtype=np.uint8)


def test_an_image_of_any_channels_becomes_rgb() -> None:
    gray, rgb, four = (noise(1, channels, 3, 2)[0] for channels in (1, 3, 4))
    np.testing.assert_array_equal(as_rgb(gray), gray.repeat(3, axis=0))
    np.testing.assert_array_equal(as_rgb(rgb), rgb)
    shown = as_rgb(four, 5)
    assert shown.shape == (3, 15, 4 * 11 - 1)
    for channel in range(4):
        panel = shown[:, :, channel * 11 : channel * 11 + 10]
        np.testing.assert_array_equal(panel, four[[channel] * 3].repeat(5, 1).repeat(5, 2))
        line = shown[:, :, channel * 11 + 10 : channel * 11 + 11]
        assert len(np.unique(line)) == (1 if channel < 3 else 0)


@pytest.mark.parametrize(
    ("size", "num", "columns", "factor"),
    [
        ((8, 8), 1, 1, 8),
        ((8, 6), 64, 8, 11),  # the shorter side has 64 pixels or more
        ((28, 28), 100, 10, 3),
        ((48, 64), 4, 2, 2),
        ((64, 64), 64, 8, 1),
        ((256, 256), 4, 2, 1),
        ((8, 8), 640, 64, 7),  # as far as 4,096 pixels of width have room
        ((8, 8), 50_000, 224, 2),
        ((32, 32), 50_000, 224, 1),
        ((8, 8), 3600, 4, 2),  # or 16,384 of height
    ],
    ids=str,
)
def test_small_images_are_enlarged_until_they_are_seen_or_the_picture_is_large(
    size: tuple[int, int], num: int, columns: int, factor: int
) -> None:
    layout = lay_out((1, *size), num, columns, Names(), min_side=64, min_width=0, gap=2)
    assert layout.factor == factor
    assert layout.width == columns * (size[1] * factor + 2) + 2
    assert layout.height == -(-num // columns) * (size[0] * factor + 2) + 2
    assert len(layout.images) == num


@pytest.mark.parametrize("channels", [1, 3, 2, 4, 6])
def test_the_pixels_of_a_grid_are_those_of_its_images(channels: int) -> None:
    images = noise(5, channels, 10, 7)
    pixels = np.asarray(grid_picture(images, 2, row_names=["a"], column_names=["b", "c"]))
    layout = lay_out(
        *((channels, 10, 7), 5, 2, Names(["a"], (), ["b", "c"])), min_side=64, min_width=0, gap=2
    )
    assert (layout.height, layout.width) == pixels.shape[:2]
    for index, (left, top) in layout.images:
        shown = as_rgb(images[index], layout.factor).transpose(1, 2, 0)
        found = pixels[top : top + shown.shape[0], left : left + shown.shape[1]]
        np.testing.assert_array_equal(found, shown)


WORDS = [
    "",
    "i",
    "g\u00c5y",
    "automobile",
    "a name of many words, " * 9,
    "\u0e17\u0e35\u0e48 \u00c5",
]
Box = tuple[float, float, float, float]


def boxes(shape: tuple[int, int, int], columns: int, names: Names, gap: int) -> list[Box]:
    """Left, top, right and bottom of all words and images, and of the picture at the end."""
    layout = lay_out(shape, 3 * columns, columns, names, min_side=1, min_width=0, gap=gap)
    found = []
    for text, font, (left, top) in layout.words:
        ink = font.getbbox(text)
        if text.strip():
            found.append((left + ink[0], top + ink[1], left + ink[2], top + ink[3]))
    sides = as_rgb(np.zeros(shape, dtype=np.uint8), layout.factor).shape
    found += [(x, y, x + sides[2], y + sides[1]) for _, (x, y) in layout.images]
    return [*found, (0, 0, layout.width, layout.height)]


@has_freetype
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 8, 8), (2, 6, 20), (3, 90, 30)], ids=str)
@pytest.mark.parametrize("gap", [0, 2])
@pytest.mark.parametrize("title", ["", "a title g\u00c5y " * 20])
def test_names_neither_overlap_nor_leave_the_picture(
    shape: tuple[int, int, int], gap: int, title: str
) -> None:
    for start in range(len(WORDS)):
        words = [*WORDS[start:], *WORDS[:start]]
        *parts, (_, _, width, height) = boxes(shape, 5, Names(words, (), words, title), gap)
        for left, top, right, bottom in parts:
            assert left >= 0
            assert top >= 0
            assert right <= width
            assert bottom <= height
        for a, b in combinations(parts, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)


def test_a_title_widens_a_narrow_picture_and_frames_can_have_one_width() -> None:
    images = noise(1, 1, 8, 8)
    plain, titled = grid_picture(images, 1), grid_picture(images, 1, title="sigma = 0.002")
    assert plain.size == (68, 68)
    assert titled.width > 68 < titled.height
    assert grid_picture(images, 1, title="sigma " * 500).width < 500
    frames = [grid_picture(images, 1, title=word, min_width=200) for word in ("80", "0.002")]
    assert {frame.size for frame in frames} == {(200, titled.height)}


class Counted:
    """Many images of one shape, of which it is known which were asked for."""

    def __init__(self, num: int, image: np.ndarray) -> None:
        self.num, self.image = num, image
        self.asked: set[int] = set()

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int, /) -> np.ndarray:
        self.asked.add(index)
        return self.image


def test_a_grid_that_no_program_would_open_is_bounded_and_says_how_much_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1024**3 // 4 // 3)  # Pillow's own
    images = Counted(50_000, np.full((1, 64, 64), 90, dtype=np.uint8))
    num = save_grid(tmp_path / "grid.png", images, 224)
    with warnings.catch_warnings(action="error"):
        picture = PIL.Image.open(tmp_path / "grid.png")
    with picture:
        assert 0.98 * MOST_PIXELS < picture.width * picture.height < MOST_PIXELS
        assert (picture.width - 2) // 66 * ((picture.height - 2) // 66) == num < 50_000
    assert images.asked == set(range(num))
    layout = lay_out((1, 64, 64), 20_000, 10_000, Names(), min_side=64, min_width=0, gap=2)
    assert layout.width <= 32_000
    num = len(layout.images) // 2
    assert [index for index, _ in layout.images] == [*range(num), *range(10_000, 10_000 + num)]
    large = lay_out((1, 40_000, 9), 2, 1, Names(), min_side=64, min_width=0, gap=2)
    assert len(large.images) == 1


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 8, 8), (3, 40, 40), (4, 8, 8), (3, 64, 64)], ids=str
)
@pytest.mark.parametrize("num", [1, 100])
def test_noise_is_within_the_bound_that_room_is_made_for(
    shape: tuple[int, int, int], num: int, tmp_path: Path
) -> None:
    names = ["a name"] * 10
    save_grid(tmp_path / "grid.png", noise(num, *shape), 10, row_names=names, column_names=names)
    assert os.path.getsize(tmp_path / "grid.png") <= grid_bound(num, shape)
    assert grid_bound(10**9, shape) < 1.02 * 3 * MOST_PIXELS
