"""A network that is no U-Net, for test_extension.py: a few lines, and mistakes to choose from."""

from typing import Any

import torch
from torch import Tensor, nn

from networks.inputs import ConditionalNetwork, zeroed_labels
from networks.layers import Conv2d, Linear, full_precision, widen


class PlainNet(ConditionalNetwork):
    """Two convolutions; the conditions are added between them."""

    def __init__(
        self,
        *,
        img_resolution: tuple[int, int],
        img_channels: int,
        label_dim: int,
        augment_dim: int,
        out_channels: int,
        width: int,
        mistake: str,
    ) -> None:
        super().__init__()
        self.img_shape = (img_channels, *img_resolution)
        self.label_dim, self.augment_dim, self.mistake = label_dim, augment_dim, mistake
        self.map_noise = Linear(2, width)
        self.map_label = Linear(label_dim, width, bias=False) if label_dim else None
        self.map_augment = Linear(augment_dim, width, bias=False) if augment_dim else None
        self.unused = nn.Parameter(torch.zeros(3)) if mistake == "unused" else None
        self.first = Conv2d(img_channels, width, 3)
        self.out_conv = Conv2d(width, out_channels, 3)

    def embed(
        self,
        c_noise: Tensor,
        class_labels: Tensor | None,
        label_mask: Tensor | None,
        augment_labels: Tensor | None,
    ) -> Tensor:
        """The sum of the conditions."""
        c = c_noise.to(self.map_noise.weight.dtype)
        c = c.detach() if self.mistake == "detached" else c
        emb = self.map_noise(torch.stack([c.sin(), c.cos()], dim=1))
        if self.map_label is not None:
            mask = None if self.mistake == "deaf" else label_mask
            emb = emb + self.map_label(zeroed_labels(class_labels, mask, self.label_dim, emb))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        return torch.nn.functional.silu(emb)

    def evaluate(self, x: Tensor, emb: Tensor) -> Tensor:
        """The output [N, out_channels, H, W]."""
        h = self.first(x)
        h = torch.nn.functional.silu(h + emb.to(h.dtype)[:, :, None, None])
        if self.mistake == "turned":
            h = h.mT
        if self.mistake == "half":
            return self.out_conv(h)
        with full_precision(h):
            output: Any = self.out_conv(widen(h))
        return output
