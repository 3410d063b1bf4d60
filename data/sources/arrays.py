"""Sources that are numpy arrays of images: a .npy, or a .npz with labels; never of objects."""

from pathlib import Path

import numpy as np

from data.sources.interface import Item, Source
from torch_utils.bounded import open_regular
from torch_utils.errors import UserError
from torch_utils.npys import names_in, read_header, read_npz
from torch_utils.zips import BAD_ZIP

MAX_ARRAY_BYTES = 2**34
_IMAGE_KEYS = ("images", "arr_0", "x")
_LABEL_KEYS = ("labels", "arr_1", "y")
_CHANNELS = (1, 3)


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    names = names_in(path)
    images_key = next((key for key in _IMAGE_KEYS if key in names), None)
    labels_key = next((key for key in _LABEL_KEYS if key in names), None)
    if images_key is None:
        raise UserError(
            f"{path} has the arrays {', '.join(names) or 'none'}: call the images "
            f"{', '.join(_IMAGE_KEYS[:-1])} or {_IMAGE_KEYS[-1]}"
        )
    keys = [key for key in (images_key, labels_key) if key is not None]
    arrays = read_npz(path, keys, MAX_ARRAY_BYTES)
    return arrays[images_key], arrays.get(labels_key or "")


def _map_npy(path: Path) -> np.ndarray:
    with open_regular(path) as file:
        read_header(file)
    array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    return array


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


def _checked_labels(labels: np.ndarray, num: int, path: Path) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_class = labels.ndim == 1 and labels.dtype.kind in "iu"
    is_vector = labels.ndim == 2 and labels.dtype.kind in "iufb"
    if not (is_class or is_vector) or len(labels) != num:
        raise UserError(
            f"{path} has labels {labels.dtype} of shape {labels.shape} for {num} images: give "
            "integers [N] or vectors [N, D]"
        )
    return labels


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
            images, labels = _map_npy(file), None
    except UserError:
        raise
    except (*BAD_ZIP, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {path}: {reason}") from None
    images = _images_last(images, file)
    chosen = None if labels is None else _checked_labels(labels, len(images), file)

    def read(index: int) -> Item:
        image = np.ascontiguousarray(images[index])
        if chosen is None:
            return image, None
        # one at a time: as Python's numbers, all of them would need many times the memory
        label = chosen[index] if chosen.ndim == 1 else chosen[index].astype(np.float64)
        return image, label.tolist()

    return Source(len(images), read, lambda index: f"image {index} of {path}")
