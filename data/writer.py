"""Writing a dataset in EDM's layout: 00000/img00000000.png and so on, and dataset.json.

PNGs and zip are stored uncompressed, and equal images give equal bytes. A dataset gets its name
only when it is complete, so an interrupted run leaves nothing that looks finished.
"""

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from data.archive import Label
from data.labels import LabelRule, check_labels
from data.listing import INDEX_NAME
from data.modes import Plain
from data.shapes import remedy
from torch_utils.errors import UserError
from torch_utils.files import sync_folder, writing
from torch_utils.images import picture_of, picture_png, png_bytes
from torch_utils.text import printable
from torch_utils.zip_writing import member, new_zip

_Write = Callable[[str, bytes], None]
_OURS = re.compile(r"[0-9]{5}/img[0-9]{8}\.png|" + re.escape(INDEX_NAME))


def check_dest(dest: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Check before the work that a dataset can be written to a place.

    Args:
        dest: a name that ends in .zip, or a folder.
        overwrite: an existing zip, or folder that is a dataset and nothing else, may be replaced.

    Raises:
        UserError: it exists, or its name belongs to another kind of file.
    """
    path, name = Path(dest), os.fspath(dest)
    with writing(name):
        if path.suffix.lower() == ".zip":
            if path.is_dir():
                raise UserError(f"{name} is a folder: give the zip another name")
            is_there = path.exists()
        elif path.is_dir():
            is_there = _is_dataset(path)
        elif path.exists():
            raise UserError(f"{name} is a file: give a folder, or a name that ends in .zip")
        elif re.search("[A-Za-z]", path.suffix) and not name.endswith(("/", os.sep)):
            raise UserError(
                f"datasets are zips or folders, not {path.suffix}: give a name that ends in .zip, "
                f"or {name}/ for a folder"
            )
        else:
            is_there = False
    if is_there and not overwrite:
        raise UserError(f"{name} exists: give another name, or --overwrite to replace it")


def _is_dataset(path: Path) -> bool:
    """Whether a folder is a dataset in our layout, and nothing else; False if it is empty.

    Raises:
        UserError: it holds something else, which must not be replaced.
    """
    if path.is_mount():
        raise UserError(f"{path} is a mount point: give a folder in it")
    if not any(path.iterdir()):
        return False
    for folder, subfolders, files in os.walk(path):
        links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
        for name in [*files, *links]:
            if not _OURS.fullmatch(Path(folder, name).relative_to(path).as_posix()):
                raise UserError(f"the folder {path} must be empty or absent: give another one")
    if not (path / INDEX_NAME).is_file():
        raise UserError(f"the folder {path} must be empty or absent: give another one")
    return True


@contextlib.contextmanager
def _zip_store(dest: Path) -> Iterator[_Write]:
    with new_zip(dest) as archive:
        yield lambda name, content: archive.writestr(member(name), content)


@contextlib.contextmanager
def _folder_store(dest: Path) -> Iterator[_Write]:
    target = dest.resolve()
    temporary, former = (
        target.with_name(f".{target.name}.{kind}-{os.getpid()}") for kind in ("tmp", "former")
    )
    temporary.mkdir(parents=True)

    def write(name: str, content: bytes) -> None:
        path = temporary / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    try:
        yield write
        if target.is_dir():  # a rename onto it would need it to be empty, or on Windows absent
            os.replace(target, former)
        try:
            os.replace(temporary, target)
        except OSError:
            if former.exists():
                os.replace(former, target)
            raise
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


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


def encode_plain(image: Plain) -> EncodedImage:
    """As `encode`, of a plain image, which need not be an array."""
    picture = picture_of(image) if isinstance(image, np.ndarray) else image
    shape = (len(picture.mode), picture.height, picture.width)  # L or RGB: a letter a channel
    return EncodedImage(shape, picture_png(picture, compress_level=0))


class DatasetWriter:
    """A context that adds images to a new dataset; the dataset appears if it ends without error.

    Args:
        dest: what `check_dest` accepts.
        source: what the images come from, for messages.
        overwrite: replace an existing dataset, once the new one is complete.
        label_names: the names of the classes or vector elements, written beside the labels.
        label_kind: "multi_hot" if labels are tags; None if the labels themselves tell.

    Attributes:
        num_images: how many images were added.
        left_out: what the dataset lacks of its source, written beside the labels; set it before
            the end.

    Raises:
        UserError: the destination cannot be used or written, or the labels cannot be trained on.
    """

    def __init__(
        self,
        dest: str | os.PathLike[str],
        *,
        source: str = "the source",
        overwrite: bool = False,
        label_names: Sequence[str] | None = None,
        label_kind: str | None = None,
    ) -> None:
        check_dest(dest, overwrite=overwrite)
        self.dest = Path(dest)
        self.left_out: list[str] = []
        self._source = source
        self._label_kind = label_kind
        self._label_names = label_names
        self._labels: list[tuple[str, Label | None]] = []
        self._first: tuple[str, tuple[int, ...]] | None = None
        self._rule = LabelRule()
        self._unlabelled = ""
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
            UserError: it has other channels or sizes than the first image, its label cannot be
                trained on, or it cannot be written.
        """
        self._first = self._first or (origin, image.shape)
        if image.shape != self._first[1]:
            fields = zip(("channels", "height", "width"), image.shape, self._first[1], strict=True)
            differ = [
                f"{name} {ours}, not {first}" for name, ours, first in fields if ours != first
            ]
            raise UserError(
                f"{origin} differs from the first image {self._first[0]}: {'; '.join(differ)} "
                f"({remedy(image.shape, self._first[1])} makes all alike)"
            )
        if label is not None:
            self._rule.check(label, origin)
        else:
            self._unlabelled = self._unlabelled or origin
        name = f"{index:08d}"
        name = f"{name[:5]}/img{name}.png"
        self._write(name, image.content)
        self._labels.append((name, label))

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        given = [label for _, label in self._labels if label is not None]
        index: dict[str, Any] = {"labels": None}
        if given and len(given) == self.num_images:
            check_labels(given, self._label_names, self._label_kind, self._source)
            index["labels"] = self._labels
            if self._label_names is not None:
                index["label_names"] = list(self._label_names)
            if self._label_kind is not None:
                index["label_kind"] = self._label_kind
        elif given:
            print(
                f"warning: no labels written: only {len(given)} of {self.num_images} images have "
                f"one, {printable(self._unlabelled)} has none",
                file=sys.stderr,
            )
            self.left_out.append(f"labels: only {len(given)} of {self.num_images} images have one")
        if self.left_out:
            index["left_out"] = self.left_out
        self._write(INDEX_NAME, json.dumps(index).encode())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)
