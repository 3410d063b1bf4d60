"""Arrays in .npz files, plain numbers and texts, never objects; from others, within bounds."""

import io
import math
import os
import sys
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from torch_utils.bounded import growth_limit
from torch_utils.errors import UserError
from torch_utils.zip_writing import member, new_zip
from torch_utils.zips import open_zip, read_member

_KINDS = "biufU"  # of numpy: truth values, numbers, text
_MAX_DIMENSIONS = 32


def read_npz(
    path: str | os.PathLike[str], wanted: Collection[str], limit: int
) -> dict[str, np.ndarray]:
    """Read arrays of a .npz.

    Args:
        path: the file.
        wanted: names of arrays; others are ignored.
        limit: bytes that they may have together.

    Returns:
        Those that the file has, by name.

    Raises:
        UserError: they are larger, or grow more than compressed arrays do; or the file is not a
            regular one.
        others: those of `torch_utils.zips.BAD_ZIP`: the file is damaged, or an array holds other
            things than plain numbers and texts.
    """
    limit = min(limit, growth_limit(os.path.getsize(path)))
    arrays = {}
    with open_zip(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name not in wanted or name == info.filename:
                continue
            if name in arrays:
                raise ValueError(f"it has the array {name} twice")
            if info.file_size > limit:
                raise UserError(
                    f"the arrays of {os.fspath(path)} have more bytes than can be true of so small"
                    " a file: if they are sound, save them uncompressed"
                )
            arrays[name] = _array(read_member(archive, info, limit, f"{name} in {path}"))
            limit -= info.file_size
    return arrays


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a .npz, uncompressed, whole or not at all.

    numpy's own way copies each array twice, which takes as long as to flush it to disk.

    Args:
        path: the file, as for `torch_utils.files.replacing`.
        arrays: by name; plain numbers and texts.

    Raises:
        OSError: the file cannot be written.
    """
    with new_zip(path) as archive:
        for name, array in arrays.items():
            assert array.dtype.kind in _KINDS, (name, array.dtype)
            plain = np.ascontiguousarray(array).reshape(array.shape)  # which has no 0-d arrays
            described = np.lib.format.header_data_from_array_1_0(plain)
            with archive.open(member(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, described)
                file.write(plain.reshape(-1).view(np.uint8).data)


def names_in(path: str | os.PathLike[str]) -> list[str]:
    """The names of the arrays in a .npz.

    Raises:
        as `read_npz`.
    """
    with open_zip(path) as archive:
        names = archive.namelist()
    return [name.removesuffix(".npy") for name in names if name.endswith(".npy")]


def _array(content: bytes) -> np.ndarray:
    """The array of a .npy file; its header must agree with its size before memory is taken."""
    file = io.BytesIO(content)
    shape, is_fortran, dtype = read_header(file)
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes != len(content) - file.tell():
        raise ValueError(f"it has no array {dtype} of shape {shape}")
    array = np.frombuffer(content, dtype, offset=file.tell())
    if dtype.kind == "U":
        codes = np.frombuffer(content, f"{dtype.byteorder}u4", offset=file.tell())
        if (codes > sys.maxunicode).any():
            raise ValueError("a text of characters that do not exist")
    return array.reshape(shape, order="F" if is_fortran else "C")


def read_header(file: Any, kinds: str = _KINDS) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a .npy file.

    Args:
        file: the file; of one that others made, a bounded part, as a header can be large.
        kinds: codes of numpy for the types that it may have; plain numbers and texts by default.

    Returns:
        Shape, whether the order is Fortran's, and type.

    Raises:
        ValueError: it is damaged, or of another type.
    """
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(file)
        shape, is_fortran, dtype = readers[version](file)
    except Exception as error:  # a header is a piece of Python, which can be wrong in many ways
        raise ValueError(f"its header is damaged ({type(error).__name__})") from None
    if dtype.kind not in kinds or not dtype.itemsize:
        raise ValueError(f"an array of type {dtype}")
    if len(shape) > _MAX_DIMENSIONS or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape, is_fortran, dtype
