"""What every U-Net does with its arguments before it computes: sizes checked, labels nulled."""

import torch
from torch import Tensor

from torch_utils.errors import UserError


def check_inputs(
    x: Tensor,
    img_shape: tuple[int, int, int],
    *,
    class_labels: Tensor | None,
    label_dim: int,
    label_mask: Tensor | None,
    augment_labels: Tensor | None,
    augment_dim: int,
) -> None:
    """Check that images and labels have the network's shapes; values are not looked at.

    Args:
        x: images [N, C, H, W].
        img_shape: channels, height and width of the network.
        class_labels: [N, label_dim], or one row for all.
        label_dim: width of the class labels that the network has room for.
        label_mask: bool [N].
        augment_labels: [N, augment_dim], or one row for all.
        augment_dim: width of the augmentation labels that the network has room for.

    Raises:
        UserError: other shapes, such as class indices [N] in place of one-hots.
    """
    num = len(x)
    if x.shape[1:] != img_shape:
        raise UserError(
            f"images are {list(x.shape[1:])}, the network is for {list(img_shape)}"
            " (channels, height, width)"
        )
    _check_labels("class", class_labels, label_dim, num)
    _check_labels("augmentation", augment_labels, augment_dim, num)
    if label_mask is not None and (
        label_mask.dtype != torch.bool or label_mask.ndim != 1 or len(label_mask) not in (1, num)
    ):
        raise UserError(
            f"label_mask is {label_mask.dtype} of shape {list(label_mask.shape)}: give {num}"
            " booleans"
        )


def _check_labels(kind: str, labels: Tensor | None, width: int, num: int) -> None:
    if labels is None:
        return
    if labels.ndim != 2:
        raise UserError(
            f"the {kind} labels have shape {list(labels.shape)}: give one row an image, one-hots"
            " for classes"
        )
    if labels.shape[1] != width:
        raise UserError(
            f"the {kind} labels have {labels.shape[1]} columns, the network has room for {width}"
        )
    if len(labels) not in (1, num):
        raise UserError(f"there are {len(labels)} rows of {kind} labels for {num} images")


def zeroed_labels(
    class_labels: Tensor | None, label_mask: Tensor | None, label_dim: int, like: Tensor
) -> Tensor:
    """Labels whose null label is a row of zeros, as in the networks of EDM.

    Args:
        class_labels: [N, label_dim]; None is the null label for all.
        label_mask: bool [N], False replaces a label by the null label; None is all True.
        label_dim: width of the labels.
        like: a tensor of the dtype and device that the labels should have.

    Returns:
        Labels [N, label_dim], or [1, label_dim] for all.
    """
    if class_labels is None:
        return like.new_zeros(1, label_dim)
    if label_mask is not None:
        class_labels = torch.where(label_mask[:, None], class_labels, 0)
    return class_labels.to(like.dtype)
