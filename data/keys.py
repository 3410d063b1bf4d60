"""Names for the content of a data set: they change with a file, and are the same for a copy."""

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data.archive import ImageArchive, checksum_of
from data.parallel import ordered_map

_DIGITS = 32  # hexadecimal, of a key
_CHUNK = 64  # files that one thread reads at a time


class ImageKeys:
    """Keys of some images of a folder or zip.

    The checksum of a file in a folder is known once `read` has read it; a zip lists those of its
    members.

    Args:
        archive: the folder or zip.
        names: the images.
    """

    def __init__(self, archive: ImageArchive, names: Sequence[str]) -> None:
        self._archive = archive
        self._names = names
        self._checksums: dict[str, str] = {}
        self._content: str | None = None
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes:
        """The bytes of an image; its checksum is noted.

        Raises:
            UserError: as `ImageArchive.read`.
        """
        content = self._archive.read(name)
        if not self._archive.is_zip:
            self.add({name: checksum_of(content)})
        return content

    def noted(self, first: int, stop: int) -> dict[str, str]:
        """The checksums of the images first <= i < stop that are known, for another process."""
        names = self._names[first:stop]
        return {name: self._checksums[name] for name in names if name in self._checksums}

    def add(self, checksums: Mapping[str, str]) -> None:
        """Note checksums, e.g. those that another process found."""
        with self._lock:
            if any(self._checksums.get(name, new) != new for name, new in checksums.items()):
                self._content = None  # a file was changed since it was read last
            self._checksums.update(checksums)

    def of_content(self) -> str:
        """A key of the images' names and content. Unread files of a folder are read now.

        Raises:
            UserError: a file cannot be read.
        """
        if self._content is None:
            if not self._archive.is_zip:
                self._read_rest()
            known = self._checksums
            contents = [known.get(name) or self._archive.checksum(name) for name in self._names]
            self._content = _digest(zip(self._names, contents, strict=True))
        return self._content

    def know(self, content: str) -> None:
        """Set the key that `of_content` gave for the same files before, instead of reading them."""
        self._content = content

    def of_files(self) -> str:
        """A key of the images as files of this machine, without reading them.

        A folder's key changes when a file is changed, replaced or moved; a zip's is that of its
        content.

        Raises:
            UserError: a file is gone, or its status cannot be read.
        """
        if self._archive.is_zip:
            return self.of_content()
        files = [(name, self._archive.fingerprint(name)) for name in self._names]
        return _digest([(os.path.realpath(self._archive.path), ""), *files])

    def _read_rest(self) -> None:
        missing = [name for name in self._names if name not in self._checksums]

        def read(first: int) -> None:
            for name in missing[first : first + _CHUNK]:
                self.read(name)

        for _ in ordered_map(read, range(0, len(missing), _CHUNK)):
            pass


def key_with_labels(images: str, kind: str, label_dim: int, labels: np.ndarray) -> str:
    """The key of images and their labels.

    Args:
        images: from `ImageKeys.of_content`.
        kind: of the labels, see `ImageDataset.label_kind`.
        label_dim: classes, or elements of a vector.
        labels: int [N] classes or float [N, label_dim] vectors.
    """
    plain = labels.astype("<i8" if labels.ndim == 1 else "<f4")
    content = hashlib.sha256(plain.tobytes()).hexdigest()
    return _digest([("images", images), (kind, f"{label_dim} {plain.shape}"), ("labels", content)])


def _digest(pairs: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for name, content in pairs:
        digest.update(f"{name}\0{content}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:_DIGITS]
