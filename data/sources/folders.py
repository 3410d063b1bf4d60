"""Sources that are a folder or a zip of image files, with labels from dataset.json or folders."""

import os
import re
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from data.archive import ImageArchive, Label
from data.decoding import open_picture
from data.listing import common_folder, phrases
from data.modes import plain_picture
from data.plain_png import plain_png
from data.sources.interface import Item, Source
from torch_utils.class_folders import class_names, in_order
from torch_utils.errors import UserError
from torch_utils.text import printable

_TRAINING = {"train", "training"}
_SPLITS = _TRAINING | {"val", "valid", "validation", "test", "testing"}
# Files in folders of a thousand, and the folder of number n.
_THOUSANDS: tuple[tuple[re.Pattern[str], Callable[[int], str]], ...] = (
    (re.compile(r"([0-9]{5})/([0-9]{5})"), lambda n: f"{n // 1000 * 1000:05d}"),  # FFHQ
    (re.compile(r"([0-9]{5})/img([0-9]{8})"), lambda n: f"{n // 1000:05d}"),  # our data sets
    (re.compile(r"([0-9]{6,12})/([0-9]{6,12})"), lambda n: f"{n // 1000 * 1000:06d}"),  # --subdirs
)


def archive_source(
    archive: ImageArchive,
    names: Sequence[str],
    labels: Mapping[str, Label],
    label_names: list[str] | None = None,
    label_kind: str | None = None,
) -> Source:
    """The source of some files of an archive; a name that is not in `labels` has no label."""

    def read(index: int) -> Item:
        name = names[index]
        content, where = archive.read(name), archive.where(name)
        image = plain_png(content)
        if image is None:
            return plain_picture(open_picture(content, where), where), labels.get(name)
        return image, labels.get(name)

    def where(index: int) -> str:
        return archive.where(names[index])

    return Source(len(names), read, where, label_names, label_kind, left_out=archive.left_out)


def _is_in_its_thousand(name: str) -> bool:
    """Whether a file lies in the folder of its number: 01000/01234.png, 00001/img00001234.png."""
    stem = os.path.splitext(name)[0]
    for layout, folder in _THOUSANDS:
        if match := layout.fullmatch(stem):
            return match[1] == folder(int(match[2]))
    return False


def _folder_labels(archive: ImageArchive) -> tuple[dict[str, Label], list[str] | None]:
    """Classes from the names of the top folders; a file beside them has the name "".

    The top is the folder that all images lie in: a set that was packed with its folder has the
    classes below it.
    """
    top = common_folder(archive.names)
    inner = {name: name.removeprefix(top) for name in archive.names}
    folders = {
        name: unicodedata.normalize("NFC", rest.partition("/")[0]) if "/" in rest else ""
        for name, rest in inner.items()
    }
    classes = in_order(set(folders.values()))
    # Folders that only divide the files by number (FFHQ, our own layouts) are not classes.
    numbered = archive.has_index and all(re.fullmatch(r"\d{5}", name) for name in classes)
    loose = bool(top) and "" in classes
    if len(classes) < 2 or loose or numbered or all(map(_is_in_its_thousand, inner.values())):
        return {}, None
    names = [printable(name) for name in class_names(classes)]
    if _SPLITS.issuperset(map(str.lower, classes)):
        part = next((name for name in classes if name.lower() in _TRAINING), classes[0])
        whole, way = archive.path, "give"
        if archive.is_zip:
            whole, way = whole.with_suffix(""), "unzip it and give"
        print(
            f"warning: the folders {', '.join(names)} of {printable(archive.path)} became "
            f"classes: to convert one part, {way} --source={printable(whole / top / part)}",
            file=sys.stderr,
        )
    numbers = {name: number for number, name in enumerate(classes)}
    return {name: numbers[folder] for name, folder in folders.items()}, names


def open_archive(path: str, *, skip_bad: bool = False) -> Source:
    """Open a folder or zip of images, sorted by name.

    Labels come from dataset.json if it has any. Otherwise they are the names of the top folders,
    sorted (as numbers if all are) and counted from 0, if there are at least two.

    Args:
        path: the folder or zip.
        skip_bad: leave out subfolders that cannot be read, instead of raising.

    Raises:
        UserError: the path cannot be used, or dataset.json is about other files.
    """
    if os.path.isfile(path) and not path.lower().endswith(".zip"):
        raise UserError(f"{path} is not a folder or .zip, nor another source: see docs/data.md")
    archive = ImageArchive(path, skip_bad=skip_bad)
    labels, label_names = archive.labels(), archive.label_names()
    if labels and not any(name in labels for name in archive.names):
        raise UserError(
            f"{path}: dataset.json has labels, but none for {archive.names[0]!r} or any other image"
        )
    if labels is None:
        labels, label_names = _folder_labels(archive)
    source = archive_source(archive, archive.names, labels, label_names, archive.label_kind())
    if num := len(labels.keys() - set(archive.names)):
        unused = phrases({("label", "of images that are not there"): num})
        return replace(source, left_out=[*source.left_out, *unused])
    return source
