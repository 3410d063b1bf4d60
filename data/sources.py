"""What dataset_tool.py reads: the table of sources, and what each of them gives."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from data.archive import Label
from data.parallel import ordered_map
from torch_utils.errors import UserError
from torch_utils.registry import Row
from torch_utils.text import printable

Result = TypeVar("Result")
Item = tuple[np.ndarray, Label | None]


@dataclass(frozen=True)
class Visited(Generic[Result]):
    """An image that was read, or left out.

    Attributes:
        result: what the function made of it; None if it was left out by it or for the problem.
        label: its label or None.
        problem: why it could not be read; "" if it could.
    """

    result: Result | None
    label: Label | None
    problem: str = ""


@dataclass(frozen=True)
class Source:
    """Images to convert.

    Attributes:
        num: how many.
        read: image number i, uint8 [H, W] or [H, W, 3], upright, and its label or None; may be
            called by several threads. Raises a `UserError` that names the image.
        where: the name of image number i for a message.
        label_names: names of the classes or of the elements of the vectors, if they are known.
        label_kind: "multi_hot" if labels are tags; None if the labels themselves tell.
        skips_damaged: an image that cannot be read is left out with a warning.
        margins: rows and columns of zeros that `read` adds on each side of an image.
        left_out: what is there and is no image of the source, e.g. "6 files (.heic)".
    """

    num: int
    read: Callable[[int], Item]
    where: Callable[[int], str]
    label_names: list[str] | None = None
    label_kind: str | None = None
    skips_damaged: bool = False
    margins: tuple[int, int] = (0, 0)
    left_out: Sequence[str] = ()

    def __len__(self) -> int:
        return self.num

    def images(
        self, function: Callable[[np.ndarray, str], Result | None], num_threads: int | None = None
    ) -> Iterator[Visited[Result]]:
        """Read all images in order, some ahead of time in threads.

        Args:
            function: applied to each image and its name by the threads; None leaves it out.
            num_threads: None for one a core.

        Yields:
            One for each image.

        Raises:
            UserError: an image cannot be read.
        """

        def work(index: int) -> Visited[Result]:
            try:
                image, label = self.read(index)
            except UserError as error:
                if not self.skips_damaged:
                    raise UserError(f"{error} (--skip-bad leaves such images out)") from None
                return Visited(None, None, str(error))
            return Visited(function(image, self.where(index)), label)

        for visited in ordered_map(work, range(self.num), num_threads):
            if visited.problem:
                print(f"warning: left out: {printable(visited.problem)}", file=sys.stderr)
            yield visited


@dataclass(frozen=True, kw_only=True)
class Kind(Row):
    """A row of `KINDS`: `target` opens a source of this kind.

    Attributes:
        matches: whether a path is of this kind.
        takes: keywords that `target` knows beside the path: `split`, the name of a part or "" for
            its default; `skip_bad`, to leave out folders that cannot be read.
    """

    matches: Callable[[str], bool]
    takes: tuple[str, ...] = ()


def _named(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda path: bool(compiled.fullmatch(os.path.basename(path)))


def _is_lmdb(path: str) -> bool:
    name = os.path.basename(os.path.normpath(path))
    return name.endswith(("_lmdb", ".lmdb")) or os.path.isfile(os.path.join(path, "data.mdb"))


# Attribute list -> folder of the images it is about, beside it.
ATTRIBUTE_LISTS: Mapping[str, str] = {
    "list_attr_celeba.txt": "img_align_celeba",
    "CelebAMask-HQ-attribute-anno.txt": "CelebA-HQ-img",
}


def attribute_list(path: str) -> tuple[str, str] | None:
    """The attribute list and the image folder, if `path` is that folder or the one above it."""
    root, name = os.path.split(os.path.normpath(path))
    for listing, folder in ATTRIBUTE_LISTS.items():
        for base in (path, *([root] if name == folder else [])):
            found = os.path.join(base, listing), os.path.join(base, folder)
            if os.path.isfile(found[0]) and os.path.isdir(found[1]):
                return found
    return None


def choose_part(what: str, split: str, parts: Sequence[str]) -> str:
    """The part asked for, or the first of `parts` if none was.

    Raises:
        UserError: it is not one of them.
    """
    if split and split not in parts:
        known = f"take one of {', '.join(parts)}" if parts else "leave --split out"
        raise UserError(f"{what} has no part {split!r}: {known}")
    return split or (parts[0] if parts else "")


KINDS: Mapping[str, Kind] = {
    "torchvision": Kind(
        target="data.downloads:open_torchvision",
        matches=lambda path: path.startswith("torchvision:"),
        takes=("split",),
        summary="torchvision:NAME, or torchvision:NAME@FOLDER for where downloads are kept",
    ),
    "cifar": Kind(
        target="data.cifar:open_cifar",
        matches=_named(r"cifar-100?-python\.tar\.gz"),
        takes=("split",),
        summary="cifar-10-python.tar.gz and cifar-100-python.tar.gz",
    ),
    "idx": Kind(
        target="data.idx:open_idx",
        matches=_named(r"(train|t10k)-images[-.]idx3-ubyte(\.gz)?"),
        summary="train-images-idx3-ubyte.gz of MNIST or Fashion-MNIST, beside its labels",
    ),
    "arrays": Kind(
        target="data.arrays:open_arrays",
        matches=_named(r"(?i:.*\.np[yz])"),
        summary="array of images in a .npy, or with labels in a .npz",
    ),
    "lmdb": Kind(target="data.lmdbs:open_lmdb", matches=_is_lmdb, summary="LSUN or CelebA-HQ lmdb"),
    "celeba": Kind(
        target="data.celeba:open_celeba",
        matches=lambda path: attribute_list(path) is not None,
        takes=("split", "skip_bad"),
        summary="CelebA or CelebA-HQ: image folder beside its attribute list",
    ),
    "images": Kind(
        target="data.folders:open_archive",
        matches=lambda path: True,
        takes=("skip_bad",),
        summary="folder or zip of images",
    ),
}


def open_source(
    path: str | os.PathLike[str],
    max_images: int | None = None,
    split: str | None = None,
    *,
    skip_bad: bool = False,
) -> Source:
    """Open whatever dataset_tool.py takes as --source.

    Args:
        path: see `KINDS`.
        max_images: keep only the first so many.
        split: the part to take; None for the source's default.
        skip_bad: leave out images and folders that cannot be read, with a warning.

    Raises:
        UserError: the path cannot be used, or there is no such part.
    """
    path = os.fspath(path)
    kind = next(kind for kind in KINDS.values() if kind.matches(path))
    if split and "split" not in kind.takes:
        raise UserError(f"{path} has no part {split!r}: leave --split out")
    given = {"split": split or "", "skip_bad": skip_bad}
    source: Source = kind.load()(path, **{name: given[name] for name in kind.takes})
    return replace(
        source,
        num=min(source.num, max_images or source.num),
        skips_damaged=source.skips_damaged or skip_bad,
    )
