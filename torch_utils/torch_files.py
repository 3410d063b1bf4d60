"""Files of torch.save, read without torch's unpickler: plain data and dense tensors, nothing else.

Both formats are read: the zip of torch 1.6 and later, whose checksums are verified, and the older
stream of pickles; also the tensors of a plain pickle, each with such a stream in it. The file must
hold all that tensors are made of: no memory is taken for sizes that it only names, and no tensor
has more elements than its storage.
"""

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import torch
from torch import Tensor

from torch_utils.bounded import open_regular
from torch_utils.errors import UserError
from torch_utils.pickle_rules import CONTAINER_RULES, Refused, Rule, Token
from torch_utils.safe_pickle import BASIC_RULES, Limits, read_pickle
from torch_utils.zips import BAD_ZIP, open_zip, read_member, seek_member

LIMITS = Limits(bytes=2**26, items=2**22)
_SHARING = 4  # all tensors together may have so many times the bytes of the storages
_MAX_SIZE = 2**48
_MAX_DIMENSIONS = 64  # of torch
_ZIP_START = b"PK\x03\x04"
_OLD_START = [0x1950A86A20F9469CFC6C, 1001]  # what the stream of pickles begins with
_OLD_MARK = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first of the two, pickled
_TYPES: Mapping[str, torch.dtype] = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
    "torch ComplexFloatStorage": torch.complex64,
    "torch ComplexDoubleStorage": torch.complex128,
}


@dataclass(frozen=True)
class _Storage:
    """The elements that tensors are views of, [numel]."""

    elements: Tensor


@dataclass
class _Storages:
    """The storages of a file by key, and how much has been made of them."""

    read: Callable[[str, int], Tensor]
    found: dict[str, _Storage] = field(default_factory=dict)
    stored: int = 0
    used: int = 0

    def get(self, identity: Any) -> _Storage:
        """The storage with a persistent id: kind, type, key, device and number of elements."""
        if not isinstance(identity, tuple) or len(identity) not in (5, 6):
            raise Refused("it has an odd persistent id")
        kind, token, key, _, num = identity[:5]
        dtype = _TYPES.get(token.name) if isinstance(token, Token) else None
        is_whole = kind == "storage" and isinstance(key, str) and identity[5:] in ((), (None,))
        if dtype is None or not is_whole or type(num) is not int or not 0 <= num < _MAX_SIZE:
            raise Refused("it has a storage of an unknown kind")
        if key not in self.found:
            elements = self.read(key, num * dtype.itemsize).view(dtype)
            self.found[key] = _Storage(elements)
            self.stored += num * dtype.itemsize
        storage = self.found[key]
        if storage.elements.dtype != dtype or len(storage.elements) != num:
            raise Refused(f"it has two kinds of the storage {key[:20]!r}")
        return storage

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        """A view of a storage; whether it needs gradients, and hooks, are left out."""
        if not isinstance(storage, _Storage):
            raise Refused("it has a tensor without a storage")
        sizes, strides = tuple(size), tuple(stride)
        numbers = (offset, *sizes, *strides)
        is_shape = len(sizes) == len(strides) <= _MAX_DIMENSIONS
        if not is_shape or not all(type(n) is int and 0 <= n < _MAX_SIZE for n in numbers):
            raise Refused("it has a tensor whose sizes are invalid")
        elements = storage.elements
        last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
        num = math.prod(sizes)
        if num > len(elements) or (num and last >= len(elements)):
            raise Refused(f"it has a tensor of size {list(sizes)} in {len(elements)} elements")
        self.used += num * elements.itemsize
        if self.used > _SHARING * self.stored:
            raise Refused("its tensors share their elements too often")
        return elements.as_strided(sizes, strides, offset) if num else elements.new_empty(sizes)


def _rules(storages: _Storages, more: Mapping[str, Rule]) -> Mapping[str, Rule]:
    ordered = CONTAINER_RULES["collections OrderedDict"]
    return {
        **BASIC_RULES,
        **dict.fromkeys(_TYPES, Rule()),
        # state dicts have versions of modules as attributes, which are not needed here
        "collections OrderedDict": Rule(ordered.make, lambda value, state: None),
        **_tensor_rules(storages),
        "torch Size": Rule(lambda sizes: tuple(sizes)),
        **more,
    }


def inline_rules(what: str) -> dict[str, Rule]:
    """Rules for tensors in a plain pickle, where every storage is a stream of torch.save in bytes.

    Args:
        what: the file's name, for messages.
    """
    every = _Storages(_no_storage)
    tags = dict.fromkeys(_TYPES, Rule())

    def storage(content: Any) -> _Storage:
        if not isinstance(content, bytes):
            raise Refused(f"it has a storage of type {type(content).__name__}")
        stream = io.BytesIO(content)
        try:
            found = _read_stream(stream, len(content), what, lambda _: tags)
        except (EOFError, struct.error):
            raise Refused("it has a storage that ends too early") from None
        if not isinstance(found, _Storage) or stream.read(1):
            raise Refused("it has a storage with something else in it")
        every.stored += found.elements.nbytes
        return found

    return {"torch.storage _load_from_bytes": Rule(storage), **_tensor_rules(every)}


def _no_storage(key: str, size: int) -> Tensor:
    raise Refused("it has a storage outside of it")


