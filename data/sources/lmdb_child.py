"""The process that reads an lmdb for lmdbs.py; run as a script, it imports nothing of ours.

It is started without Python's site-packages, and imports little, since most of the time of a small
lmdb goes into its start.

liblmdb trusts the offsets of a damaged file. The system then kills the process that has the file
mapped, which is this one. It writes the keys, if wanted, then an answer for each request, to its
standard output.
"""

import os
import signal
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a fifth of the time of the start
    from typing import IO, Any

LENGTH = struct.Struct("<q")  # of what follows; or one of these instead
END, ABSENT, TOO_LARGE, ERROR = -1, -2, -3, -4
SECONDS = 15  # for an answer; a page that leads to itself would take for ever
_NODE_BYTES = 10  # that a file has for each key, beside the key
_OFTEN = 1024  # keys


def _watch(seconds: int) -> None:
    """Let the system end this process, by SIGALRM, unless this is called again in time."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _put(out: "IO[bytes]", content: "Any") -> None:
    out.write(LENGTH.pack(len(content)))
    out.write(content)


def _send_keys(environment: "Any", size: int, out: "IO[bytes]") -> None:
    """All keys in their order; more than the file can hold are a sign of damage."""
    with environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
        for number, key in enumerate(cursor.iternext(keys=True, values=False)):
            size -= len(key) + _NODE_BYTES
            if size < 0:
                raise OverflowError("it has more keys than its size allows")
            if number % _OFTEN == 0:
                _watch(SECONDS)
            _put(out, key)
    out.write(LENGTH.pack(END))


def _answer(environment: "Any", key: bytes, limit: int, out: "IO[bytes]") -> None:
    with environment.begin(buffers=True) as transaction:
        _watch(SECONDS)
        value = transaction.get(key)
        _watch(0)  # an answer may wait long until it is wanted
        if value is None:
            out.write(LENGTH.pack(ABSENT))
        elif len(value) > limit:
            out.write(LENGTH.pack(TOO_LARGE))
        else:
            _put(out, value)


def main() -> None:
    """Arguments: path; as numbers: is it a folder, are keys wanted, size of the file, limit; and
    the folder of the package lmdb.
    """
    path, (is_folder, wants_keys, size, limit) = sys.argv[1], map(int, sys.argv[2:6])
    sys.path.append(sys.argv[6])
    import lmdb

    requests, out = sys.stdin.buffer, sys.stdout.buffer
    try:
        _watch(SECONDS)
        environment = lmdb.open(
            path, readonly=True, lock=False, readahead=False, subdir=bool(is_folder)
        )
        if wants_keys:
            _send_keys(environment, size, out)
        out.flush()
        _watch(0)
        while header := requests.read(LENGTH.size):
            key = requests.read(LENGTH.unpack(header)[0])
            _answer(environment, key, limit, out)
            out.flush()
    except (lmdb.Error, OSError, OverflowError, MemoryError) as error:
        out.write(LENGTH.pack(ERROR))
        _put(out, str(error).encode())
        out.flush()
    os._exit(0)  # nothing is left to be done, which the interpreter takes long to do


if __name__ == "__main__":
    main()
