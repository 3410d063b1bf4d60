"""Sources that are numpy arrays of images: a .npy, or a .npz with labels; never of objects."""

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from data.sources import Item, Source
from torch_utils.errors import UserError

MAX_ARRAY_BYTES = 2**34
_IMAGE_KEYS = ("images", "arr_0", "x")
_LABEL_KEYS = ("labels", "arr_1", "y")
_CHANNELS = (1, 3)


def _read_member(archive: zipfile.ZipFile, name: str, where: str) -> np.ndarray:
    """One array of a .npz; its header must agree with its size before memory is taken."""
    info = archive.getinfo(name)
    with archive.open(info) as file:
        shape, is_fortran, dtype = _header(file)
        num_bytes = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or not 0 < num_bytes <= min(info.file_size, MAX_ARRAY_BYTES):
            raise UserError(f"{where} has an array {dtype} of shape {shape}, which is not readable")
        content = file.read(num_bytes)
    if len(content) != num_bytes:
        raise EOFError("it ends too early")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"version {version} of the format")
    return readers[version](file)


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with zipfile.ZipFile(path) as archive:
        names = [Path(name).stem for name in archive.namelist() if name.endswith(".npy")]
        images_key = next((key for key in _IMAGE_KEYS if key in names), None)
        labels_key = next((key for key in _LABEL_KEYS if key in names), None)
        if images_key is None:
            raise UserError(
                f"{path} has the arrays {', '.join(names) or 'none'}: call the images "
                f"{', '.join(_IMAGE_KEYS[:-1])} or {_IMAGE_KEYS[-1]}"
            )
        images = _read_member(archive, f"{images_key}.npy", f"{images_key} in {path}")
        if labels_key is None:
            return images, None
        return images, _read_member(archive, f"{labels_key}.npy", f"{labels_key} in {path}")


def _images_last(images: np.ndarray, path: Path) -> np.ndarray:
    """Images as [N, H, W] or [N, H, W, 3]; of three axes after the first, channels come last."""
    if images.dtype != np.uint8:
        raise UserError(
            f"{path} has images of type {images.dtype}: convert them to uint8, 0 to 255"
        )
    if images.ndim == 4 and images.shape[3] not in _CHANNELS and images.shape[1] in _CHANNELS:
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    is_image = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if not is_image or 0 in images.shape:
        raise UserError(
            f"{path} has an array of shape {images.shape}: images are [N, H, W], [N, H, W, C] or "
            "[N, C, H, W] with 1 or 3 channels"
        )
    return images


def _checked_labels(labels: np.ndarray, num: int, path: Path) -> list[Any]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_class = labels.ndim == 1 and labels.dtype.kind in "iu"
    is_vector = labels.ndim == 2 and labels.dtype.kind in "iufb"
    if len(labels) != num or not (is_class or is_vector):
        raise UserError(
            f"{path} has labels {labels.dtype} of shape {labels.shape} for {num} images: give "
            "integers [N] or vectors [N, D]"
        )
    listed: list[Any] = (labels.astype(np.float64) if is_vector else labels).tolist()
    return listed


def open_arrays(path: str) -> Source:
    """Open a .npy (mapped, not loaded) or a .npz.

    Images are uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] under `images`, `arr_0` or `x`; labels,
    if any, integers [N] or vectors [N, D] under `labels`, `arr_1` or `y`.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    file = Path(path)
    try:
        if file.suffix.lower() == ".npz":
            images, labels = _read_npz(file)
        else:
            images, labels = np.load(file, mmap_mode="r", allow_pickle=False), None
    except UserError:
        raise
    except (
        *(OSError, EOFError, ValueError, KeyError, RuntimeError),
        *(MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error, io.UnsupportedOperation),
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {path}: {reason}") from None
    images = _images_last(images, file)
    chosen = None if labels is None else _checked_labels(labels, len(images), file)

    def read(index: int) -> Item:
        return np.ascontiguousarray(images[index]), None if chosen is None else chosen[index]

    return Source(len(images), read, lambda index: f"image {index} of {path}")
