"""Data sets made and read the way that published programs do it: one image after the other.

Written from a description of EDM's dataset_tool.py and data set (Karras et al. 2022): Pillow reads
an image, a transform makes another one, Pillow packs it without compression, and a stored zip takes
it. What it makes has the layout of our data sets.
"""

import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image

Image = np.ndarray  # uint8 [H, W] or [H, W, 3]
Labelled = tuple[Image, int | None]


def open_folder(path: Path) -> Iterator[Labelled]:
    """The images of a folder, sorted by name."""
    names = sorted(os.path.join(root, name) for root, _, files in os.walk(path) for name in files)
    for name in names:
        yield np.array(PIL.Image.open(name)), None


def open_zip(path: Path) -> Iterator[Labelled]:
    """The images of a zip, sorted by name, with the labels in dataset.json."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        labels = dict(json.loads(archive.read("dataset.json"))["labels"] or [])
        for name in names:
            with archive.open(name) as file:
                yield np.array(PIL.Image.open(file)), labels.get(name)


def open_cifar(path: Path) -> Iterator[Labelled]:
    """The training images of cifar-10-python.tar.gz."""
    with tarfile.open(path) as archive:
        batches = []
        for number in range(1, 6):
            file = archive.extractfile(f"cifar-10-batches-py/data_batch_{number}")
            assert file is not None
            batches.append(pickle.load(file, encoding="latin1"))
    for batch in batches:
        images = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        yield from zip(images, batch["labels"], strict=True)


def open_lmdb(path: Path) -> Iterator[Labelled]:
    """The images of an lmdb, in the order of their keys."""
    import lmdb

    with lmdb.open(str(path), readonly=True, lock=False).begin() as transaction:
        for _, value in transaction.cursor():
            yield np.array(PIL.Image.open(io.BytesIO(value))), None


def resized(image: Image, size: int) -> Image:
    """Lanczos to a square; an image of that size stays as it is."""
    if image.shape[:2] == (size, size):
        return image
    return np.array(PIL.Image.fromarray(image).resize((size, size), PIL.Image.Resampling.LANCZOS))


def cropped(image: Image, size: int) -> Image:
    """The central square, Lanczos to that size."""
    rows, columns = image.shape[:2]
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    return resized(image[top : top + side, left : left + side], size)


def convert(images: Iterator[Labelled], transform: Callable[[Image], Image], dest: Path) -> None:
    """Write a data set into a zip."""
    labels: list[tuple[str, int | None]] = []
    with zipfile.ZipFile(dest, "w", zipfile.ZIP_STORED) as archive:
        for index, (image, label) in enumerate(images):
            number = f"{index:08d}"
            name = f"{number[:5]}/img{number}.png"
            content = io.BytesIO()
            picture = PIL.Image.fromarray(transform(image))
            picture.save(content, format="png", compress_level=0, optimize=False)
            archive.writestr(name, content.getvalue())
            labels.append((name, label))
        known = all(label is not None for _, label in labels)
        archive.writestr("dataset.json", json.dumps({"labels": labels if known else None}))


class Images:
    """A data set for PyTorch's loader: each process opens the zip once, each item is decoded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        with zipfile.ZipFile(path) as archive:
            self.names = sorted(name for name in archive.namelist() if name.endswith(".png"))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 [C, H, W]."""
        self._zip = self._zip or zipfile.ZipFile(self.path)
        with self._zip.open(self.names[index]) as file:
            image = np.array(PIL.Image.open(file))
        image = image[:, :, None] if image.ndim == 2 else image
        return image.transpose(2, 0, 1).copy()
