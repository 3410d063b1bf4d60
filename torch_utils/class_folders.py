"""Folders that stand for classes: the names that generated images go to, and how they read back.

Both directions are here, so that readers of what generate.py writes find the same classes in the
same order.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

_MAX_LENGTH = 60  # characters; file systems allow 255 bytes
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]|^[.]|[. ]$')  # on some system
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)([.].*)?|__MACOSX")


def in_order(folders: Iterable[str]) -> list[str]:
    """Sort class folders, as numbers if all are numbers; "" stands for files beside folders."""
    listed = list(folders)
    if all(name.isdecimal() and name.isascii() for name in listed if name):
        return sorted(listed, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name))
    return sorted(listed)


def class_names(folders: Sequence[str]) -> list[str]:
    """The classes that sorted folders stand for: `00-cat`, `01-dog`, ... are cat, dog, ..."""
    prefixes = _prefixes(len(folders))
    pairs = list(zip(folders, prefixes, strict=True))
    if folders and all(folder.startswith(prefix) for folder, prefix in pairs):
        return [folder.removeprefix(prefix) for folder, prefix in pairs]
    return list(folders)


def folder_names(names: Sequence[str]) -> list[str]:
    """Choose a folder for each class, such that `in_order` and `class_names` give the classes back.

    A folder has the class's name, with `_` for characters that some system does not allow in file
    names. If two classes would share a folder, or the folders would sort in another order than the
    classes, every name gets the number of its class in front: `00-wolf`, `01-cat`.

    Args:
        names: of the classes, in order.
    """
    safe = [_safe(name) for name in names]
    num_distinct = len({unicodedata.normalize("NFC", name).casefold() for name in safe})
    if num_distinct == len(safe) and in_order(safe) == safe and class_names(safe) == safe:
        return safe
    return [prefix + name for prefix, name in zip(_prefixes(len(safe)), safe, strict=True)]


def _prefixes(num: int) -> list[str]:
    width = len(str(num - 1))
    return [f"{index:0{width}d}-" for index in range(num)]


def _safe(name: str) -> str:
    safe = _UNSAFE.sub("_", unicodedata.normalize("NFC", name)[:_MAX_LENGTH])
    return f"_{safe}" if not safe or _RESERVED.fullmatch(safe) else safe
