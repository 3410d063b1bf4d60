"""Kernels that PyTorch's compiler keeps on disk, rid of those that are not whole.

A kernel is written where it stays, so that a kill can cut it off, and a machine that loses power
can leave any file empty. What is there is used as it is: a library that was cut off is mapped into
memory, and ends the process by a signal, which no handler of exceptions sees. What is absent is
made anew.

Only what the compiler makes by C++, and its sources, are looked at. Triton's kernels are not: they
lie in folders of their own, and their format is a GPU's.
"""

import contextlib
import os
import struct
import sys
from pathlib import Path

from torch_utils.locks import Busy, holding

# of the ELF format, generic ABI, chapter 4: 64-bit header, from the offset of the section headers
# on; the size of such a header; and the type of the section that holds the names of all
_MAGIC, _IS_64_BIT, _IS_LITTLE = b"\x7fELF", 2, 1
_HEADER, _HEADER_BYTES, _AT = "QIHHHHHH", 64, 40
_SECTION_BYTES, _STRING_TABLE = 64, 3
_SOURCES = (".py", ".cpp")
_SHORTEST_KEY = 40  # letters; a hash in base 32


def kernel_folder() -> Path | None:
    """Where PyTorch's compiler keeps what it has made; the folder need not exist.

    None where PyTorch itself cannot tell, which then compiles nothing.
    """
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    return _default() if given is None else Path(given).absolute()


def kept_folders() -> list[Path]:
    """All folders that have to be removed so that nothing is kept.

    Precompiled headers of C++ are in the default folder, whatever the environment says. A kill can
    cut them off, too, and nothing in them tells. Triton's kernels are in the folder that
    TRITON_CACHE_DIR names, else in that of the others.
    """
    folder, default, triton = kernel_folder(), _default(), os.environ.get("TRITON_CACHE_DIR")
    found = [] if folder is None else [folder]
    if default is not None and (default / "precompiled_headers").exists():
        found.append(default / "precompiled_headers")
    if triton:
        found.append(Path(triton).absolute())
    return [path for path in found if path == folder or folder not in path.parents]


def _default() -> Path | None:
    """The compiler's own choice; None if it has none, e.g. for a user without a name."""
    try:
        # imported late, as it loads the compiler
        from torch._inductor.runtime.runtime_utils import (  # type: ignore[attr-defined]
            default_cache_dir,
        )

        return Path(default_cache_dir())
    except (KeyError, OSError, ImportError):  # all of them of getpass.getuser in older PyTorch
        return None


def remove_damaged(folder: Path) -> list[Path]:
    """Remove libraries that were cut off, and sources that are empty, unless one is being written.

    Libraries are those of C++, not Triton's kernels. Other damage is left to the compiler: it makes
    entries of its tables anew that it cannot read, and fails over other files.

    Args:
        folder: of `kernel_folder`.

    Returns:
        What was removed.

    Raises:
        OSError: a damaged file cannot be removed.
    """
    if sys.platform != "linux":  # libraries of another format
        return []
    found = (path for path in folder.glob("??/*") if path.suffix in (".so", *_SOURCES))
    kernels = (path for path in found if _is_kernel(path))
    return [path for path in kernels if not _is_whole(path) and _removed(path, folder)]


def _key(path: Path) -> str:
    """The key of the compiler's for a file of its."""
    return path.name.split(".")[0]


def _is_kernel(path: Path) -> bool:
    """Whether the compiler named a file: others', in a folder that they share, are not ours."""
    key = _key(path)
    return len(key) >= _SHORTEST_KEY and path.parent.name == key[1:3]


def _removed(path: Path, folder: Path) -> bool:
    """Remove a file if, with the compiler's own lock held, it is still not whole."""
    lock = folder / "locks" / f"{_key(path)}.lock"
    lock.parent.mkdir(exist_ok=True)
    with contextlib.suppress(Busy), holding(lock, "removes a damaged kernel", wait=False):
        if not _is_whole(path):
            path.unlink()
            return True
    return False  # it is being written, or was at first sight


def _is_whole(path: Path) -> bool:
    """Whether a source has content, and a library all its parts; True where this is unknown."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if path.suffix in _SOURCES:
            return size > 0
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
            return False
        if header[4] != _IS_64_BIT:
            return True
        order = "<" if header[5] == _IS_LITTLE else ">"
        # linkers put the section headers at the end
        start, *_, entry, num, names = struct.unpack_from(order + _HEADER, header, _AT)
        is_table = bool(start) and entry == _SECTION_BYTES and names < num
        if not is_table or start + num * entry > size:
            return False
        file.seek(start + names * entry)
        _, kind = struct.unpack(order + "II", file.read(8))
        return bool(kind == _STRING_TABLE)  # 0 in a hole, where data did not reach the disk
    return True
