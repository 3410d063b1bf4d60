"""CelebA and CelebA-HQ from their published files: aligned images with 40 named attributes.

Liu et al. 2015; Lee et al. 2020 (CelebAMask-HQ). The list has the number of images in its first
line, the names in the second, then a line an image: file name and 1 or -1 for every attribute.
"""

import io
from collections.abc import Iterator
from pathlib import Path

from data.archive import ImageArchive, Label
from data.sources import attribute_list
from data.sources.folders import archive_source
from data.sources.interface import Source, choose_part
from torch_utils.bounded import read_file
from torch_utils.errors import UserError

MAX_BYTES = 2**27  # of a list; that of CelebA has 27 MB
PARTITION = "list_eval_partition.txt"
_PARTS = {"train": "0", "valid": "1", "test": "2"}


def _lines(path: Path) -> Iterator[list[str]]:
    """The words of each line, one line at a time: all of them would take ten times the file."""
    try:
        text = read_file(path, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    return (line.split() for line in io.StringIO(text))


def read_attributes(path: Path) -> tuple[dict[str, Label], list[str]]:
    """Read an attribute list.

    Returns:
        Tags as a list of 0 and 1 by file name, and their names.

    Raises:
        UserError: a line has another form.
    """
    lines = _lines(path)
    count, names = next(lines, []), next(lines, [])
    tags: dict[str, Label] = {}
    for number, words in enumerate(lines, 3):
        if not words:
            continue
        if len(words) != len(names) + 1 or not {"1", "-1"}.issuperset(words[1:]):
            raise UserError(
                f"{path}, line {number}: expected a name and {len(names)} times 1 or -1"
            )
        tags[words[0]] = [int(word == "1") for word in words[1:]]
    if len(count) != 1 or not tags:
        raise UserError(f"{path} is not a list of attributes: download it again")
    return tags, names


def _part(path: Path, split: str) -> set[str]:
    """The files of one part of the official partition."""
    if not path.is_file():
        raise UserError(f"there is no {path}, which says what is in the part {split!r}")
    return {words[0] for words in _lines(path) if words[1:] == [_PARTS[split]]}


def open_celeba(path: str, split: str = "", *, skip_bad: bool = False) -> Source:
    """Open the folder that holds images and attribute list, or the image folder beside it.

    Args:
        path: the folder.
        split: all (the default), train, valid or test.
        skip_bad: leave out subfolders that cannot be read, instead of raising.

    Raises:
        UserError: a file is missing or has another form.
    """
    found = attribute_list(path)
    if found is None:
        raise UserError(f"there is no list_attr_celeba.txt with img_align_celeba in {path}")
    listing, folder = Path(found[0]), found[1]
    tags, names = read_attributes(listing)
    archive = ImageArchive(folder, skip_bad=skip_bad)
    files = archive.names
    split = choose_part(path, split, ("all", *_PARTS))
    if split != "all":
        chosen = _part(listing.with_name(PARTITION), split)
        files = [name for name in files if name in chosen]
        if not files:
            raise UserError(f"{folder} has no image of the part {split!r}")
    return archive_source(archive, files, tags, names, "multi_hot")
