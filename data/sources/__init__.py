"""What dataset_tool.py reads: the table of sources, each in a file of its own."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch_utils.errors import UserError
from torch_utils.registry import Row

if TYPE_CHECKING:  # dataset_tool.py --help reads the table and must not wait for numpy
    from data.sources.interface import Source


@dataclass(frozen=True, kw_only=True)
class Kind(Row):
    """A row of `KINDS`: `target` opens a source of this kind.

    Attributes:
        matches: whether a path is of this kind.
        path: what to give as --source.
        labels: what labels its images have.
        takes: keywords that `target` knows beside the path: `split`, the name of a part or "" for
            its default; `skip_bad`, to leave out folders that cannot be read.
    """

    matches: Callable[[str], bool]
    path: str
    labels: str
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


KINDS: Mapping[str, Kind] = {
    "torchvision": Kind(
        target="data.sources.downloads:open_torchvision",
        matches=lambda path: path.startswith("torchvision:"),
        takes=("split",),
        path="`torchvision:NAME`, or `torchvision:NAME@FOLDER` for where downloads are kept",
        labels="classes; CelebA: tags",
        summary="download by torchvision:NAME",
    ),
    "cifar": Kind(
        target="data.sources.cifar:open_cifar",
        matches=_named(r"cifar-100?-python\.tar\.gz"),
        takes=("split",),
        path="`cifar-10-python.tar.gz`, `cifar-100-python.tar.gz`",
        labels="10 classes or 100 fine classes, with names",
        summary="CIFAR-10 or CIFAR-100 as .tar.gz",
    ),
    "idx": Kind(
        target="data.sources.idx:open_idx",
        matches=_named(r"(train|t10k)-images[-.]idx3-ubyte(\.gz)?"),
        path="`train-images-idx3-ubyte.gz` or `t10k-...`, with the labels file beside it",
        labels="10 classes",
        summary="MNIST or Fashion-MNIST as idx3-ubyte.gz",
    ),
    "arrays": Kind(
        target="data.sources.arrays:open_arrays",
        matches=_named(r"(?i:.*\.np[yz])"),
        path="`.npy`, `.npz`",
        labels="`labels`, `arr_1` or `y` in the `.npz`: integers or vectors",
        summary=".npy or .npz array",
    ),
    "lmdb": Kind(
        target="data.sources.lmdbs:open_lmdb",
        matches=_is_lmdb,
        path="folder or file ending in `_lmdb` or `.lmdb`, or folder with `data.mdb`",
        labels="no labels",
        summary="lmdb of LSUN or CelebA-HQ",
    ),
    "celeba": Kind(
        target="data.sources.celeba:open_celeba",
        matches=lambda path: attribute_list(path) is not None,
        takes=("split", "skip_bad"),
        path="folder with "
        + ", or with ".join(
            f"`{images}/` and `{listing}`" for listing, images in ATTRIBUTE_LISTS.items()
        ),
        labels="40 tags with names",
        summary="CelebA or CelebA-HQ with its list of attributes",
    ),
    "images": Kind(
        target="data.sources.folders:open_archive",
        matches=lambda path: True,
        takes=("skip_bad",),
        path="the folder or `x.zip`",
        labels="those of `dataset.json`; otherwise two or more top folders are classes, in the "
        "order of their names",
        summary="folder or zip of images",
    ),
}


def open_source(
    path: str | os.PathLike[str],
    max_images: int | None = None,
    split: str | None = None,
    *,
    skip_bad: bool = False,
) -> "Source":
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
