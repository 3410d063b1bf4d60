"""`--source=torchvision:NAME`: public datasets that torchvision knows how to download.

torchvision fetches the files and checks their hash. CIFAR and CelebA are then read by our own
readers, as from any other folder, so that no pickle of a download is ever executed.
"""

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.modes import plain_picture
from data.sources.celeba import open_celeba
from data.sources.cifar import open_cifar
from data.sources.idx import open_idx
from data.sources.interface import Item, Source, choose_part
from torch_utils.cache_folder import TORCHVISION, cache_folder
from torch_utils.errors import UserError, unknown_name

_IDX_PARTS = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class _Public:
    """A dataset of torchvision: its parts, the default first, and how it is read."""

    read: Callable[[str, Path, str], Source]
    splits: tuple[str, ...] = ()


def _fetch(name: str, root: Path, **options: Any) -> Any:
    """Build torchvision's dataset, which downloads what is missing below `root`."""
    try:
        from torchvision import datasets

        root.mkdir(parents=True, exist_ok=True)
        return getattr(datasets, name)(str(root), download=True, **options)
    except (ImportError, ModuleNotFoundError) as error:
        raise UserError(f"torchvision:{name} needs torchvision ({error})") from None
    except (OSError, RuntimeError, ValueError, EOFError) as error:  # URLError is an OSError
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot get torchvision:{name} ({reason}): connect to the network, or put its files "
            f"below {root}"
        ) from None


def _cifar(name: str, root: Path, split: str) -> Source:
    from torchvision import datasets

    row = getattr(datasets, name)
    path = root / row.filename
    try:
        root.mkdir(parents=True, exist_ok=True)
        datasets.utils.download_url(row.url, str(root), row.filename, row.tgz_md5)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot get torchvision:{name} ({reason}): connect to the network, or put "
            f"{row.filename} into {root}"
        ) from None
    return open_cifar(str(path), split)


def _idx(name: str, root: Path, split: str) -> Source:
    dataset = _fetch(name, root, train=split == "train")
    folder = Path(dataset.raw_folder)
    source = open_idx(str(folder / f"{_IDX_PARTS[split]}-images-idx3-ubyte"))
    return replace(source, label_names=list(dataset.classes))


def _celeba(name: str, root: Path, split: str) -> Source:
    if not (root / "celeba" / "img_align_celeba").is_dir():
        _fetch(name, root, split="all")
    return open_celeba(str(root / "celeba"), split)


def _pictures(name: str, root: Path, split: str) -> Source:
    """Any dataset of (picture, class number), item by item."""
    dataset = _fetch(name, root, **({"split": split} if split else {}))
    lock = threading.Lock()  # torchvision says nothing of threads
    names = getattr(dataset, "classes", None)

    def where(index: int) -> str:
        return f"image {index} of torchvision:{name}"

    def read(index: int) -> Item:
        try:
            with lock:
                picture, label = dataset[index]
        except (OSError, ValueError, LookupError) as error:
            raise UserError(f"cannot read {where(index)}: {error}") from None
        is_class = hasattr(label, "__index__") and int(label) >= 0
        return plain_picture(picture, where(index)), int(label) if is_class else None

    if names is not None and not all(isinstance(entry, str) for entry in names):
        names = None
    return Source(len(dataset), read, where, None if names is None else list(names))


_PARTS = ("train", "test")
PUBLIC: Mapping[str, _Public] = {
    "CIFAR10": _Public(_cifar, (*_PARTS, "all")),
    "CIFAR100": _Public(_cifar, (*_PARTS, "all")),
    "MNIST": _Public(_idx, _PARTS),
    "FashionMNIST": _Public(_idx, _PARTS),
    "KMNIST": _Public(_idx, _PARTS),
    "CelebA": _Public(_celeba, ("all", "train", "valid", "test")),
    "DTD": _Public(_pictures, ("train", "val", "test")),
    "EuroSAT": _Public(_pictures),
    "FGVCAircraft": _Public(_pictures, ("trainval", "train", "val", "test")),
    "Flowers102": _Public(_pictures, ("train", "val", "test")),
    "Food101": _Public(_pictures, _PARTS),
    "GTSRB": _Public(_pictures, _PARTS),
    "OxfordIIITPet": _Public(_pictures, ("trainval", "test")),
    "STL10": _Public(_pictures, ("train", "test", "unlabeled")),
    "SVHN": _Public(_pictures, ("train", "test", "extra")),
}


def open_torchvision(path: str, split: str = "") -> Source:
    """Open torchvision:NAME, or torchvision:NAME@FOLDER to say where the files are kept.

    By default they are kept where the cache is: see `torch_utils.cache_folder`.

    Args:
        path: see above; the names are those of `PUBLIC`.
        split: a part of the dataset; empty for its first.

    Raises:
        UserError: the name or part is unknown, or the files cannot be had.
    """
    name, _, folder = path.removeprefix("torchvision:").partition("@")
    if name not in PUBLIC:
        raise unknown_name("torchvision dataset", name, PUBLIC)
    part = choose_part(f"torchvision:{name}", split, PUBLIC[name].splits)
    root = Path(os.path.expanduser(folder)) if folder else cache_folder(TORCHVISION)
    return PUBLIC[name].read(name, root, part)
