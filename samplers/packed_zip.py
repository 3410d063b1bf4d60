"""A zip of generated images: a `samplers.packed.Form`, and a data set as dataset_tool.py reads it.

The folder form has the same files, so its PNGs are checked and read here too.
"""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from samplers.packed import Contents, each
from torch_utils.errors import UserError
from torch_utils.images import from_picture, png_bytes
from torch_utils.jsons import parse_json
from torch_utils.zip_writing import member, new_zip
from torch_utils.zips import BAD_ZIP, open_zip, read_member

SUFFIX = ".png"
INDEX = "dataset.json"
REQUEST = "generated"  # the key of the index under which it tells what the images were made of
_MAX_INDEX = 2**31
_MAX_IMAGE = 2**28
_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk of a PNG
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)  # of Pillow

encoded = png_bytes


def decoded(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """The image in a PNG, uint8 [C, H, W]."""
    with PIL.Image.open(io.BytesIO(content)) as picture:
        return from_picture(picture)


def is_whole(path: Path, shape: tuple[int, int, int]) -> bool:
    """Whether a file is a PNG of this shape; its checksums are verified to the last byte."""
    channels, height, width = shape
    try:
        with PIL.Image.open(path, formats=("PNG",)) as picture:
            is_alike = picture.size == (width, height) and picture.mode == _mode(channels)
            picture.verify()  # but for the last chunk
        with open(path, "rb") as file:
            file.seek(-len(_END), os.SEEK_END)
            return is_alike and file.read() == _END
    except _DAMAGED:
        return False


def _mode(channels: int) -> str:
    return "L" if channels == 1 else "RGB"


def contents(path: str | os.PathLike[str]) -> Contents:
    """What a zip holds; it stays open.

    Raises:
        UserError: it is damaged, or was not written here.
    """
    try:
        archive = open_zip(path)
        members = {each.filename: each for each in archive.infolist()}
        index = parse_json(read_member(archive, members[INDEX], _MAX_INDEX, INDEX), _MAX_INDEX)
        request = dict(index[REQUEST])
        classes = {name.removesuffix(SUFFIX): int(k) for name, k in index["labels"] or []}
        names = [name.removesuffix(SUFFIX) for name in members if name.endswith(SUFFIX)]
        first = read_member(archive, members[names[0] + SUFFIX], _MAX_IMAGE, names[0])
        channels, height, width = decoded(first, (0, 0, 0)).shape
    except UserError:
        raise
    except (*BAD_ZIP, SyntaxError, LookupError, TypeError) as error:
        raise UserError(
            f"{os.fspath(path)} is no zip of images that generate.py wrote "
            f"({type(error).__name__}): give another name"
        ) from None

    def read(name: str) -> bytes:
        return read_member(archive, members[name + SUFFIX], _MAX_IMAGE, name)

    shape = channels, height, width
    return Contents(names, shape, request, read, classes, index.get("label_names") or ())


def write(path: str | os.PathLike[str], contents: Contents, advance: Callable[[int], None]) -> None:
    """Write a zip, whole or not at all."""
    index: dict[str, Any] = {"labels": None}
    known = contents.known_classes
    if known is not None:
        files = [name + SUFFIX for name in contents.names]
        index["labels"] = list(zip(files, known, strict=True))
        if contents.class_names:
            index["label_names"] = list(contents.class_names)
    index[REQUEST] = contents.request
    with new_zip(path) as archive:
        for name, content in each(contents, advance):
            archive.writestr(member(name + SUFFIX), content)
        archive.writestr(member(INDEX), json.dumps(index))
