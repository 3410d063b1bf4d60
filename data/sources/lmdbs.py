"""Images in an lmdb: LSUN's encoded pictures (Yu et al. 2015), CelebA-HQ's raw square RGB.

A process of its own, lmdb_child.py, reads the file, so that a damaged file kills only that process.
"""

import contextlib
import functools
import importlib.util
import math
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from data.decoding import open_picture
from data.modes import to_plain
from data.sources import lmdb_child
from data.sources.interface import Item, Source
from torch_utils.bounded import open_regular
from torch_utils.errors import Failure, UserError

MAX_VALUE_BYTES = 2**28
MAX_DEATHS = 100  # of reading processes, before an lmdb is given up
_SECONDS = 5  # for a process to end by itself

Result = TypeVar("Result")


class _Unreadable(Exception):
    """The reading process failed or ended; the message says why."""


class _Child:
    """A reading process and its two pipes."""

    def __init__(self, path: str, *, wants_keys: bool) -> None:
        is_folder = os.path.isdir(path)
        with open_regular(os.path.join(path, "data.mdb") if is_folder else path) as file:
            size = os.fstat(file.fileno()).st_size
        numbers = (int(is_folder), int(wants_keys), size, MAX_VALUE_BYTES)
        # isolated, and without site-packages, which take long to find: lmdb's folder is told
        options = ("-I", "-S", str(Path(lmdb_child.__file__)))
        self.process = subprocess.Popen(
            [sys.executable, *options, path, *map(str, numbers), _folder_of_lmdb()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.end = weakref.finalize(self, _end, self.process)

    def request(self, key: bytes) -> None:
        """Ask for the value of a key, which `receive` gives."""
        stdin = self.process.stdin
        assert stdin is not None
        try:
            stdin.write(lmdb_child.LENGTH.pack(len(key)) + key)
            stdin.flush()
        except OSError:
            raise _Unreadable("the process that reads it has ended") from None

    def receive(self) -> bytes | None:
        """What the process sends next; None for an end, or a value larger than the limit."""
        size = self._number()
        if size in (lmdb_child.END, lmdb_child.TOO_LARGE):
            return None
        if size == lmdb_child.ERROR:
            raise _Unreadable(self._bytes(self._number()).decode("utf-8", "replace"))
        if size == lmdb_child.ABSENT:
            raise _Unreadable("its key leads nowhere")
        return self._bytes(size)

    def _number(self) -> int:
        number: int = lmdb_child.LENGTH.unpack(self._bytes(lmdb_child.LENGTH.size))[0]
        return number

    def _bytes(self, size: int) -> bytes:
        assert self.process.stdout is not None
        content = self.process.stdout.read(size)
        if len(content) < size:
            raise _Unreadable("the process that reads it has ended, or took too long")
        return content


@functools.cache
def _folder_of_lmdb() -> str:
    """The folder that the package lmdb can be imported from; "" if there is no such package."""
    spec = importlib.util.find_spec("lmdb")
    return str(Path(spec.origin).parents[1]) if spec and spec.origin else ""


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Close the pipes, upon which the process ends."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    with contextlib.suppress(OSError):  # it has ended already
        process.stdin.close()
    try:
        process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Reader:
    """An lmdb whose process is started again when it has ended; safe to share by threads."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._deaths = 0
        self._child: _Child | None = _Child(path, wants_keys=True)
        self._expected: bytes | None = None  # key that follows the one of the last request
        self._ahead: bytes | None = None  # key of a request whose answer nobody has wanted yet

    def keys(self) -> list[bytes]:
        """The keys; call this once, before anything else.

        Raises:
            UserError: they cannot be read.
        """

        def receive(child: _Child) -> list[bytes]:
            return list(iter(child.receive, None))

        with self._lock:
            return self._with_child(receive, f"{self._path} is not a readable lmdb")

    def value(self, key: bytes, where: str, following: bytes | None = None) -> bytes | None:
        """The value of a key; None if it is larger than `MAX_VALUE_BYTES`.

        Where keys are wanted in their order, the process reads the next value meanwhile.

        Args:
            key: which the lmdb has.
            where: the name of the image, for messages.
            following: the key after it, if there is one.

        Raises:
            UserError: it cannot be read.
            Failure: this has happened too often.
        """

        def ask(child: _Child) -> bytes | None:
            if self._ahead != key:
                child.request(key)
            self._ahead = None
            content = child.receive()
            if key == self._expected and following is not None:
                child.request(following)
                self._ahead = following
            self._expected = following
            return content

        with self._lock:
            self._drop_unwanted(key)
            return self._with_child(ask, f"cannot read {where}")

    def _drop_unwanted(self, key: bytes) -> None:
        """Take the answer for another key than this one, if there is one, off the pipe."""
        if self._child is not None and self._ahead not in (None, key):
            self._ahead = None
            try:
                self._child.receive()
            except _Unreadable:  # which whoever wants that key will be told
                self._child.end()
                self._child = None

    def _with_child(self, work: Callable[[_Child], Result], problem: str) -> Result:
        try:
            if self._child is None:
                self._ahead = None
                self._child = _Child(self._path, wants_keys=False)
            return work(self._child)
        except OSError as error:
            raise UserError(f"{problem} ({error})") from None
        except _Unreadable as error:
            assert self._child is not None
            self._child.end()
            self._child, self._ahead = None, None
            self._deaths += 1
            if self._deaths > MAX_DEATHS:
                raise Failure(
                    f"{self._path} is damaged in more than {MAX_DEATHS} places: replace it"
                ) from None
            raise UserError(f"{problem} ({error}): it is damaged") from None


def _reader(path: str) -> _Reader:
    if not _folder_of_lmdb():
        raise UserError(f"{path} needs the package lmdb: pip install lmdb")
    if not os.path.exists(path):
        raise UserError(f"there is no lmdb {path}: check the path")
    try:
        return _Reader(path)
    except OSError as error:
        raise UserError(f"{path} is not a readable lmdb ({error})") from None


def _raw_square(content: bytes) -> np.ndarray | None:
    """The image [side, side, 3] of these bytes, if their number fits one."""
    side = math.isqrt(len(content) // 3)
    if side == 0 or len(content) != 3 * side * side:
        return None
    return np.frombuffer(content, np.uint8).reshape(side, side, 3)


def open_lmdb(path: str) -> Source:
    """Open an lmdb folder or file. It has no labels; entries that are not images are left out.

    Raises:
        UserError: the package lmdb is missing, or the lmdb is empty or cannot be read.
    """
    reader = _reader(path)
    keys = reader.keys()
    if not keys:
        raise UserError(f"{path} is an empty lmdb: check the path")
    if all(key.isdigit() for key in keys):
        keys = sorted(keys, key=int)  # indices; others stay in the order of the lmdb

    def where(index: int) -> str:
        return f"{keys[index].decode('ascii', 'backslashreplace')} in {path}"

    def read(index: int) -> Item:
        following = keys[index + 1] if index + 1 < len(keys) else None
        content = reader.value(keys[index], where(index), following)
        if content is None:
            raise UserError(f"{where(index)} has more than {MAX_VALUE_BYTES} bytes")
        try:
            return to_plain(open_picture(content, where(index)), where(index)), None
        except UserError:
            image = _raw_square(content)
            if image is None:
                raise
            return image, None

    return Source(len(keys), read, where, skips_damaged=True)
