"""The U-Net of DDPM (Ho et al. 2020, appendix B) in the variants that PyTorch checkpoints have.

The defaults are the network of DDPM's ported weights and of SA-DPM (2023). Options give a second
implementation, with other norms and padding, and its class-conditional network with adaptive group
norm and residual resampling (Dhariwal & Nichol 2021, section 3). Others are those of UNet2DModel of
the library diffusers. It knows nothing of sigma: its condition is the step index.
"""

import math
from dataclasses import replace
from typing import Any

from networks.blocks import BlockSettings
from networks.layers import Init
from networks.layout import Resampler
from networks.unet import UNet, Variant

# Weights and biases uniform in +-1/sqrt(fan_in), the output layers included.
_INIT = Init("kaiming_uniform", weight_gain=math.sqrt(1 / 3), bias_gain=math.sqrt(1 / 3))
_RESAMPLERS = {"conv": "conv_resample", "pool": "pool_resample", "block": "block"}


class DDPMUNet(UNet):
    """The U-Net of DDPM; by default the bottleneck's attention has one head.

    A class has a learned vector, which is added to the embedding of the step. The null label adds
    nothing.
    """

    def __init__(
        self,
        *,
        label_dim: int,
        num_heads: int | None,
        head_dim: int | None,
        dropout: float,
        norm_eps: float,
        modulation: str,
        resampler: str,
        down_padding: str,
        num_groups: int,
        attn_resampler: str | None,
        middle_attention: str,
        middle_heads: str,
        freq_endpoint: bool,
        cosine_first: bool,
        **sizes: Any,
    ) -> None:
        """Build the network; `networks.create` checks the options and knows their defaults.

        Args:
            label_dim: number of classes; 0 without labels.
            num_heads, head_dim, dropout: as in `BlockSettings`.
            norm_eps: added to the variance by the norms.
            modulation: how the embedding acts on a block: add, to the second norm's input; or
                scale_shift, on its output.
            resampler: between levels: conv, a convolution with stride 2 on the way down and after
                doubling on the way up; pool, the mean of 2x2 and doubling; block, a residual block.
            down_padding: zeros around a convolution with stride 2: end or both.
            num_groups: groups of every norm.
            attn_resampler: the resampler that leaves a level with attention; None for `resampler`.
            middle_attention: of the bottleneck: normed; plain, without a norm before it; or none.
            middle_heads: heads of the bottleneck's attention: one, or the same as elsewhere.
            freq_endpoint: whether the last frequency of the step's embedding is 1/10000 itself.
            cosine_first: whether this embedding has its cosines before its sines.
            **sizes: the other arguments of `UNet`.

        Raises:
            UserError: the sizes do not fit together.
        """
        settings = BlockSettings(
            num_heads=num_heads,
            head_dim=head_dim,
            dropout=dropout,
            eps=norm_eps,
            num_groups=num_groups,
            resample_filter=None,
            adaptive_scale=modulation == "scale_shift",
            init=_INIT,
            init_zero=_INIT,
        )
        middle = replace(settings, attn_norm=middle_attention == "normed")
        if middle_heads == "one":
            middle = replace(middle, num_heads=1, head_dim=None)
        attn_kind = None if attn_resampler is None else _RESAMPLERS[attn_resampler]
        variant = Variant(
            "ddpm",
            settings,
            middle=middle,
            resampler=Resampler(_RESAMPLERS[resampler], attn_kind=attn_kind),
            down_padding=down_padding,
            init_out=_INIT,
            # unit normals: a one-hot label selects a column
            init_label=Init("kaiming_normal", weight_gain=math.sqrt(label_dim)),
            endpoint=freq_endpoint,
            exp_frequencies=True,
            cosine_first=cosine_first,
            in_middle=middle_attention != "none",
        )
        super().__init__(variant, label_dim=label_dim, **sizes)
