"""Labels as callers from Python give them: a class, tags or numbers, for all images or for each."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplers.classes import class_number
from samplers.labels import LabelSource, label_of_tags
from samplers.starts import check_class
from torch_utils.errors import UserError


def label_rows(label: Any, num: int, source: LabelSource) -> Tensor:
    """The labels of some images.

    Args:
        label: a class by number or name; tags, as a comma-separated text or a list of names; the
            numbers of a label; or, for one each, a sequence of classes, or numbers
            [num, label_dim].
        num: how many images.
        source: what the model's labels are.

    Returns:
        float32 [num, label_dim], on the CPU.

    Raises:
        UserError: the model has no such label, or the number of labels is not that of the images.
    """
    known = source.names
    if source.dim == 0:
        raise UserError(f"label {label!r} was given, but the model is unconditional: leave it out")
    if source.kind == "multi_hot" and (isinstance(label, str) or _are_texts(label)):
        tags = [tag for tag in label.split(",") if tag] if isinstance(label, str) else label
        return torch.tensor([label_of_tags(tags, known)]).expand(num, -1)
    if isinstance(label, str) or _are_texts(label):
        if not source.is_class:
            raise UserError(f"label {label!r} is a text, but the model's labels are vectors")
        texts = [label] if isinstance(label, str) else label
        label = [class_number(text, known, source.dim) for text in texts]
    if isinstance(label, Tensor):
        label = label.detach().cpu()
    try:
        values = np.asarray(label)
        is_class = source.is_class and values.ndim < 2 and values.dtype.kind in "iu"
        rows = values.astype(np.float32)
    except (TypeError, ValueError):
        raise UserError(f"label {label!r} is neither a class nor numbers") from None
    if is_class:
        return _one_hots(np.atleast_1d(values), num, source)
    if rows.ndim < 2:
        rows = np.atleast_1d(rows)[None].repeat(num, 0)
    if rows.shape != (num, source.dim):
        raise UserError(
            f"label has shape {values.shape}: for {num} images give {source.dim} numbers, or "
            f"({num}, {source.dim})"
        )
    if not np.isfinite(rows).all():
        raise UserError("label has values that are not finite")
    return torch.from_numpy(rows)


def _are_texts(label: Any) -> bool:
    """Whether it is a list or tuple of names; an empty one counts."""
    return isinstance(label, (list, tuple)) and all(isinstance(entry, str) for entry in label)


def _one_hots(classes: np.ndarray, num: int, source: LabelSource) -> Tensor:
    """Labels of one class for all images, or of one class for each."""
    if len(classes) not in (1, num):
        raise UserError(f"label names {len(classes)} classes for {num} images: give one, or {num}")
    for index in sorted(set(classes.tolist())):
        check_class(index, source.dim)
        if index not in source.present:
            raise UserError(f"no training image has class {index}: the model never learned it")
    return source.rows(torch.from_numpy(classes).to(torch.int64)).expand(num, -1)
