"""Words on pictures in any script: find a font that has the letters, or spell them in ASCII.

The system's fonts are searched (by fontconfig, else in the usual folders, and matplotlib's); no
font needs to be installed.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import PIL.features
import PIL.ImageFont

Font = PIL.ImageFont.ImageFont | PIL.ImageFont.FreeTypeFont

_FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts"),
)
# upright faces that are read well, first; others come after these
_PREFERRED = ("DejaVuSans.", "NotoSans-Regular.", "NotoSans", "LiberationSans-Regular.", "Arial")
_MOST_FILES = 5000  # looked at in folders
_MOST_TRIED = 40  # fonts opened for one text
_NOWHERE = "\uffff"  # a code point that no font has
# letters without a decomposition, dashes and quotes
_PLAIN = str.maketrans(
    {"ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ł": "l", "Ł": "L"}
    | {"đ": "d", "Đ": "D", "ð": "d", "þ": "th", "\u0131": "i"}
    | {"\u2013": "-", "\u2014": "-", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'}
)


def drawable(text: str, fallback: str, size: int) -> tuple[str, Font]:
    """A text as it can be drawn, and the font for it.

    Args:
        text: in any script; what cannot be printed becomes a space.
        fallback: plain ASCII in place of letters that neither a font nor ASCII has.
        size: height of the letters in pixels.

    Returns:
        The text, its ASCII form, or the fallback with the text's ASCII letters; and a font that has
        all letters of it.
    """
    shown = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", text))
    for font in _fonts(shown, size):
        if has_letters(font, shown):
            return shown, font
    plain = as_ascii(shown)
    if plain is None:
        kept = "".join(letter for letter in shown if letter.isascii())
        plain = " ".join([fallback, *kept.split()])
    return plain, PIL.ImageFont.load_default(size)


def as_ascii(text: str) -> str | None:
    """A text in ASCII, accents left out; None if a letter has no such form."""
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    letters = "".join(c for c in plain if not unicodedata.combining(c))
    return letters if letters.isascii() else None


def has_letters(font: Font, text: str) -> bool:
    """Whether a font has a picture of its own for every letter of a text."""
    letters = set(text) - {" "}
    if not isinstance(font, PIL.ImageFont.FreeTypeFont):
        return all(letter.isascii() for letter in letters)
    missing = _picture(font, _NOWHERE)
    return all(_picture(font, letter) not in (missing, (0, 0, b"")) for letter in letters)


def _picture(font: PIL.ImageFont.FreeTypeFont, letter: str) -> tuple[int, int, bytes]:
    mask = font.getmask(letter)
    width, height = mask.size
    return width, height, bytes(mask)


def _fonts(text: str, size: int) -> Iterator[Font]:
    """Fonts that may have the letters of a text: Pillow's own, then files."""
    yield PIL.ImageFont.load_default(size)
    if text.isascii() or not PIL.features.check("freetype2"):
        return
    letters = "".join(sorted({letter for letter in text if not letter.isascii()}))
    for path in _files_for(letters)[:_MOST_TRIED]:
        try:
            yield PIL.ImageFont.truetype(path, size)
        except (OSError, ValueError):  # of a kind that FreeType does not scale
            continue


@functools.lru_cache(maxsize=256)
def _files_for(letters: str) -> list[str]:
    """Files of fonts that may have some letters, the better readable ones first."""
    if shutil.which("fc-list") is not None:
        wanted = " ".join(f"{ord(letter):x}" for letter in letters)
        command = ["fc-list", f":charset={wanted}", "--format", "%{file}\n"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
            files = done.stdout.splitlines()
        except (OSError, subprocess.SubprocessError, UnicodeError):
            files = _installed_files()
    else:
        files = _installed_files()
    return sorted(set(files) | set(_matplotlib_files()), key=_rank)


@functools.lru_cache(maxsize=1)
def _installed_files() -> list[str]:
    """Files of fonts in the usual folders."""
    found: list[str] = []
    for folder in _FOLDERS:
        for parent, _, names in os.walk(os.path.expanduser(folder)):
            found += [f"{parent}/{name}" for name in names if _is_font(name)]
            if len(found) > _MOST_FILES:
                return found
    return found


def _is_font(name: str) -> bool:
    return name.lower().endswith((".ttf", ".otf", ".ttc"))


def _matplotlib_files() -> list[str]:
    """The font that comes with matplotlib, if that is installed; it is not imported."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return []
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return [str(path)] if path.is_file() else []


def _rank(path: str) -> tuple[int, bool, int, str]:
    """Order of preference: known faces, then upright ones, then short names."""
    name = os.path.basename(path)
    known = [place for place, start in enumerate(_PREFERRED) if name.startswith(start)]
    is_styled = any(word in name for word in ("Bold", "Italic", "Oblique", "Light", "Mono"))
    return (known[0] if known else len(_PREFERRED)), is_styled, len(name), path
