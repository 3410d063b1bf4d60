"""The U-Net of v-diffusion (Salimans & Ho 2022, appendix), as its PyTorch port configures it.

It differs from DDPM's by adaptive group norm, residual resampling with attention, and labels that
are classes or sets of tags. It knows nothing of sigma: its condition is 1000 t, scaled outside, so
that networks of discrete and of continuous time share one unit.
"""

import math
from typing import Any

from torch import Tensor

from networks.blocks import BlockSettings
from networks.layers import Init
from networks.layout import Resampler
from networks.unet import NUM_GROUPS, UNet, Variant

_INIT = Init("truncated_normal")
_INIT_ZERO = Init("truncated_normal", weight_gain=0.0)
_INIT_TAGS = Init("kaiming_uniform", weight_gain=math.sqrt(1 / 3), bias_gain=math.sqrt(1 / 3))
_EPS = 1e-6


class VDiffusionUNet(UNet):
    """The U-Net of v-diffusion.

    The null label is a row of zeros, for classes and tags; its embedding is the bias of the label
    layer. With tags it is also the label of an image without tags.
    """

    def __init__(
        self,
        *,
        label_dim: int,
        multi_tags: bool,
        num_heads: int | None,
        head_dim: int | None,
        dropout: float,
        **sizes: Any,
    ) -> None:
        """Build the network; `networks.create` checks the options and knows their defaults.

        Args:
            label_dim: number of classes or tags; 0 without labels.
            multi_tags: whether a label is a set of tags, which is divided by the root of their
                number, and not one class.
            num_heads, head_dim, dropout: as in `BlockSettings`.
            **sizes: the other arguments of `UNet`.

        Raises:
            UserError: the sizes do not fit together.
        """
        settings = BlockSettings(
            num_heads=num_heads,
            head_dim=head_dim,
            dropout=dropout,
            eps=_EPS,
            num_groups=NUM_GROUPS,
            resample_filter=None,
            init=_INIT,
            init_zero=_INIT_ZERO,
        )
        variant = Variant(
            "vdiff",
            settings,
            middle=settings,
            resampler=Resampler("block", attention=True),
            init_out=_INIT_ZERO,
            init_label=_INIT_TAGS if multi_tags else _INIT,
            label_bias=True,
        )
        super().__init__(variant, label_dim=label_dim, **sizes)
        self.multi_tags = multi_tags

    def embed_labels(self, labels: Tensor) -> Tensor:
        """A linear layer over the labels, tags at equal length whatever their number."""
        if self.multi_tags:
            num_tags = (labels != 0).sum(dim=1, keepdim=True).clamp(min=1)
            labels = labels / num_tags.to(labels.dtype).sqrt()
        return super().embed_labels(labels)
