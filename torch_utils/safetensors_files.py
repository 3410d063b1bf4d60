"""What a file of safetensors says of itself, read without its tensors, even if it is damaged.

The format: the length of a header in 8 bytes, the header in JSON, the bytes of the tensors.
"""

import os
import struct
from typing import Any

from torch_utils.bounded import open_regular
from torch_utils.errors import UserError
from torch_utils.jsons import parse_json

MAX_HEADER_BYTES = 2**25
MAX_VALUES = 2**22
_START = struct.Struct("<Q")


class Damaged(Exception):
    """A file is not sound safetensors; the message says what is wrong, as the end of a sentence."""


class OtherFormat(Damaged):
    """A file never was safetensors."""


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as one of safetensors does; the rest of it may be damaged."""
    try:
        with open_regular(path) as file:
            start = file.read(_START.size + 1)
    except (OSError, UserError):
        return False
    if len(start) <= _START.size or start[-1:] != b"{":
        return False
    return bool(2 <= _START.unpack(start[:-1])[0] <= MAX_HEADER_BYTES)


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The header: name of each tensor -> its dtype, shape and place; and `__metadata__`.

    Raises:
        OtherFormat: the file is no safetensors.
        Damaged: it is cut off or changed.
        UserError: it is not a regular file.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(_START.size)
        if not size:
            raise Damaged("it is empty")
        if len(start) < _START.size:
            raise OtherFormat("it is no safetensors")
        (length,) = _START.unpack(start)
        if length > MAX_HEADER_BYTES:
            raise OtherFormat("it is no safetensors")
        content = file.read(length)
    if content[:1] != b"{":
        if content:
            raise OtherFormat("it is no safetensors")
        raise Damaged(f"it ends before its header, after {size} bytes: copy it again")
    if len(content) < length:
        raise Damaged(f"it ends in its header, after {size:,} bytes: copy it again")
    try:
        header = parse_json(content.rstrip(), MAX_VALUES)
    except (ValueError, RecursionError):
        raise Damaged("its header is not JSON: copy it again") from None
    if not isinstance(header, dict):
        raise Damaged("its header is not a JSON object: copy it again")
    wanted = _START.size + length + _num_bytes(header)
    if size < wanted:
        raise Damaged(f"it ends after {size:,} of {wanted:,} bytes: copy it again")
    return header


def _num_bytes(header: dict[str, Any]) -> int:
    """The bytes that the tensors need, as far as the header tells."""
    ends = [0]
    for entry in header.values():
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if isinstance(offsets, list) and len(offsets) == 2 and type(offsets[1]) is int:
            ends.append(offsets[1])
    return max(ends)
