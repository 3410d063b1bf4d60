"""Grids: labels in any script, empty places, and a mark by which a grid is known."""

from pathlib import Path

import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageFont
import pytest

from torch_utils.fonts import as_ascii, drawable, has_letters
from torch_utils.grids import is_grid, save_grid, save_grid_of
from torch_utils.images import save_png

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
    files = [tmp_path / f"{index}.png" for index in range(5)]
    for index in (0, 2, 3):
        save_png(files[index], NOISE[index])
    save_grid_of(files, tmp_path / "grid.png", 3)
    with PIL.Image.open(tmp_path / "grid.png") as picture:
        pixels = np.asarray(picture)
    for index in range(5):
        row, column = divmod(index, 3)
        top, left = 2 + 82 * row, 2 + 102 * column
        cell = pixels[top : top + 80 : 2, left : left + 100 : 2]
        expected = NOISE[index].transpose(1, 2, 0) if index in (0, 2, 3) else 255
        assert (cell == expected).all()
