"""Images in an lmdb: LSUN's encoded pictures (Yu et al. 2015), CelebA-HQ's raw square RGB."""

import math
import os
from typing import Any

import numpy as np

from data.decoding import open_picture
from data.modes import to_plain
from data.sources import Item, Source
from torch_utils.errors import UserError

MAX_VALUE_BYTES = 2**28


def _environment(path: str) -> Any:
    try:
        import lmdb
    except ImportError:
        raise UserError(f"{path} needs the package lmdb: pip install lmdb") from None
    if not os.path.exists(path):
        raise UserError(f"there is no lmdb {path}: check the path")
    try:
        is_folder = os.path.isdir(path)
        return lmdb.open(path, readonly=True, lock=False, readahead=False, subdir=is_folder)
    except (lmdb.Error, OSError) as error:
        raise UserError(f"{path} is not a readable lmdb ({error})") from None


def _raw_square(content: bytes) -> np.ndarray | None:
    """The image [side, side, 3] whose bytes these are, if their number allows one."""
    side = math.isqrt(len(content) // 3)
    if side == 0 or len(content) != 3 * side * side:
        return None
    return np.frombuffer(content, np.uint8).reshape(side, side, 3)


def _keys(environment: Any, path: str) -> list[bytes]:
    """All keys; indices in decimal by their number, others in the order of the lmdb."""
    import lmdb

    try:
        with environment.begin() as transaction, transaction.cursor() as cursor:
            keys = [bytes(key) for key in cursor.iternext(keys=True, values=False)]
    except lmdb.Error as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not keys:
        raise UserError(f"{path} is an empty lmdb: check the path")
    return sorted(keys, key=int) if all(key.isdigit() for key in keys) else keys


def open_lmdb(path: str) -> Source:
    """Open an lmdb folder or file. There are no labels; an entry that is no image is left out.

    Raises:
        UserError: the package lmdb is missing, or the lmdb is empty or cannot be read.
    """
    environment = _environment(path)
    keys = _keys(environment, path)

    def where(index: int) -> str:
        return f"{keys[index].decode('ascii', 'backslashreplace')} in {path}"

    def read(index: int) -> Item:
        with environment.begin() as transaction:
            content: bytes = transaction.get(keys[index])
        if len(content) > MAX_VALUE_BYTES:
            raise UserError(f"{where(index)} has more than {MAX_VALUE_BYTES} bytes")
        try:
            return to_plain(open_picture(content, where(index)), where(index)), None
        except UserError:
            image = _raw_square(content)
            if image is None:
                raise
            return image, None

    return Source(len(keys), read, where, skips_damaged=True)