def _tensor_rules(storages: _Storages) -> dict[str, Rule]:
    return {
        "torch._utils _rebuild_tensor": Rule(storages.tensor),
        "torch._utils _rebuild_tensor_v2": Rule(storages.tensor),
        "torch._utils _rebuild_parameter": Rule(_parameter),
        "torch._utils _rebuild_parameter_with_state": Rule(_parameter),
    }


def _parameter(data: Any, *_: Any) -> Tensor:
    """The tensor itself; whether it needs gradients, hooks and attributes are left out."""
    if not isinstance(data, Tensor):
        raise Refused(f"it has a parameter of type {type(data).__name__}")
    return data


def is_torch_file(start: bytes) -> bool:
    """Whether a file that starts so is of torch.save; its first 16 bytes are enough."""
    return start.startswith((_ZIP_START, _OLD_MARK))


def load(
    path: str | os.PathLike[str], what: str, *, rules: Mapping[str, Rule] | None = None
) -> Any:
    """Read a file of torch.save onto the CPU.

    Args:
        path: the file.
        what: its name, for messages.
        rules: for further globals, see `torch_utils.pickle_rules`.

    Returns:
        Numbers, texts, lists, tuples, dicts, tensors and arrays. A parameter is a tensor.

    Raises:
        UserError: it cannot be read, is damaged, holds anything else, or would take more memory
            than it has bytes.
    """
    more = rules or {}
    try:
        with open_regular(path, what) as file:
            is_zip = file.read(len(_ZIP_START)) == _ZIP_START
            file.seek(0)
            if not is_zip:
                capped = Capped(file)
                return _read_stream(capped, capped.size, what, lambda found: _rules(found, more))
        with open_zip(path) as archive:
            return _read_zip(archive, what, more)
    except UserError:
        raise
    except (*BAD_ZIP, KeyError) as error:
        raise UserError(f"{what} is damaged: {error or type(error).__name__}") from None


def _read_zip(archive: zipfile.ZipFile, what: str, rules: Mapping[str, Rule]) -> Any:
    members = {member.filename: member for member in archive.infolist()}
    folder = next(iter(members), "").partition("/")[0]
    order = members.get(f"{folder}/byteorder")
    if order is not None and read_member(archive, order, 16, what) != b"little":
        raise zipfile.BadZipFile("its numbers are not little-endian")

    def read(key: str, size: int) -> Tensor:
        member = members[f"{folder}/data/{key}"]
        _check_stored(member)
        if member.file_size != size:
            raise Refused(f"it has {member.file_size} bytes for a storage of {size}")
        return _filled(seek_member(archive, member), size, member.CRC)

    record = members[f"{folder}/data.pkl"]
    _check_stored(record)
    content = read_member(archive, record, LIMITS.bytes, what)
    storages = _Storages(read)
    return read_pickle(
        io.BytesIO(content),
        what,
        rules=_rules(storages, rules),
        persistent=storages.get,
        limits=LIMITS,
    )


def _check_stored(member: zipfile.ZipInfo) -> None:
    """Refuse compressed records: torch writes none, and few bytes could unpack to very many."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise zipfile.BadZipFile("a record in it is compressed")


def _filled(file: IO[bytes], size: int, checksum: int | None) -> Tensor:
    """The next `size` bytes of a file as a new tensor."""
    content = torch.empty(size, dtype=torch.uint8)
    _fill(file, content)
    if checksum is not None and zlib.crc32(content.numpy().data) != checksum:
        raise zipfile.BadZipFile("its checksum is wrong")
    return content


def _fill(file: IO[bytes], content: Tensor) -> None:
    view = content.numpy().data
    if len(view) and file.readinto(view) != len(view):  # type: ignore[attr-defined]
        raise EOFError("it ends too early")


class Capped(io.BufferedReader):
    """A file that takes no more memory than its bytes, however many are asked for."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)  # type: ignore[arg-type]
        self.size = os.fstat(file.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        """At most so many bytes, as many as there are."""
        left = self.size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, left))


def _read_stream(
    file: IO[bytes], size: int, what: str, rules: Callable[[_Storages], Mapping[str, Rule]]
) -> Any:
    """The older format: mark, version, system, the object, keys of its storages, their bytes."""
    left = size
    waiting: dict[str, Tensor] = {}

    def allocate(key: str, size: int) -> Tensor:
        nonlocal left
        left -= size
        if left < 0:
            raise Refused("it names more bytes than it has")
        waiting[key] = torch.empty(size, dtype=torch.uint8)
        return waiting[key]

    def read(**options: Any) -> Any:
        return read_pickle(file, what, limits=LIMITS, **options)

    if [read(), read()] != _OLD_START:
        raise UserError(f"{what} is not a file of torch.save")
    read()  # sizes of C's types on the system that wrote it
    storages = _Storages(allocate)
    tree = read(rules=rules(storages), persistent=storages.get)
    keys = read()
    if not isinstance(keys, list) or set(keys) != waiting.keys() or len(keys) != len(waiting):
        raise UserError(f"{what} is damaged: it does not have the storages that it names")
    for key in keys:
        (num,) = struct.unpack("<q", file.read(8))
        if num != len(storages.found[key].elements):
            raise UserError(f"{what} is damaged: a storage has another size than it says")
        _fill(file, waiting[key])
    return tree
