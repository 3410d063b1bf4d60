"""CIFAR-10 and CIFAR-100 from the published .tar.gz (Krizhevsky 2009), read by name.

The batches in it are pickles; torch_utils/safe_pickle.py reads them and runs nothing.
"""

import os
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.sources.interface import Item, Source, choose_part
from data.sources.tars import tar_members
from torch_utils.bounded import gunzipped, open_regular
from torch_utils.errors import UserError
from torch_utils.safe_pickle import Limits, loads

MAX_BYTES = 2**28  # of the archive unpacked; the published ones have 180 MB
_LIMITS = Limits(items=2**19)  # of one batch; that of CIFAR-100 has 50,000 images
_SIDE = 32


@dataclass(frozen=True)
class _Layout:
    """Names in the archive: batches of each part, and the keys of labels and their names."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels: str
    names: str


_LAYOUTS = {
    "cifar-10-python.tar.gz": _Layout(
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        "batches.meta",
        "labels",
        "label_names",
    ),
    "cifar-100-python.tar.gz": _Layout(
        ("train",), ("test",), "meta", "fine_labels", "fine_label_names"
    ),
}


def _members(path: str, wanted: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with open_regular(path) as file:
            for name, content in tar_members(gunzipped(file), wanted, MAX_BYTES):
                if name in found:
                    raise UserError(f"{path} has the member {name!r} twice: download it again")
                found[name] = content
    except UserError:
        raise
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"cannot read {path}: {error or 'it ends too early'}") from None
    if missing := sorted(wanted - set(found)):
        raise UserError(f"{path} has no member {missing[0]!r}: download it again")
    return found


def _load(members: dict[str, bytes], name: str, path: str) -> Any:
    return loads(members.pop(name), f"{name} in {path}", limits=_LIMITS)


def _batch(content: Any, where: str, key: str) -> tuple[np.ndarray, list[int]]:
    """Images [N, 3, 32, 32] and labels of a batch, checked."""
    data, labels = (
        (content.get("data"), content.get(key)) if isinstance(content, dict) else (None, None)
    )
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.shape[1:] != (3 * _SIDE * _SIDE,)
        or not isinstance(labels, list)
        or len(labels) != len(data)
        or not all(type(label) is int and 0 <= label < 100 for label in labels)
    ):
        raise UserError(f"{where} is not a batch of CIFAR: download it again")
    return data.reshape(-1, 3, _SIDE, _SIDE), labels


def open_cifar(path: str, split: str = "") -> Source:
    """Open cifar-10-python.tar.gz or cifar-100-python.tar.gz (with the fine classes).

    Args:
        path: the file, under its published name.
        split: train (the default), test or all.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    layout = _LAYOUTS[os.path.basename(path)]
    parts = {"train": layout.train, "test": layout.test, "all": layout.train + layout.test}
    split = choose_part(path, split, list(parts))
    members = _members(path, {*parts[split], layout.meta})
    batches = [
        _batch(_load(members, name, path), f"{name} in {path}", layout.labels)
        for name in parts[split]
    ]
    images = np.concatenate([data for data, _ in batches])
    labels = [label for _, part in batches for label in part]
    meta = _load(members, layout.meta, path)
    names = meta.get(layout.names) if isinstance(meta, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{layout.meta} in {path} has no {layout.names}: download it again")

    def read(index: int) -> Item:
        return images[index].transpose(1, 2, 0), labels[index]

    return Source(len(images), read, lambda index: f"image {index} of {path}", names)
