"""What every U-Net does with its arguments before it computes: sizes checked, labels nulled."""

from torch import Tensor

from torch_utils.errors import UserError


def check_images(x: Tensor, img_shape: tuple[int, int, int]) -> None:
    """Check that images have the network's shape.

    Args:
        x: images [N, C, H, W].
        img_shape: channels, height and width of the network.

    Raises:
        UserError: they do not.
    """
    if x.shape[1:] != img_shape:
        raise UserError(
            f"images are {list(x.shape[1:])}, the network is for {list(img_shape)}"
            " (channels, height, width)"
        )


def check_labels(kind: str, labels: Tensor | None, width: int) -> None:
    """Check that labels have the network's width.

    Args:
        kind: class or augmentation, for the message.
        labels: [N, width], or None.
        width: columns that the network has room for, 0 for none.

    Raises:
        UserError: another number of columns.
    """
    if labels is not None and labels.shape[-1] != width:
        raise UserError(
            f"the {kind} labels have {labels.shape[-1]} columns, the network has room for {width}"
        )


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
        class_labels = class_labels * label_mask[:, None]
    return class_labels.to(like.dtype)
