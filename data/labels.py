"""Labels of a dataset: class numbers, vectors or tags (multi-hot), checked and made arrays."""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from data.archive import ImageArchive, Label
from torch_utils.errors import UserError

MAX_CLASSES = 2**20
_LARGEST = float(np.finfo(np.float32).max)


def load_labels(archive: ImageArchive) -> np.ndarray:
    """Read the label of every image of an archive, in the order of its names.

    Args:
        archive: the folder or zip; its dataset.json has the labels.

    Returns:
        int64 [N] class numbers, or float32 [N, label_dim] vectors.

    Raises:
        UserError: there are no labels, an image has none, classes and vectors are mixed, a class
            number is fractional, negative or absurdly large, or vectors differ in length or are
            not finite.
    """
    labels = archive.labels()
    if labels is None:
        raise UserError(
            f"{archive.path} has no labels: write a dataset.json with labels, or convert folders "
            "named after the classes with dataset_tool.py"
        )
    missing = [name for name in archive.names if name not in labels]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(archive.names)} images in {archive.path} have no label in "
            f"dataset.json, first {missing[0]!r}: label all or none"
        )
    for problem in label_problems(archive, labels):
        raise UserError(problem)
    chosen = [labels[name] for name in archive.names]
    return np.array(chosen, dtype=np.float32 if isinstance(chosen[0], list) else np.int64)


def label_problems(archive: ImageArchive, labels: Mapping[str, Label]) -> Iterator[str]:
    """Yield a line for every label that cannot be used; the first label sets what is expected."""
    labelled = [name for name in archive.names if name in labels]
    first = labels[labelled[0]] if labelled else 0
    for name in labelled:
        where = f"label {_brief(labels[name])} of {archive.where(name)}"
        if isinstance(first, list):
            problem = _vector_problem(labels[name], len(first), labelled[0])
        else:
            problem = _class_problem(labels[name])
        if problem:
            yield f"{where} {problem}"


def _brief(label: Label) -> str:
    if isinstance(label, list) and len(label) > 4:
        return f"[{', '.join(map(repr, label[:4]))}, ...]"
    return repr(label)


def _class_problem(label: Label) -> str | None:
    if isinstance(label, list):
        return "is a vector, others are class numbers: use one kind"
    if not math.isfinite(label) or label != int(label) or label < 0:
        return "is not a class: use a whole number from 0 up, or a list of floats"
    if label >= MAX_CLASSES:
        return "is too large: number the classes from 0"
    return None


def _vector_problem(label: Label, length: int, first: str) -> str | None:
    if not isinstance(label, list):
        return "is a class number, others are vectors: use one kind"
    if not label or len(label) != length:
        return (
            f"has {len(label)} numbers, that of {first!r} has {length}: vectors need the same "
            "length, at least 1"
        )
    if not all(abs(number) <= _LARGEST for number in label):
        return "is not finite in float32: use smaller numbers"
    return None


def kind_of_labels(archive: ImageArchive, labels: np.ndarray) -> str:
    """Tell what labels from `load_labels` are: "class", "vector" or "multi_hot".

    Vectors are tags if dataset.json says so in label_kind; or, if it says nothing, when they have
    names and hold only 0 and 1.

    Raises:
        UserError: dataset.json says something else than what the labels are.
    """
    stated = archive.label_kind()
    if labels.ndim == 1:
        found = "class"
    elif stated == "vector" or (stated is None and archive.label_names() is None):
        found = "vector"
    else:
        found = "multi_hot" if np.isin(labels, (0, 1)).all() else "vector"
    if stated not in (None, found):
        raise UserError(
            f"{archive.where_index}: label_kind is {stated}, but the labels are of the kind "
            f"{found}: correct one of them"
        )
    return found


def class_names(archive: ImageArchive, label_dim: int) -> list[str] | None:
    """Return the names of the `label_dim` classes or vector elements, None if not given.

    Raises:
        UserError: dataset.json names fewer.
    """
    names = archive.label_names()
    if names is not None and len(names) < label_dim:
        raise UserError(
            f"dataset.json in {archive.path} has {len(names)} label_names for {label_dim} classes: "
            "name all or leave label_names out"
        )
    return None if names is None else names[:label_dim]
