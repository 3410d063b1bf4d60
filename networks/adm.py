"""ADM (Dhariwal & Nichol 2021, section 3 and appendix), as reimplemented by Karras et al. 2022.

State-dict names and order are the published ones. It knows nothing of sigma: `diffusion` computes
its input, its noise condition and what its output means.
"""

import math
from typing import Any

from networks.blocks import BlockSettings
from networks.layers import Init
from networks.unet import UNet, Variant
from torch_utils.errors import UserError

# Weights and biases uniform in +-1/sqrt(fan_in).
_INIT = Init("kaiming_uniform", weight_gain=math.sqrt(1 / 3), bias_gain=math.sqrt(1 / 3))
_INIT_ZERO = Init("kaiming_uniform", weight_gain=0.0)


class DhariwalUNet(UNet):
    """The U-Net of ADM: heads of at least 64 channels, an embedding that scales and shifts.

    A class has a learned vector, which is added to the embedding of the noise level. The null label
    adds nothing.
    """

    def __init__(
        self,
        *,
        label_dim: int,
        model_channels: int,
        channel_mult_emb: int,
        dropout: float,
        **sizes: Any,
    ) -> None:
        """Build the network; `networks.create` checks the options and knows their defaults.

        Args:
            label_dim: width of the class labels, 0 without classes.
            model_channels: the unit of all widths.
            channel_mult_emb: width of the embedding in that unit.
            dropout: probability of dropping a feature in training.
            **sizes: the other arguments of `UNet`.

        Raises:
            UserError: the sizes do not fit together.
        """
        if model_channels % 2:
            raise UserError(f"model_channels must be even, not {model_channels}")
        settings = BlockSettings(dropout=dropout, init=_INIT, init_zero=_INIT_ZERO)
        variant = Variant(
            "adm",
            settings,
            middle=settings,
            init_out=_INIT_ZERO,
            # unit normals: a one-hot label selects a column
            init_label=Init("kaiming_normal", weight_gain=math.sqrt(label_dim)),
            labels_first=True,
            endpoint=False,
            cosine_first=True,
            widens_first=True,
            has_augmentation=True,
        )
        super().__init__(
            variant,
            label_dim=label_dim,
            model_channels=model_channels,
            emb_channels=model_channels * channel_mult_emb,
            **sizes,
        )
