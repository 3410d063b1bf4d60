"""MNIST and Fashion-MNIST: idx files of bytes, compressed or not (LeCun et al. 1998)."""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from data.sources import Item, Source
from torch_utils.errors import UserError

MAX_BYTES = 2**31
_PADDED = {28: 2}  # published: 28x28 is zero-padded to 32x32


def _content(file: IO[bytes] | gzip.GzipFile, path: Path) -> np.ndarray:
    zeros, kind, num_dims = struct.unpack(">HBB", file.read(4))
    if zeros != 0 or kind != 8 or not 1 <= num_dims <= 3:
        raise UserError(f"{path} is not an idx file of bytes: download it again")
    shape = struct.unpack(f">{num_dims}I", file.read(4 * num_dims))
    num_bytes = math.prod(shape)
    if not 0 < num_bytes <= MAX_BYTES:
        raise UserError(f"{path} says that it has {num_bytes} bytes: download it again")
    content = file.read(num_bytes + 1)
    if len(content) != num_bytes:
        raise UserError(f"{path} does not have the {num_bytes} bytes it says: download it again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of bytes with 1 to 3 dimensions.

    Raises:
        UserError: it cannot be read, or is of another kind or length.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return _content(file, path)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def open_idx(path: str) -> Source:
    """Open a file of images; the file of labels lies beside it.

    Args:
        path: e.g. train-images-idx3-ubyte.gz.

    Raises:
        UserError: one of the two cannot be read, or they do not fit.
    """
    images_path = Path(path)
    name = re.sub(r"images([-.])idx3", r"labels\1idx1", images_path.name)
    images, labels = read_idx(images_path), read_idx(images_path.with_name(name))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise UserError(f"{path} and {name} do not have as many images as labels")
    margins = _PADDED.get(images.shape[1], 0), _PADDED.get(images.shape[2], 0)

    def read(index: int) -> Item:
        padded = np.pad(images[index], [(margin, margin) for margin in margins])
        return padded, int(labels[index])

    return Source(len(images), read, lambda index: f"image {index} of {path}", margins=margins)
