"""From the bytes of an image file to a Pillow picture; every failure names its file.

Formats that Pillow only recognises, or hands to another program, are refused; sizes are bounded.
"""

import contextlib
import functools
import io
import re
import warnings
from collections.abc import Iterator

import numpy as np
import PIL.Image

from data.budget import reserve
from torch_utils.errors import UserError

MAX_PIXELS = 2**27
MAX_READS = 2**21  # of a file's parts; most sound files have thousands
MAX_SCANS = 100  # of a progressive JPEG; each one goes through the whole picture
_SURPRISE = 2**22  # so many pixels are decoded even if the size turns out to be wrong
_JPEG = b"\xff\xd8"
# With the length that fits its number of components; a film behind a photo lacks such bytes.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
# Some formats contain pictures of other sizes; Pillow refuses those above twice this number.
PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
# Blocks of Pillow's default size come from the heap of the thread, which keeps them when they are
# freed: half a gigabyte a thread after one large picture. Larger ones are given back.
PIL.Image.core.set_block_size(2**26)  # type: ignore[attr-defined]
# Stubs without a decoder, and formats that Pillow passes to Ghostscript or to Windows.
_UNUSABLE_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_COMMON = ("PNG", "JPEG", "WEBP")  # what is known of these says whether they have EXIF data
_ORIENTATION_TAG = 0x0112
_EXIF_KEYS = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
_DEEP = re.compile("(?<!BGR);16")  # Pillow's names for 16 bits a channel; BGR;16 is a pixel's

# open_picture() checks the size itself, against a fixed bound, and says which file it was.
warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)


@functools.cache
def _formats() -> tuple[str, ...]:
    PIL.Image.init()
    usable = set(PIL.Image.OPEN) - _UNUSABLE_FORMATS
    # Pillow tries them in order, so the common ones come first: a third less time for a small PNG.
    common = [name for name in _COMMON if name in usable]
    return (*common, *sorted(usable.difference(common)))


@functools.cache
def _extensions() -> frozenset[str]:
    formats = _formats()
    known = PIL.Image.registered_extensions()
    return frozenset(extension for extension, name in known.items() if name in formats)


def is_image_name(name: str) -> bool:
    """Tell whether a file name has the extension of an image format that can be decoded."""
    _, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" in _extensions() if dot else False


def open_picture(content: bytes, where: str, usual: int | None = None) -> PIL.Image.Image:
    """Decode an image file; of an animation, the first frame.

    Args:
        content: the bytes of the file.
        where: the file's name, for messages.
        usual: pixels that all images must have; None if they may differ.

    Returns:
        The decoded picture in the mode it is stored in.

    Raises:
        UserError: the bytes are not an image, or are damaged; the picture has more than
            `MAX_PIXELS` pixels, or far more than usual, or has 16 bits or more a channel.
    """
    scans = _SCAN.finditer(content) if content[:2] == _JPEG else ()
    if any(number >= MAX_SCANS for number, _ in enumerate(scans)):
        raise UserError(f"{where} has more than {MAX_SCANS} scans: save it anew")
    with _named_failures(where):
        file = _Counted(content) if len(content) > MAX_READS else io.BytesIO(content)
        picture = PIL.Image.open(file, formats=_formats())
        num_pixels = picture.width * picture.height
        is_deep = picture.mode[0] in "IF" or any(_DEEP.search(str(tile)) for tile in picture.tile)
    if num_pixels > MAX_PIXELS:
        raise UserError(f"{where} has more than {MAX_PIXELS} pixels: make it smaller")
    if usual is not None and num_pixels > max(usual, _SURPRISE):
        raise UserError(
            f"{where} has {picture.width}x{picture.height} pixels, the first image has {usual}: "
            "bring all to one size with dataset_tool.py"
        )
    if is_deep:
        raise UserError(f"{where} has more than 8 bits a channel: convert it to 8 bits first")
    reserve(num_pixels + len(content) // 4)
    with _named_failures(where):
        picture.load()
    return picture


class _Counted(io.BytesIO):
    """The bytes of a large file, with a bound on reads: empty parts could keep a reader busy."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        """As of a file; too many calls are an error."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise ValueError(f"it has more than {MAX_READS} parts")
        return super().read(size)


@contextlib.contextmanager
def _named_failures(where: str) -> Iterator[None]:
    """Name the file that Pillow fails on."""
    try:
        yield
    except PIL.UnidentifiedImageError:
        raise UserError(f"{where} is not an image in a known format: remove it") from None
    except PIL.Image.DecompressionBombError:
        raise UserError(f"{where} has more than {MAX_PIXELS} pixels: make it smaller") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders fail on damaged files in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where} is damaged ({reason}): replace or remove it") from None


def orientation(picture: PIL.Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; 1 if there is none or it is unreadable."""
    if picture.format in _COMMON and not picture.info.keys() & _EXIF_KEYS:
        return 1  # looking for it takes a tenth of the time of decoding a small image
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF data in a sound image is common and means nothing
        return 1
    return value if value in range(1, 9) else 1


def to_channels_first(image: np.ndarray) -> np.ndarray:
    """Turn an image [H, W] or [H, W, C] into a contiguous [C, H, W]."""
    return np.ascontiguousarray(image[None] if image.ndim == 2 else image.transpose(2, 0, 1))
