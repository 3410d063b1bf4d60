"""A folder or a zip of images, read in place: names, bytes, and the labels in dataset.json.

The layout is EDM's (Karras et al. 2022). Zip members are read by name and never extracted.
"""

import os
import re
import stat
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

from data.budget import reserve
from data.listing import (
    INDEX_NAME,
    LeftOut,
    by_appearance,
    folder_files,
    image_names,
    index_folder,
    phrases,
    plain_name,
)
from torch_utils.bounded import read_file
from torch_utils.errors import UserError
from torch_utils.jsons import parse_json
from torch_utils.shipped import shipped
from torch_utils.text import printable
from torch_utils.zips import BAD_ZIP, open_zip, read_member

Label = int | float | list[float]

LABEL_KINDS = ("class", "multi_hot", "vector")
MAX_FILE_BYTES = 2**28  # of one file, decompressed
MAX_INDEX_BYTES = 2**27
MAX_INDEX_VALUES = 2**24


def _is_number(value: object) -> bool:
    """Whether a label is a float, or an integer that fits an array; JSON's true is neither."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _is_unsafe(name: str) -> bool:
    """Whether a member's name leads out of the zip."""
    return bool(name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"))


def _zip_members(
    path: Path, archive: zipfile.ZipFile
) -> tuple[dict[str, zipfile.ZipInfo], LeftOut]:
    """Members by name, without links: a zip holds only the names of their targets."""
    members: dict[str, zipfile.ZipInfo] = {}
    left_out = LeftOut()
    for info in archive.infolist():
        if not info.filename:
            raise UserError(f"{path} has a member without a name: rebuild the zip")
        name = info.filename.replace("\\", "/")
        if name.endswith("/"):
            continue
        is_odd = name[:1] == "/" or name[1:2] == ":" or ".." in name
        if is_odd and _is_unsafe(name):
            raise UserError(f"{path} has the unsafe member name {info.filename!r}: rebuild the zip")
        name = plain_name(name)
        if name in members:
            raise UserError(f"{path} has the member {name!r} twice: rebuild the zip")
        if stat.S_ISLNK(info.external_attr >> 16):
            left_out["link", f"in a zip: {name}"] += 1
            continue
        members[name] = info
    return members, left_out


def checksum_of(content: bytes) -> str:
    """The checksum of a file's content, as `ImageArchive.checksum` gives it for a member."""
    return f"{zlib.crc32(content):08x}-{len(content)}"


class ImageArchive:
    """The images in a folder (with its subfolders) or in a .zip, by name; safe to share by threads.

    Links to folders are followed. Hidden files (a name or folder that begins with a dot,
    `__MACOSX`) are ignored.

    Args:
        path: the folder or the zip; assets/digits-8x8.zip is found from every folder.
        skip_bad: leave out subfolders that cannot be read, instead of raising.

    Attributes:
        path: as given.
        is_zip: whether it is a zip.
        names: the image files, relative, with forward slashes, sorted.
        left_out: other files, which are ignored, e.g. "6 files (.heic)".
        extra_indices: every dataset.json except the one for these images.

    Raises:
        UserError: the path does not exist, or is neither a folder nor a sound .zip; a subfolder
            cannot be read; a member of the zip has an unsafe, empty or repeated name; or there is
            no image.
    """

    def __init__(self, path: str | os.PathLike[str], *, skip_bad: bool = False) -> None:
        self.path = shipped(path)
        self.is_zip = not self.path.is_dir()
        self._prefix = os.fspath(self.path / "_")[:-1]
        self._lock = threading.Lock()
        self._files: dict[str, Path] = {}
        self._members: dict[str, zipfile.ZipInfo] = {}
        if not self.is_zip:
            self._files, left_out = folder_files(self.path, skip_bad=skip_bad)
        elif not self.path.exists():
            raise UserError(f"there is no folder or zip {self.path}: check the path")
        elif self.path.suffix.lower() != ".zip":
            raise UserError(f"{self.path} is not a folder or .zip: give one of those")
        else:
            try:
                self._zip = open_zip(self.path)
            except UserError:
                raise
            except BAD_ZIP as error:
                raise UserError(f"{self.path} is not a readable zip ({error})") from None
            self._members, left_out = _zip_members(self.path, self._zip)
        everything = self._members if self.is_zip else self._files
        self.names, others = image_names(everything)
        self._index_folder, self.extra_indices = index_folder(everything, self.names)
        for name in self.extra_indices:
            left_out["label file", name] += 1
        self.left_out = phrases(left_out + others)
        if not self.names:
            rest = f" but {', '.join(self.left_out)}" if self.left_out else ""
            raise UserError(
                f"{printable(self.path)} has no image in it{rest}: give a folder or zip of images"
            )

    def where(self, name: str) -> str:
        """Name a file of the archive for a message, in one line whatever characters it has."""
        # a Path would take longer than to decode a small image
        return printable(f"{name} in {self.path}" if self.is_zip else f"{self._prefix}{name}")

    def checksum(self, name: str) -> str:
        """A text that changes with a member's content: CRC-32 and size, as the zip has them."""
        member = self._members[name]
        return f"{member.CRC:08x}-{member.file_size}"

    def fingerprint(self, name: str) -> str:
        """A text that changes with a file, without reading it: inode, times and size, or checksum.

        The time of change (ctime) and the inode tell files apart that an unpacking program gave
        equal names, sizes and times of modification. The number of the device is left out, because
        a network share has another one on each machine.

        Raises:
            UserError: the file is gone, or its status cannot be read.
        """
        if self.is_zip:
            return self.checksum(name)
        try:
            found = self._files[name].stat()
        except OSError as error:
            raise UserError(f"cannot read {self.where(name)}: {error.strerror or error}") from None
        return f"{found.st_ino}-{found.st_ctime_ns}-{found.st_mtime_ns}-{found.st_size}"

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Return the bytes of the file called `name`.

        Args:
            name: of the file.
            limit: bytes that it may have; None for `MAX_FILE_BYTES`.

        Raises:
            UserError: the file does not exist, cannot be read, is not a regular one, or is larger.
        """
        where = self.where(name)
        limit = MAX_FILE_BYTES if limit is None else limit
        try:
            if self.is_zip:
                reserve(self._members[name].file_size // 4)
                return read_member(self._zip, self._members[name], limit, where, self._lock)
            return read_file(self._files[name], limit, where)
        except KeyError:
            raise UserError(f"there is no file {where}") from None
        except UserError:
            raise
        except BAD_ZIP as error:
            raise UserError(f"cannot read {where}: {error}") from None

    def reopen(self) -> None:
        """Open a file handle of this process's own, after a fork."""
        self._lock = threading.Lock()
        if self.is_zip:
            self._zip.fp = open(self.path, "rb")  # noqa: SIM115  (closed with the archive)

    def labels(self) -> dict[str, Label] | None:
        """Return the labels in dataset.json by image name; None without labels or dataset.json.

        Names need not have the same `./` or encoding of accents as the files, and are relative to
        the folder of dataset.json.

        Raises:
            UserError: dataset.json cannot be read or has another form.
        """
        pairs = self._index().get("labels")
        if pairs is None:
            return None
        labels: dict[str, Label] = {}
        stored_name = by_appearance(self.names)
        for pair in pairs if isinstance(pairs, list) else [pairs]:
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
                raise UserError(
                    f"{self.where_index}: labels must be a list of [file name, label] pairs"
                )
            name, label = stored_name(f"{self._index_folder}{plain_name(pair[0])}"), pair[1]
            numbers = label if isinstance(label, list) else [label]
            if not all(map(_is_number, numbers)):
                raise UserError(
                    f"{self.where_index}: the label of {name!r} must be a class number or "
                    "a list of numbers"
                )
            if name in labels and labels[name] != label:
                raise UserError(f"{self.where_index}: {name!r} has two different labels")
            labels[name] = label
        return labels

    def label_names(self) -> list[str] | None:
        """Return the names of classes or elements in dataset.json, or None if not given.

        Control characters in them are escaped, as they are shown in many places.

        Raises:
            UserError: dataset.json cannot be read or has another form.
        """
        names = self._index().get("label_names")
        if names is None:
            return None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{self.where_index}: label_names must be a list of strings")
        return [printable(name) for name in names]

    def label_kind(self) -> str | None:
        """Return the label_kind in dataset.json ("class", "multi_hot", "vector"), None if absent.

        Raises:
            UserError: dataset.json cannot be read or has another form.
        """
        kind = self._index().get("label_kind")
        if kind not in (None, *LABEL_KINDS):
            raise UserError(
                f"{self.where_index}: label_kind must be one of {', '.join(LABEL_KINDS)}"
            )
        return kind

    def left_out_before(self) -> list[str]:
        """Return what was left out when the dataset was made, as dataset.json lists it.

        Raises:
            UserError: dataset.json cannot be read or has another form.
        """
        listed = self._index().get("left_out")
        entries = listed if isinstance(listed, list) else []
        return [printable(entry) for entry in entries if isinstance(entry, str)]

    @property
    def has_index(self) -> bool:
        """Whether there is a dataset.json for the images."""
        return self._index_folder is not None

    @property
    def where_index(self) -> str:
        """The name of the dataset.json for a message."""
        return self.where(f"{self._index_folder or ''}{INDEX_NAME}")

    def _index(self) -> dict[str, Any]:
        if not self.has_index:
            return {}
        content = self.read(f"{self._index_folder}{INDEX_NAME}", MAX_INDEX_BYTES)
        try:
            index = parse_json(content, MAX_INDEX_VALUES)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.where_index} is not valid JSON ({error})") from None
        if not isinstance(index, dict):
            raise UserError(f'{self.where_index} must be an object with the key "labels"')
        return index
