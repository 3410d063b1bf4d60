"""An .npz of generated images, of any number of channels: a `samplers.packed.Form`.

`arr_0` is uint8 [N, H, W, C], and `arr_1` holds the classes if they are known: guided-diffusion's
form. Beside them lie `seeds`, `files` (the names that the images would have in a folder) and
`generated` (what they were made of, as JSON).
"""

import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from samplers.packed import Contents, each
from torch_utils.errors import UserError
from torch_utils.jsons import parse_json
from torch_utils.npys import read_header, read_npz
from torch_utils.zip_writing import member, new_zip
from torch_utils.zips import BAD_ZIP, open_zip, seek_member

SUFFIX = ".npy"
_IMAGES, _CLASSES, _SEEDS, _FILES, _REQUEST = "arr_0", "arr_1", "seeds", "files", "generated"
_MAX_VALUES = 2**24


def encoded(picture: np.ndarray) -> bytes:
    """An image, uint8 [C, H, W], as the content of a .npy file [H, W, C]."""
    return _npy(np.ascontiguousarray(picture.transpose(1, 2, 0)))


def decoded(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """The image in such a content, uint8 [C, H, W]."""
    channels, height, width = shape
    pixels = np.frombuffer(content[-math.prod(shape) :], np.uint8)
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


def is_whole(path: Path, shape: tuple[int, int, int]) -> bool:
    """Whether a .npy file holds an image of this shape and nothing else."""
    channels, height, width = shape
    try:
        with open(path, "rb") as file:
            found, is_fortran, dtype = read_header(file)
            is_alike = found == (height, width, channels) and dtype == np.uint8
            size = file.tell() + math.prod(shape)
            return is_alike and not is_fortran and os.fstat(file.fileno()).st_size == size
    except (OSError, ValueError):
        return False


def contents(path: str | os.PathLike[str]) -> Contents:
    """What an .npz holds; it stays open.

    Raises:
        UserError: it is damaged, or was not written here.
    """
    try:
        others = read_npz(path, (_CLASSES, _FILES, _REQUEST), os.path.getsize(path))
        names = [str(name) for name in others[_FILES]]
        request = dict(parse_json(str(others[_REQUEST]).encode(), _MAX_VALUES))
        classes: dict[str, int] = {}
        if _CLASSES in others:
            classes = dict(zip(names, others[_CLASSES].tolist(), strict=True))
        archive = open_zip(path)
        info = archive.getinfo(f"{_IMAGES}.npy")
        file = seek_member(archive, info)
        start = file.tell()
        found, is_fortran, dtype = read_header(file)
        num, height, width, channels = found
        offset, size = file.tell(), height * width * channels
        is_sound = dtype == np.uint8 and not is_fortran and num == len(names)
        if not is_sound or info.compress_size != offset - start + num * size:
            raise ValueError("it has other images than files")
    except UserError:
        raise
    except (*BAD_ZIP, LookupError, TypeError) as error:
        raise UserError(
            f"{os.fspath(path)} is no .npz of images that generate.py wrote "
            f"({type(error).__name__}): give another name"
        ) from None
    places = {name: offset + index * size for index, name in enumerate(names)}

    def read(name: str) -> bytes:
        file = archive.fp  # which is closed with the archive
        assert file is not None
        file.seek(places[name])
        return file.read(size)

    return Contents(names, (channels, height, width), request, read, classes)


def write(path: str | os.PathLike[str], contents: Contents, advance: Callable[[int], None]) -> None:
    """Write an .npz, whole or not at all."""
    channels, height, width = contents.shape
    size = math.prod(contents.shape)
    header = _header((len(contents.names), height, width, channels))
    total = len(header) + len(contents.names) * size
    others = {
        _SEEDS: _integers(contents.seeds),
        _FILES: np.array(contents.names),
        _REQUEST: np.array(json.dumps(contents.request)),
    }
    if contents.known_classes is not None:
        others[_CLASSES] = np.array(contents.known_classes, np.int64)
    with new_zip(path) as archive:
        info = member(f"{_IMAGES}.npy")
        info.file_size = total
        with archive.open(info, "w", force_zip64=total >= 2**31) as file:
            file.write(header)
            for _, content in each(contents, advance):
                file.write(content[-size:])
        for name, array in sorted(others.items()):
            archive.writestr(member(f"{name}.npy"), _npy(array))


def _integers(seeds: list[int]) -> np.ndarray:
    """Seeds as int64, or as text if one is larger."""
    return np.array(seeds if max(seeds) < 2**63 else list(map(str, seeds)))


def _header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()
