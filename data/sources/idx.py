"""MNIST and Fashion-MNIST: idx files of bytes, compressed or not (LeCun et al. 1998)."""

import math
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from data.sources.interface import Item, Source
from torch_utils.bounded import chunks, collected, growth_limit, gunzipped, open_regular
from torch_utils.errors import UserError

MAX_BYTES = 2**31
_PADDED = {28: 2}  # published: 28x28 is zero-padded to 32x32


def _array(content: bytearray, path: Path) -> np.ndarray:
    zeros, kind, num_dims = struct.unpack_from(">HBB", content)
    if zeros != 0 or kind != 8 or not 1 <= num_dims <= 3:
        raise UserError(f"{path} is not an idx file of bytes: download it again")
    shape = struct.unpack_from(f">{num_dims}I", content, 4)
    pixels = np.frombuffer(content, np.uint8, offset=4 + 4 * num_dims)
    if not 0 < math.prod(shape) == len(pixels):
        raise UserError(
            f"{path} says that it has {math.prod(shape)} bytes, but has {len(pixels)}:"
            " download it again"
        )
    return pixels.reshape(shape)


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of bytes with 1 to 3 dimensions.

    Raises:
        UserError: it cannot be read, or is of another kind or length.
    """
    try:
        with open_regular(path) as file:
            limit = min(MAX_BYTES, growth_limit(os.fstat(file.fileno()).st_size))
            parts = gunzipped(file) if path.suffix == ".gz" else chunks(file)
            return _array(collected(parts, limit, str(path)), path)
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
        raise UserError(f"{path} and {name} do not have equally many images and labels")
    margins = _PADDED.get(images.shape[1], 0), _PADDED.get(images.shape[2], 0)

    def read(index: int) -> Item:
        padded = np.pad(images[index], [(margin, margin) for margin in margins])
        return padded, int(labels[index])

    return Source(len(images), read, lambda index: f"image {index} of {path}", margins=margins)
