"""Sources that are a folder or a zip of image files, with labels from dataset.json or folders."""

import os
import re
import sys
from collections.abc import Mapping, Sequence

from data.archive import ImageArchive, Label
from data.decoding import open_picture
from data.modes import to_plain
from data.sources import Item, Source
from torch_utils.errors import UserError

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def archive_source(
    archive: ImageArchive,
    names: Sequence[str],
    labels: Mapping[str, Label],
    label_names: list[str] | None = None,
    label_kind: str | None = None,
) -> Source:
    """The source of some files of an archive; a name that is not in `labels` has none."""

    def read(index: int) -> Item:
        name = names[index]
        where = archive.where(name)
        return to_plain(open_picture(archive.read(name), where), where), labels.get(name)

    def where(index: int) -> str:
        return archive.where(names[index])

    return Source(len(names), read, where, label_names, label_kind)


def _numbers_say_folder(name: str) -> bool:
    """Whether a file lies in its thousand's folder: 01000/01234.png, 00001/img00001234.png."""
    match = re.fullmatch(r"(\d{5})/(?:(\d{5})|img(\d{8}))\.\w+", name)
    if match is None:
        return False
    folder, short, long = match.groups()
    return folder == (f"{int(short) // 1000 * 1000:05d}" if short else long[:5])


def _folder_labels(archive: ImageArchive) -> tuple[dict[str, Label], list[str] | None]:
    """Classes from the names of the top-level folders; a file at the top has the name ""."""
    top = {name: name.partition("/")[0] if "/" in name else "" for name in archive.names}
    classes = sorted(set(top.values()))
    # Folders that only part the files by number (FFHQ, our own layout) are no classes.
    numbered = archive.has_index and all(re.fullmatch(r"\d{5}", name) for name in classes)
    if len(classes) < 2 or numbered or all(map(_numbers_say_folder, archive.names)):
        return {}, None
    if _SPLITS.issuperset(map(str.lower, classes)):
        print(
            f"warning: the folders {', '.join(classes)} of {archive.path} became classes: "
            f"to convert one part, give --source={archive.path / classes[0]}",
            file=sys.stderr,
        )
    numbers = {name: number for number, name in enumerate(classes)}
    return {name: numbers[folder] for name, folder in top.items()}, classes


def open_archive(path: str) -> Source:
    """Open a folder or zip of images, sorted by name.

    Labels come from dataset.json if it has any. Otherwise those of a folder are its top-level
    folder names, sorted and counted from 0, if there are at least two; a zip has none.

    Raises:
        UserError: the path cannot be used, or dataset.json speaks of other files.
    """
    if os.path.isfile(path) and not path.lower().endswith(".zip"):
        raise UserError(f"{path} is not a folder or .zip, nor another source: see docs/data.md")
    archive = ImageArchive(path)
    labels, label_names = archive.labels(), archive.label_names()
    if labels and not any(name in labels for name in archive.names):
        raise UserError(
            f"{path}: dataset.json has labels, but none for {archive.names[0]!r} or any other image"
        )
    if labels is None:
        labels, label_names = ({}, None) if archive.is_zip else _folder_labels(archive)
    return archive_source(archive, archive.names, labels, label_names, archive.label_kind())
