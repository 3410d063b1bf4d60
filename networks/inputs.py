"""What every network does with its arguments before it computes: sizes checked, labels nulled."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from networks.blocks import UNetBlock
from networks.layers import Conv2d
from torch_utils.errors import UserError


class ConditionalNetwork(nn.Module, ABC):
    """A raw network: the conditions become one embedding, which acts on the image's features.

    Attributes:
        img_shape: channels, height and width of the images.
        label_dim: width of the class labels, 0 for a network without classes.
        augment_dim: width of the augmentation labels, 0 for a network without them.
    """

    img_shape: tuple[int, int, int]
    label_dim: int
    augment_dim: int

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        class_labels: Tensor | None = None,
        label_mask: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Evaluate the raw network.

        Args:
            x: scaled noisy images [N, img_channels, H, W].
            c_noise: noise condition [N], or [1] for all; what it counts is the preconditioning's
                choice.
            class_labels: [N, label_dim]; None is the null label.
            label_mask: bool [N], False replaces a label by the null label; None is all True.
            augment_labels: [N, augment_dim]; None is no augmentation.

        Returns:
            The output [N, out_channels, H, W], float32 under autocast.

        Raises:
            UserError: images or labels do not have the network's sizes, such as class indices [N]
                in place of one-hots.
        """
        self._check(x, class_labels, label_mask, augment_labels)
        emb = self.embed(c_noise, class_labels, label_mask, augment_labels)
        return self.evaluate(x, emb)

    def half_layers(self) -> Iterator[nn.Module]:
        """The layers whose weights may be kept in half precision: the convolutions of blocks.

        They always run under autocast; other layers may have reasons to leave it.
        """
        for block in self.modules():
            if isinstance(block, UNetBlock):
                yield from (layer for layer in block.modules() if isinstance(layer, Conv2d))

    @abstractmethod
    def embed(
        self,
        c_noise: Tensor,
        class_labels: Tensor | None,
        label_mask: Tensor | None,
        augment_labels: Tensor | None,
    ) -> Tensor:
        """The embedding of everything but the image, [N, emb_channels] or [1, emb_channels]."""

    @abstractmethod
    def evaluate(self, x: Tensor, emb: Tensor) -> Tensor:
        """The output [N, out_channels, H, W] for images and an embedding."""

    def _check(
        self,
        x: Tensor,
        class_labels: Tensor | None,
        label_mask: Tensor | None,
        augment_labels: Tensor | None,
    ) -> None:
        """Check the shapes of images and labels; values are not looked at."""
        num = len(x)
        if x.shape[1:] != self.img_shape:
            raise UserError(
                f"images are {list(x.shape[1:])}, the network is for {list(self.img_shape)}"
                " (channels, height, width)"
            )
        _check_labels("class", class_labels, self.label_dim, num)
        _check_labels("augmentation", augment_labels, self.augment_dim, num)
        if label_mask is not None and (
            label_mask.dtype != torch.bool
            or label_mask.ndim != 1
            or len(label_mask) not in (1, num)
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
