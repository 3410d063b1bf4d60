"""A folder or a zip of images, read in place: names, bytes, and the labels in dataset.json.

The layout is EDM's (Karras et al. 2022). Zip members are read by name and never extracted.
"""

import json
import lzma
import os
import re
import struct
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

from data.decoding import is_image_name
from torch_utils.errors import UserError

Label = int | float | list[float]

INDEX_NAME = "dataset.json"
LABEL_KINDS = ("class", "multi_hot", "vector")
MAX_FILE_BYTES = 2**28  # of one file, decompressed
_LOCAL_HEADER = 30  # bytes before a member's name

# What a damaged or unusual zip ends in, e.g. RuntimeError for an encrypted member.
_BAD_ZIP = (
    *(OSError, EOFError, ValueError, RuntimeError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)


def _is_hidden(name: str) -> bool:
    """Whether a file is one that systems leave beside images (`._x.png`, `__MACOSX/`)."""
    if name[0] != "." and "/." not in name and "__MACOSX" not in name:
        return False  # the common case, a million times for a large data set
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _is_number(value: object) -> bool:
    """Whether a label is a float, or an integer that fits an array; JSON's true is neither."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _folder_files(root: Path) -> dict[str, Path]:
    files = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            files[path.relative_to(root).as_posix()] = path
    return files


def _is_unsafe(name: str) -> bool:
    """Whether a member's name leads out of the zip."""
    return bool(name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"))


def _zip_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.is_dir():
            continue
        name = info.filename.replace("\\", "/")
        is_odd = name[:1] == "/" or name[1:2] == ":" or ".." in name
        if is_odd and _is_unsafe(name):
            raise UserError(f"{path} has the unsafe member name {info.filename!r}: rebuild the zip")
        if name in members:
            raise UserError(f"{path} has the member {name!r} twice: rebuild the zip")
        members[name] = info
    return members


def checksum_of(content: bytes) -> str:
    """The checksum of a file's content, as `ImageArchive.checksum` gives it for a member."""
    return f"{zlib.crc32(content):08x}-{len(content)}"


class ImageArchive:
    """The images in a folder (with its subfolders) or in a .zip, by name; safe to share by threads.

    Hidden files (a name or folder that begins with a dot, `__MACOSX`) are not looked at.

    Args:
        path: the folder or the zip.

    Attributes:
        path: as given.
        is_zip: whether it is a zip.
        names: the image files, relative, with forward slashes, sorted.

    Raises:
        UserError: nothing is there, it is neither a folder nor a sound .zip, a member of the zip
            has an unsafe or repeated name, or there is no image.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.is_zip = not self.path.is_dir()
        self._lock = threading.Lock()
        self._files: dict[str, Path] = {}
        self._members: dict[str, zipfile.ZipInfo] = {}
        if not self.is_zip:
            self._files = _folder_files(self.path)
        elif not self.path.exists():
            raise UserError(f"there is no folder or zip {self.path}: check the path")
        elif self.path.suffix.lower() != ".zip":
            raise UserError(f"{self.path} is not a folder or .zip: give one of those")
        else:
            try:
                self._zip = zipfile.ZipFile(self.path)
            except _BAD_ZIP as error:
                raise UserError(f"{self.path} is not a readable zip ({error})") from None
            self._members = _zip_members(self.path, self._zip)
        self.names = sorted(
            name
            for name in (self._members if self.is_zip else self._files)
            if is_image_name(name) and not _is_hidden(name)
        )
        if not self.names:
            raise UserError(f"{self.path} has no image in it: give a folder or zip of images")

    def where(self, name: str) -> str:
        """Name a file of the archive for a message, in one line whatever the name has in it."""
        shown = name if name.isprintable() else repr(name)[1:-1]
        return f"{shown} in {self.path}" if self.is_zip else str(self.path / shown)

    def checksum(self, name: str) -> str:
        """What is another when a member's content is: CRC-32 and size, as the zip has them."""
        member = self._members[name]
        return f"{member.CRC:08x}-{member.file_size}"

    def fingerprint(self, name: str) -> str:
        """What is another when a file is, without reading it: inode, times and size, or checksum.

        The time of change (ctime) and the inode tell files apart that an unpacking program gave
        equal names, sizes and times of modification. The number of the device is no part of it:
        that of a network share is another one on each machine.

        Raises:
            UserError: the file is gone or cannot be looked at.
        """
        if self.is_zip:
            return self.checksum(name)
        try:
            stat = self._files[name].stat()
        except OSError as error:
            raise UserError(f"cannot read {self.where(name)}: {error.strerror or error}") from None
        return f"{stat.st_ino}-{stat.st_ctime_ns}-{stat.st_mtime_ns}-{stat.st_size}"

    def read(self, name: str) -> bytes:
        """Return the bytes of the file called `name`.

        Raises:
            UserError: there is no such file, it cannot be read, or it is larger than
                `MAX_FILE_BYTES`.
        """
        where = self.where(name)
        try:
            if self.is_zip:
                size = self._members[name].file_size
            else:
                size = self._files[name].stat().st_size
            if size > MAX_FILE_BYTES:
                raise UserError(f"{where} has {size} bytes, more than {MAX_FILE_BYTES}: remove it")
            if not self.is_zip:
                return self._files[name].read_bytes()
            member = self._members[name]
            if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
                return self._stored(member)
            with self._lock:
                return self._zip.read(member)
        except KeyError:
            raise UserError(f"there is no file {where}") from None
        except _BAD_ZIP as error:
            raise UserError(f"cannot read {where}: {error}") from None

    def reopen(self) -> None:
        """Take a file handle of one's own; for a process that was forked from the opener's."""
        self._lock = threading.Lock()
        if self.is_zip:
            self._zip.fp = open(self.path, "rb")  # noqa: SIM115  (closed with the archive)

    def _stored(self, member: zipfile.ZipInfo) -> bytes:
        """The content of an uncompressed member.

        zipfile's own stream takes about as long as decoding a small image.
        """
        with self._lock:
            file = self._zip.fp
            assert file is not None
            file.seek(member.header_offset)
            header = file.read(_LOCAL_HEADER)
            if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
                raise zipfile.BadZipFile("its header is damaged")
            name_length, extra_length = struct.unpack("<HH", header[26:30])
            file.seek(name_length + extra_length, os.SEEK_CUR)
            content = file.read(member.file_size)
        if len(content) < member.file_size or zlib.crc32(content) != member.CRC:
            raise zipfile.BadZipFile("its checksum is wrong")
        return content

    def labels(self) -> dict[str, Label] | None:
        """Return the labels in dataset.json by image name, or None if it has none or is absent.

        Raises:
            UserError: dataset.json cannot be read or has another form.
        """
        pairs = self._index().get("labels")
        if pairs is None:
            return None
        labels: dict[str, Label] = {}
        for pair in pairs if isinstance(pairs, list) else [pairs]:
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
                raise UserError(
                    f"{self.where(INDEX_NAME)}: labels must be a list of [file name, label] pairs"
                )
            name, label = pair[0].replace("\\", "/"), pair[1]
            numbers = label if isinstance(label, list) else [label]
            if not all(map(_is_number, numbers)):
                raise UserError(
                    f"{self.where(INDEX_NAME)}: the label of {name!r} must be a class number or "
                    "a list of numbers"
                )
            if name in labels and labels[name] != label:
                raise UserError(f"{self.where(INDEX_NAME)}: {name!r} has two different labels")
            labels[name] = label
        return labels

    def label_names(self) -> list[str] | None:
        """Return the names of classes or elements in dataset.json, or None if not given.

        Raises:
            UserError: dataset.json cannot be read or has another form.
        """
        names = self._index().get("label_names")
        if names is None:
            return None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{self.where(INDEX_NAME)}: label_names must be a list of strings")
        return names

    def label_kind(self) -> str | None:
        """Return the label_kind in dataset.json ("class", "multi_hot", "vector"), None if absent.

        Raises:
            UserError: dataset.json cannot be read or has another form.
        """
        kind = self._index().get("label_kind")
        if kind not in (None, *LABEL_KINDS):
            raise UserError(
                f"{self.where(INDEX_NAME)}: label_kind must be one of {', '.join(LABEL_KINDS)}"
            )
        return kind

    @property
    def has_index(self) -> bool:
        """Whether there is a dataset.json."""
        return INDEX_NAME in (self._members if self.is_zip else self._files)

    def _index(self) -> dict[str, Any]:
        if not self.has_index:
            return {}
        content = self.read(INDEX_NAME)
        try:
            index = json.loads(content.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.where(INDEX_NAME)} is not valid JSON ({error})") from None
        if not isinstance(index, dict):
            raise UserError(f'{self.where(INDEX_NAME)} must be an object with the key "labels"')
        return index
