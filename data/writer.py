"""Writing a dataset in EDM's layout: 00000/img00000000.png and so on, and dataset.json.

PNGs and zip are stored uncompressed, and the same images give the same bytes. A dataset gets its
name only when it is complete, so that an interrupted run leaves nothing that looks finished.
"""

import contextlib
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from data.archive import Label
from data.listing import INDEX_NAME
from torch_utils.errors import UserError
from torch_utils.files import replacing, sync_folder, writing
from torch_utils.images import png_bytes

_Write = Callable[[str, bytes], None]


@contextlib.contextmanager
def _zip_store(dest: Path) -> Iterator[_Write]:
    if dest.is_dir():
        raise UserError(f"{dest} is a folder: give the zip another name")
    with replacing(dest) as temporary, zipfile.ZipFile(temporary, "w") as archive:

        def write(name: str, content: bytes) -> None:
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # or the bytes would depend on the system that wrote them
            info.external_attr = 0o644 << 16
            archive.writestr(info, content, zipfile.ZIP_STORED)

        yield write


@contextlib.contextmanager
def _folder_store(dest: Path) -> Iterator[_Write]:
    if dest.exists() and not dest.is_dir():
        raise UserError(f"{dest} is a file: give a folder, or a name that ends in .zip")
    if dest.is_dir() and (any(dest.iterdir()) or dest.is_mount()):
        raise UserError(f"the folder {dest} must be empty or absent: give another one")
    target = dest.resolve()
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    temporary.mkdir(parents=True)

    def write(name: str, content: bytes) -> None:
        path = temporary / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    try:
        yield write
        if target.is_dir():
            target.rmdir()  # Windows renames onto nothing, not even onto an empty folder
        os.replace(temporary, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _store(dest: Path) -> Iterator[_Write]:
    opener = _zip_store if dest.suffix.lower() == ".zip" else _folder_store
    with writing(dest), opener(dest) as write:
        yield write


@dataclass(frozen=True)
class EncodedImage:
    """A PNG that is ready to be written, and its shape (channels, height, width)."""

    shape: tuple[int, ...]
    content: bytes


def encode(image: np.ndarray) -> EncodedImage:
    """Encode a uint8 image [C, H, W] with 1 or 3 channels; for threads."""
    return EncodedImage(image.shape, png_bytes(image, compress_level=0))


class DatasetWriter:
    """A context in which images are added to a new dataset, which appears when it ends well.

    Args:
        dest: a name that ends in .zip (replaced if it exists), or a folder, empty or absent.
        label_names: the names of the classes or vector elements, written beside the labels.
        label_kind: "multi_hot" if labels are tags; None if the labels themselves tell.

    Attributes:
        num_images: how many images were added.

    Raises:
        UserError: the destination cannot be used or written.
    """

    def __init__(
        self,
        dest: str | os.PathLike[str],
        *,
        label_names: Sequence[str] | None = None,
        label_kind: str | None = None,
    ) -> None:
        self.dest = Path(dest)
        self._label_kind = label_kind
        self._label_names = label_names
        self._labels: list[tuple[str, Label | None]] = []
        self._first: tuple[str, tuple[int, ...]] | None = None
        self._stack = contextlib.ExitStack()

    @property
    def num_images(self) -> int:
        """How many images were added."""
        return len(self._labels)

    def __enter__(self) -> "DatasetWriter":
        self._write = self._stack.enter_context(_store(self.dest))
        self._stack.push(self._finish)
        return self

    def add(
        self, image: EncodedImage, label: Label | None = None, *, index: int, origin: str
    ) -> None:
        """Write one image.

        Args:
            image: from `encode`.
            label: a class number, a vector, or None.
            index: its number, which gives the file name; larger than those before.
            origin: the file it came from, for messages.

        Raises:
            UserError: it has other channels or sizes than the first image, or cannot be written.
        """
        self._first = self._first or (origin, image.shape)
        if image.shape != self._first[1]:
            fields = zip(("channels", "height", "width"), image.shape, self._first[1], strict=True)
            differ = [
                f"{name} {ours}, not {first}" for name, ours, first in fields if ours != first
            ]
            raise UserError(
                f"{origin} differs from the first image {self._first[0]}: {'; '.join(differ)} "
                "(--resolution brings all to one size)"
            )
        name = f"{index:08d}"
        name = f"{name[:5]}/img{name}.png"
        self._write(name, image.content)
        self._labels.append((name, label))

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        num_labels = sum(label is not None for _, label in self._labels)
        index: dict[str, Any] = {"labels": None}
        if num_labels and num_labels == self.num_images:
            index["labels"] = self._labels
            if self._label_names is not None:
                index["label_names"] = list(self._label_names)
            if self._label_kind is not None:
                index["label_kind"] = self._label_kind
        elif num_labels:
            print(
                f"warning: no labels written: only {num_labels} of {self.num_images} images "
                "have one",
                file=sys.stderr,
            )
        self._write(INDEX_NAME, json.dumps(index).encode())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)
