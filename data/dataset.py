"""A dataset of equally sized 8-bit images with labels, and the choice of a subset of it.

Reads EDM's layout (Karras et al. 2022), or any folder or zip of gray and RGB images.
"""

import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.archive import ImageArchive
from data.decoding import open_picture, orientation, to_channels_first
from data.keys import ImageKeys, key_with_labels
from data.labels import class_names, kind_of_labels, load_labels, present_classes, width_of
from data.parallel import ordered_map
from data.plain_png import decode_plain
from data.shapes import describe_shape, remedy
from torch_utils.errors import UserError
from torch_utils.notes import warn
from torch_utils.progress import Progress
from torch_utils.subsets import subset_indices
from torch_utils.text import printable

_CHANNELS = {"L": 1, "RGB": 3}
_CHUNK = 64  # images that one thread decodes at a time


def held_out_indices(num: int, max_size: int | None, seed: int = 0) -> np.ndarray:
    """Return the images that `subset_indices` with the same arguments leaves out, ascending."""
    chosen = subset_indices(num, max_size, seed)
    return np.setdiff1d(np.arange(num, dtype=np.int64), chosen, assume_unique=True)


class ImageDataset:
    """Images of one size from a folder or zip, decoded on demand.

    A warning counts the other files in it.

    Args:
        path: the folder or zip.
        use_labels: read the labels, which must then exist.
        max_size: use only so many images, chosen by `subset_indices`.
        subset_seed: seed of the choice.
        held_out: use the images that the choice leaves out instead, e.g. to judge memorisation.
        leave_out: file names, relative to the folder, that do not belong to the dataset.

    Attributes:
        path: the folder or zip, as given.
        name: its base name, without .zip.
        names: the file names of the images in use, sorted.
        num_channels: 1 (gray) or 3 (RGB).
        height: rows of an image.
        width: columns of an image.
        label_dim: classes, or elements of a label vector; 0 without labels. Classes are counted
            over the whole dataset, so that a subset does not change it.
        label_kind: "class", "vector" or "multi_hot" (tags); None without labels.
        label_names: names of the classes or of the vectors' elements, if dataset.json gives them.
        raw_labels: int64 [N] classes, float32 [N, label_dim] vectors, or None.
        present_classes: the classes that some image in use has; None if all of them have one, or if
            labels are not classes.
        keys: names for the content of the images, without the labels.

    Raises:
        UserError: the path or the labels cannot be used, or the choice is empty.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        use_labels: bool = False,
        max_size: int | None = None,
        subset_seed: int = 0,
        held_out: bool = False,
        leave_out: frozenset[str] = frozenset(),
    ) -> None:
        self._arguments: dict[str, Any] = {
            **{"path": path, "use_labels": use_labels, "max_size": max_size},
            **{"subset_seed": subset_seed, "held_out": held_out, "leave_out": leave_out},
        }
        self._archive = ImageArchive(path)
        if self._archive.left_out:
            warn(f"left out of {printable(path)}: {', '.join(self._archive.left_out)}")
        self.path = str(path)
        absolute = Path(os.path.abspath(path))
        self.name = printable(absolute.stem if self._archive.is_zip else absolute.name)
        all_names = [name for name in self._archive.names if name not in leave_out]
        if not all_names:
            raise UserError(f"{path} has no image beside {', '.join(sorted(leave_out)[:3])}")
        if max_size is not None and max_size < 1:
            raise UserError(f"max_size must be at least 1, not {max_size}")
        choose = held_out_indices if held_out else subset_indices
        indices = choose(len(all_names), max_size, subset_seed)
        if not len(indices):
            raise UserError(
                f"no image of {path} is held out: it has {len(all_names)}, give a max_size below "
                f"that instead of {max_size}"
            )
        self.names = [all_names[index] for index in indices]
        self.keys = ImageKeys(self._archive, self.names)
        self._first = all_names[0]
        self.num_channels, self.height, self.width = decode_image(self._archive, self._first).shape

        self.label_dim = 0
        self.label_kind: str | None = None
        self.label_names: list[str] | None = None
        self.raw_labels: np.ndarray | None = None
        self.present_classes: list[int] | None = None
        if use_labels:
            labels = load_labels(self._archive)
            self.label_dim = width_of(labels)
            self.label_kind = kind_of_labels(self._archive, labels)
            self.label_names = class_names(self._archive, self.label_dim)
            self.raw_labels = labels[indices]
            self.present_classes = present_classes(self.raw_labels, self.label_dim)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.num_channels, self.height, self.width

    @property
    def labels(self) -> np.ndarray | None:
        """All labels as float32 [N, label_dim], classes one-hot; None without labels.

        Computed at each access: with many classes it is large, `labels_of` gives a part.
        """
        return None if self.raw_labels is None else self.labels_of(np.arange(len(self)))

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """Return the labels of some images as float32 [n, label_dim], classes one-hot."""
        assert self.raw_labels is not None, "the dataset was opened without labels"
        raw: np.ndarray = self.raw_labels[indices]
        if raw.ndim == 2:
            return raw
        one_hot = np.zeros((len(raw), self.label_dim), np.float32)
        one_hot[np.arange(len(raw)), raw] = 1
        return one_hot

    def reopen(self) -> None:
        """Open file handles of this process's own, after a fork."""
        self._archive.reopen()

    def __reduce__(self) -> tuple[object, tuple[()]]:
        """Pickle as the arguments, which open the same images in another process."""
        return functools.partial(ImageDataset, **self._arguments), ()

    def content_key(self) -> str:
        """A name for the images and labels in use, which changes with any of them.

        It is made of file names, checksums of the files and, if the dataset was opened with
        labels, the labels as numbers. So it is the same for a zip, its copy elsewhere and the
        folder that it unpacks to. Files of a folder that were not decoded yet are read now; after
        `cached_images` nothing is read.

        Returns:
            32 hexadecimal digits.

        Raises:
            UserError: a file cannot be read.
        """
        images = self.keys.of_content()
        if self.raw_labels is None:
            return images
        return key_with_labels(images, str(self.label_kind), self.label_dim, self.raw_labels)

    def image(self, index: int) -> np.ndarray:
        """Decode one image: uint8 [C, H, W].

        Raises:
            UserError: the file is damaged, is neither 8-bit gray nor RGB, or has another size
                than the first image of the dataset.
        """
        name = self.names[index]
        content = self.keys.read(name)
        where = self._archive.where(name)
        image = decode_bytes(content, where, self.height * self.width)
        if image.shape != self.image_shape:
            raise UserError(
                f"{where} has {describe_shape(image.shape)}, but "
                f"{self._first!r} has {describe_shape(self.image_shape)}: "
                f"convert them with dataset_tool.py {remedy(image.shape, self.image_shape)}"
            )
        return image

    def load_range(self, out: np.ndarray, first: int, stop: int) -> None:
        """Decode the images first <= i < stop into out[i], uint8 [N, C, H, W], one by one.

        Raises:
            UserError: as `image`.
        """
        for index in range(first, stop):
            out[index] = self.image(index)

    def load(self, *, out: np.ndarray | None = None, progress: bool = True) -> np.ndarray:
        """Decode all images with several threads.

        Args:
            out: uint8 [N, C, H, W] to fill, e.g. a memory map; None for a new array.
            progress: show the progress on stderr, unless it is short.

        Returns:
            uint8 [N, C, H, W].

        Raises:
            UserError: as `image`, for the first file that cannot be used.
        """
        shape = (len(self), *self.image_shape)
        images = self._room(shape) if out is None else out
        assert images.shape == shape, (images.shape, shape)
        assert images.dtype == np.uint8, images.dtype
        if progress:
            with Progress(len(self), f"reading {self.name}") as shown:
                self._fill(images, 0, shown)
        else:
            self._fill(images, 0, None)
        return images

    def _room(self, shape: tuple[int, ...]) -> np.ndarray:
        try:
            return np.empty(shape, np.uint8)
        except (MemoryError, ValueError):  # ValueError: too large to be the shape of an array
            raise UserError(
                f"{self.path} has {len(self)} images of {describe_shape(self.image_shape)}, which "
                f"need {math.prod(shape) / 2**30:.0f} GiB: make them smaller, or use fewer"
            ) from None

    def batches(
        self, batch_size: int, first: int = 0, stop: int | None = None
    ) -> Iterator[np.ndarray]:
        """Decode the images in order, one batch in memory at a time.

        Args:
            batch_size: images in a batch; the last one may be smaller.
            first, stop: the range of images, first <= i < stop; None for all from `first` on.

        Yields:
            uint8 [n, C, H, W].

        Raises:
            UserError: as `image`.
        """
        end = len(self) if stop is None else stop
        for start in range(first, end, batch_size):
            num = min(batch_size, end - start)
            images = np.empty((num, *self.image_shape), np.uint8)
            self._fill(images, start, None)
            yield images

    def _fill(self, images: np.ndarray, start: int, progress: Progress | None) -> None:
        """Decode the images from number `start` on into `images`."""

        def decode_chunk(first: int) -> int:
            last = min(first + _CHUNK, len(images))
            for position in range(first, last):
                images[position] = self.image(start + position)
            return last - first

        for num in ordered_map(decode_chunk, range(0, len(images), _CHUNK)):
            if progress is not None:
                progress.update(num)


def decode_image(archive: ImageArchive, name: str) -> np.ndarray:
    """Decode an image of a dataset: uint8 [C, H, W].

    Raises:
        UserError: it is damaged, not gray or RGB, or stored turned.
    """
    return decode_bytes(archive.read(name), archive.where(name))


def decode_bytes(content: bytes, where: str, usual: int | None = None) -> np.ndarray:
    """As `decode_image`, from the bytes of a file.

    Args:
        content: of the file.
        where: what messages call it.
        usual: pixels that all images must have; None if they may differ.
    """
    plain = decode_plain(content)
    if plain is not None:
        return to_channels_first(plain)
    picture = open_picture(content, where, usual)
    if picture.mode not in _CHANNELS:
        raise UserError(
            f"{where} has the colour mode {picture.mode}, not L or RGB: convert the images "
            "with dataset_tool.py"
        )
    if orientation(picture) != 1:
        raise UserError(
            f"{where} is stored turned or mirrored (EXIF orientation): convert the images "
            "with dataset_tool.py"
        )
    return to_channels_first(np.asarray(picture))
