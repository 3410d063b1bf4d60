"""Labels of a dataset: class numbers, vectors or tags (multi-hot), checked and made arrays.

There is one rule for labels. What is written, checked and trained on goes through it.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np

from data.archive import ImageArchive, Label
from torch_utils.errors import UserError

MAX_CLASSES = 2**20
MANY_CLASSES = 2**15  # any dataset may have so many; more need images for them
_CLASSES_PER_IMAGE = 4
_SHOWN = 8  # classes that are named
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
    array = as_array([labels[name] for name in archive.names])
    if too_many := classes_problem(array):
        raise UserError(f"{archive.where_index}: {too_many}")
    return array


def check_labels(
    labels: Sequence[Label], names: Sequence[str] | None, kind: str | None, where: str
) -> None:
    """Refuse labels of a whole dataset that could not be trained on, though each one is sound.

    Args:
        labels: one an image.
        names, kind: label_names and label_kind, if they are given.
        where: what gives them, for the message.

    Raises:
        UserError: class numbers are far apart, or names or kind do not fit.
    """
    array = as_array(labels)
    if problem := classes_problem(array):
        raise UserError(f"{where}: {problem}")
    kind_of(array, kind, names, where)
    names_for(width_of(array), names, where)


def as_array(labels: Sequence[Label]) -> np.ndarray:
    """Labels that were found to be sound as int64 [N] classes or float32 [N, D] vectors."""
    return np.array(labels, dtype=np.float32 if isinstance(labels[0], list) else np.int64)


def label_problems(archive: ImageArchive, labels: Mapping[str, Label]) -> Iterator[str]:
    """Yield a line for every label that cannot be used; the first label sets what is expected."""
    labelled = [name for name in archive.names if name in labels]
    for name in labelled:
        first = labels[labelled[0]], labelled[0]
        if problem := label_problem(labels[name], archive.where(name), *first):
            yield problem


def label_problem(label: Label, where: str, first: Label, first_where: str) -> str | None:
    """Say what is wrong with a label, None if it is sound.

    Args:
        label: the label.
        where: the image it is of.
        first: the first label of the dataset, which sets the kind and the length.
        first_where: the image that has it.
    """
    if isinstance(first, list):
        problem = _vector_problem(label, len(first), first_where)
    else:
        problem = _class_problem(label)
    return f"label {_brief(label)} of {where} {problem}" if problem else None


class LabelRule:
    """Checks labels one after the other; the first one sets what is expected."""

    def __init__(self) -> None:
        self._first: tuple[Label, str] | None = None

    def check(self, label: Label, where: str) -> None:
        """Take the next label.

        Raises:
            UserError: it cannot be used.
        """
        self._first = self._first or (label, where)
        if problem := label_problem(label, where, *self._first):
            raise UserError(problem)


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


def classes_problem(labels: np.ndarray) -> str | None:
    """A line if class numbers are far apart, else None; a network has weights for every number."""
    num = width_of(labels)
    if labels.ndim == 2 or num <= max(MANY_CLASSES, _CLASSES_PER_IMAGE * len(labels)):
        return None
    return (
        f"class {num - 1} would make {num} classes of {len(labels)} images: number the classes "
        "from 0 without gaps"
    )


def width_of(labels: np.ndarray) -> int:
    """Number of classes (the highest number plus one), or the length of the vectors."""
    return int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]


def present_classes(labels: np.ndarray, label_dim: int) -> list[int] | None:
    """The classes that some image has, ascending; None for all classes, and for vectors."""
    if labels.ndim == 2:
        return None
    present = np.unique(labels)
    return None if len(present) == label_dim else present.tolist()


def absent_classes(present: Set[int], names: Sequence[str] = ()) -> str | None:
    """A line on the classes below the highest number that no image has, or None."""
    num = max(present) + 1
    absent = list(itertools.islice((i for i in range(num) if i not in present), _SHOWN + 1))
    if not absent:
        return None
    shown = [f"{i} {names[i]}" if i < len(names) else str(i) for i in absent[:_SHOWN]]
    more = ", ..." if len(absent) > _SHOWN else ""
    return (
        f"{num - len(present)} of {num} classes have no image and are not drawn: "
        f"{', '.join(shown)}{more}"
    )


def kind_of_labels(archive: ImageArchive, labels: np.ndarray) -> str:
    """Tell what labels from `load_labels` are; see `kind_of`."""
    return kind_of(labels, archive.label_kind(), archive.label_names(), archive.where_index)


def kind_of(labels: np.ndarray, stated: str | None, names: Sequence[str] | None, where: str) -> str:
    """Tell what labels are: "class", "vector" or "multi_hot".

    Vectors are tags if `stated` says so; or, if it says nothing, when they have names and hold
    only 0 and 1.

    Args:
        labels: int64 [N] or float32 [N, D].
        stated: the kind that dataset.json or the source states, or None.
        names: of the classes or elements, or None.
        where: what states it, for the message.

    Raises:
        UserError: they are of another kind than stated.
    """
    if labels.ndim == 1:
        found = "class"
    elif stated == "vector" or (stated is None and names is None):
        found = "vector"
    else:
        found = "multi_hot" if np.isin(labels, (0, 1)).all() else "vector"
    if stated not in (None, found):
        raise UserError(
            f"{where}: label_kind is {stated}, but the labels are of the kind {found}: correct "
            "one of them"
        )
    return found


def class_names(archive: ImageArchive, label_dim: int) -> list[str] | None:
    """Return the names of the `label_dim` classes or elements of an archive; see `names_for`."""
    return names_for(label_dim, archive.label_names(), archive.where_index)


def names_for(label_dim: int, names: Sequence[str] | None, where: str) -> list[str] | None:
    """Return the names of the `label_dim` classes or vector elements, None if not given.

    Raises:
        UserError: there are fewer names.
    """
    if names is not None and len(names) < label_dim:
        raise UserError(
            f"{where} has {len(names)} label_names for {label_dim} classes: name all or leave "
            "label_names out"
        )
    return None if names is None else list(names[:label_dim])
