"""The files of a folder or zip: which names are images, and a count of the others by kind."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from data.decoding import is_image_name
from torch_utils.errors import UserError
from torch_utils.text import printable

INDEX_NAME = "dataset.json"
MAX_FOLDERS = 2**18  # links can turn a few folders into very many
_SHOWN = 8  # kinds that are named

# Number of things by what they are, e.g. ("file", ".heic"); the second may be empty.
LeftOut = Counter[tuple[str, str]]


def phrases(left_out: Mapping[tuple[str, str], int]) -> list[str]:
    """Say what was left out, the most frequent first: "6 files (.heic)"."""
    ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    said = []
    for (noun, detail), num in ordered[:_SHOWN]:
        kind = f" ({printable(detail)})" if detail else ""
        said.append(f"{num} {noun}{'' if num == 1 else 's'}{kind}")
    if rest := ordered[_SHOWN:]:
        said.append(f"{sum(num for _, num in rest)} more of {len(rest)} kinds")
    return said


def is_hidden(name: str) -> bool:
    """Whether a file is one that systems leave beside images (`._x.png`, `__MACOSX/`)."""
    if name[0] != "." and "/." not in name and "__MACOSX" not in name:
        return False  # the common case, a million times for a large data set
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def plain_name(name: str) -> str:
    """A relative name with forward slashes and without `.` parts: `./a.png` is `a.png`."""
    name = name.replace("\\", "/")
    if name[:2] != "./" and "/./" not in name and "//" not in name:
        return name
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def image_names(names: Iterable[str]) -> tuple[list[str], LeftOut]:
    """Choose the images, sorted, and count the other files by extension.

    Files that systems leave beside images, and dataset.json, are not counted.
    """
    images, left_out = [], LeftOut()
    for name in names:
        if is_hidden(name):
            base = name.rpartition("/")[2]
            if is_image_name(name) and not base.startswith("._") and "__MACOSX" not in name:
                left_out["hidden image", ""] += 1
        elif is_image_name(name):
            images.append(name)
        elif name.rpartition("/")[2] != INDEX_NAME:
            extension = os.path.splitext(name)[1].lower()
            left_out["file", extension[:16] or "no extension"] += 1
    return sorted(images), left_out


def common_folder(names: Iterable[str]) -> str:
    """The folder that all files lie in, with its slash; "" if that is the top."""
    found = iter(names)
    parts = next(found, "").split("/")[:-1]
    for name in found:
        prefix = "/".join(parts) + "/"
        while parts and not name.startswith(prefix):
            parts.pop()
            prefix = "/".join(parts) + "/"
    return "".join(f"{part}/" for part in parts)


def index_folder(names: Iterable[str], images: Iterable[str]) -> tuple[str | None, list[str]]:
    """Find the dataset.json of a set of images.

    It lies at the top or, if the whole data set was packed with its folders, in a folder that has
    all images below it.

    Args:
        names: all files.
        images: those that are images.

    Returns:
        Its folder, "" or with a slash, None if it does not exist; and every other dataset.json.
    """
    found = [name for name in names if name.endswith(INDEX_NAME) and not is_hidden(name)]
    folders = [name.removesuffix(INDEX_NAME) for name in found]
    folders = [folder for folder in folders if folder == "" or folder.endswith("/")]
    common = common_folder(images) if any(folders) else ""
    around = [folder for folder in folders if common.startswith(folder)]
    chosen = max(around, key=len, default=None) if "" not in around else ""
    return chosen, sorted(folder + INDEX_NAME for folder in folders if folder != chosen)


def by_appearance(names: Iterable[str]) -> Callable[[str], str]:
    """A function that finds a name as it is stored, however its accents are encoded.

    Some systems store é as one character, some as e and an accent. A name that exists is found as
    it is. Names that look alike are never taken for each other.
    """
    listed = list(names)
    if all(map(str.isascii, listed)):
        return str
    exact = set(listed)
    times = Counter(unicodedata.normalize("NFC", name) for name in listed)
    stored = {unicodedata.normalize("NFC", name): name for name in listed}

    def find(name: str) -> str:
        composed = unicodedata.normalize("NFC", name)
        return name if name in exact or times[composed] > 1 else stored.get(composed, name)

    return find


def folder_files(root: Path, *, skip_bad: bool = False) -> tuple[dict[str, Path], LeftOut]:
    """Find the files of a folder and its subfolders, those behind links included.

    Args:
        root: the folder.
        skip_bad: leave out a subfolder that cannot be read, instead of raising.

    Returns:
        Paths by relative name, and a count of what could not be followed.

    Raises:
        UserError: a folder cannot be read, or links make too many of them.
    """
    files: dict[str, Path] = {}
    left_out = LeftOut()
    waiting = [(os.fspath(root), "", frozenset[tuple[int, int]]())]
    num_folders = 0
    while waiting:
        path, prefix, above = waiting.pop()
        num_folders += 1
        if num_folders > MAX_FOLDERS:
            raise UserError(
                f"{printable(root)} has more than {MAX_FOLDERS} folders, those behind links "
                "included: give a part of it"
            )
        try:
            stat = os.stat(path)
            with os.scandir(path) as scan:
                entries = list(scan)
        except OSError as error:
            if not skip_bad or not prefix:
                raise UserError(
                    f"cannot read the folder {printable(path)} ({error.strerror}): make it "
                    "readable, or convert with --skip-bad, which leaves it out"
                ) from None
            left_out["folder", f"cannot be read: {prefix[:-1]}"] += 1
            continue
        identity = stat.st_dev, stat.st_ino
        if identity in above:  # or the walk would not end
            left_out["link", f"to a folder above it: {prefix[:-1]}"] += 1
            continue
        for entry in entries:
            name, kind = prefix + entry.name, _kind_of(entry)
            if kind == "folder":
                waiting.append((entry.path, f"{name}/", above | {identity}))
            elif kind == "file" or is_image_name(name) or entry.name == INDEX_NAME:
                files[name] = Path(entry.path)  # pipes and devices are refused when they are read
            elif not is_hidden(name):
                left_out[kind, name] += 1
    return files, left_out


def _kind_of(entry: "os.DirEntry[str]") -> str:
    """What an entry of a folder is, after all links."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        return "broken link" if entry.is_symlink() else "pipe or device"
    except OSError:  # e.g. links that lead round in a circle
        return "broken link"
