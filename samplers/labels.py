"""Labels of generated images: the ones asked for; the rest are drawn from the training set's.

A class has a one-hot label. Vectors and tags have a distribution, of which a snapshot stores
examples: a label that no training image had would be a guess.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from torch_utils.devices import upload
from torch_utils.errors import UserError, unknown_name


@dataclass(frozen=True)
class LabelSource:
    """What labels are drawn from.

    Attributes:
        dim: width of a label; 0 for an unconditional model.
        classes: the classes that some training image has, ascending; None for all classes.
        examples: labels of training images, float32 [M, dim]; None for classes, and if a snapshot
            has no examples.
        kind: class, vector or multi_hot; None is class, or an unconditional model.
        names: of the classes, or of the elements of a label; may be empty.
    """

    dim: int
    classes: Tensor | None = None
    examples: Tensor | None = None
    kind: str | None = None
    names: Sequence[str] = ()

    @property
    def is_class(self) -> bool:
        """Whether a label is a class, and not a vector or tags."""
        return self.kind in (None, "class")

    @property
    def num_choices(self) -> int:
        """How many classes or examples there are to draw from.

        Vectors without examples have a number, too: the integer is drawn, and then not used.
        """
        if self.examples is not None:
            return len(self.examples)
        return self.dim if self.classes is None else len(self.classes)

    @property
    def present(self) -> Sequence[int]:
        """The classes that some training image has."""
        return range(self.dim) if self.classes is None else self.classes.tolist()

    def classes_of(self, drawn: Tensor) -> Tensor:
        """The classes that integers in [0, num_choices) stand for, int64 [N]."""
        assert self.is_class
        return drawn if self.classes is None else upload(self.classes, drawn.device)[drawn]

    def rows(self, drawn: Tensor) -> Tensor:
        """Labels [N, dim]: one-hot for classes, else the examples that the integers choose."""
        if self.is_class:
            return one_hot(drawn, self.dim).to(torch.float32)
        if self.examples is None:
            return torch.zeros(len(drawn), self.dim, device=drawn.device)
        return upload(self.examples, drawn.device)[drawn]


def label_source(
    dim: int,
    kind: str | None,
    *,
    present: Sequence[int] | None = None,
    examples: Sequence[Sequence[float]] | None = None,
    names: Sequence[str] | None = None,
) -> LabelSource:
    """The source that a snapshot describes.

    Args:
        dim: width of a label.
        kind: class, vector or multi_hot; None is class, or an unconditional model.
        present: the classes to draw from; None for all.
        examples: labels of training images, for vectors and tags.
        names: of the classes, or of the elements of a label.

    Raises:
        UserError: the snapshot's classes or examples do not fit this width.
    """
    plain = LabelSource(dim, kind=kind, names=names or ())
    if plain.is_class:
        if present is None:
            return plain
        if not present or not all(type(i) is int and 0 <= i < dim for i in present):
            raise UserError(
                f"the snapshot's list of classes is damaged: it must name some of 0 to {dim - 1}"
            )
        return replace(plain, classes=torch.tensor(present))
    if not examples:
        return plain
    try:
        rows = torch.tensor(examples, dtype=torch.float32)
    except (TypeError, ValueError):
        rows = torch.empty(0)
    if rows.ndim != 2 or rows.shape[1] != dim or not bool(rows.isfinite().all()):
        raise UserError(f"the snapshot's examples of labels are damaged: not rows of {dim} numbers")
    return replace(plain, examples=rows)


def label_of_tags(tags: Sequence[str], names: Sequence[str]) -> tuple[float, ...]:
    """The multi-hot label of some tags; without tags it is the null label.

    Raises:
        UserError: the model has no tag of that name.
    """
    for tag in tags:
        if tag not in names:
            raise unknown_name("tag", tag, names)
    return tuple(float(name in tags) for name in names)


def label_from_text(text: str, dim: int) -> tuple[float, ...]:
    """The label that `--label=0.25,-3,7.5` stands for.

    Raises:
        UserError: the text is not numbers, or has not as many as the model's labels.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--label={text}: give {dim} numbers like 0.25,-3,7.5") from None
    if len(values) != dim:
        raise UserError(f"--label={text}: {len(values)} numbers, the model's labels have {dim}")
    if not all(map(math.isfinite, values)):
        raise UserError(f"--label={text}: all numbers must be finite")
    return values


def labels_from_file(path: str | os.PathLike[str], num: int, dim: int) -> np.ndarray:
    """The labels of a file, one a seed.

    Args:
        path: a .npy file of `num` rows of `dim` numbers; one number a row may lack the second axis.
        num: seeds.
        dim: width of a label.

    Returns:
        float32 [num, dim].

    Raises:
        UserError: no such file, not of that form, or values that are not finite.
    """
    name = f"--labels={os.fspath(path)}"
    if not os.path.isfile(path):
        raise UserError(f"{name}: no such file")
    try:
        # mapped, so that a header that lies about the size is caught before memory is taken
        values = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise UserError(f"{name} is not a .npy file of numbers") from error
    if values.dtype.kind not in "fiub":
        raise UserError(f"{name} holds {values.dtype}, not numbers")
    if values.shape not in ((num, dim), (num,) if dim == 1 else None):
        raise UserError(f"{name} has shape {values.shape}, {num} seeds need ({num}, {dim})")
    rows = np.array(values, dtype=np.float32).reshape(num, dim)
    if not np.isfinite(rows).all():
        raise UserError(f"{name} holds values that are not finite")
    return rows
