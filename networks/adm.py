"""ADM (Dhariwal & Nichol 2021, section 3 and appendix), as reimplemented by Karras et al. 2022.

State-dict names and order are the published ones. It knows nothing of sigma: `diffusion` computes
its input, its noise condition and what its output means.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.blocks import BlockSettings, check_heads, make_block
from networks.inputs import check_inputs, zeroed_labels
from networks.layers import (
    Conv2d,
    GroupNorm,
    Init,
    Linear,
    PositionalEmbedding,
    full_precision,
    widen,
)
from networks.layout import Entry, check_widths, decoder_entries, encoder_entries, make_levels
from torch_utils.errors import UserError

# Weights and biases uniform in +-1/sqrt(fan_in).
_INIT = Init("kaiming_uniform", weight_gain=math.sqrt(1 / 3), bias_gain=math.sqrt(1 / 3))
_INIT_ZERO = Init("kaiming_uniform", weight_gain=0.0)


class DhariwalUNet(nn.Module):
    """The U-Net of ADM: heads of at least 64 channels, an embedding that scales and shifts.

    Attention acts at the levels whose larger side is in `attn_resolutions`, on every block of
    encoder and decoder, and always on the first block of the bottleneck.
    """

    def __init__(
        self,
        *,
        img_resolution: tuple[int, int],
        img_channels: int,
        label_dim: int,
        augment_dim: int,
        out_channels: int,
        model_channels: int,
        channel_mult: Sequence[int],
        channel_mult_emb: int,
        num_blocks: int,
        attn_resolutions: Sequence[int],
        dropout: float,
    ) -> None:
        """Build the network; `networks.create` checks the options and knows their defaults.

        Args:
            img_resolution: height and width of the images.
            img_channels: channels of the input.
            label_dim: width of the class labels, 0 for none.
            augment_dim: width of the augmentation labels, 0 for none.
            out_channels: channels of the output.
            model_channels: the unit of all widths.
            channel_mult: width of each level in that unit, finest first.
            channel_mult_emb: width of the embedding in that unit.
            num_blocks: residual blocks a level.
            attn_resolutions: resolutions with self-attention.
            dropout: probability of dropping a feature in training.

        Raises:
            UserError: the sizes do not fit together.
        """
        super().__init__()
        if model_channels % 2:
            raise UserError(f"model_channels must be even, not {model_channels}")
        levels = make_levels(img_resolution, model_channels, channel_mult, attn_resolutions)
        settings = BlockSettings(dropout=dropout, init=_INIT, init_zero=_INIT_ZERO)
        self.encoder = encoder_entries(
            levels, img_channels, levels.widths[0], num_blocks, "standard"
        )
        self.decoder = decoder_entries(levels, self.encoder, num_blocks, attention="every")
        check_widths([*self.encoder, *self.decoder])
        check_heads([*self.encoder, *self.decoder], settings)

        self.img_shape = (img_channels, *img_resolution)
        self.label_dim = label_dim
        self.augment_dim = augment_dim
        emb_channels = model_channels * channel_mult_emb
        self.map_noise = PositionalEmbedding(model_channels, endpoint=False)
        if augment_dim:
            self.map_augment = Linear(augment_dim, model_channels, bias=False, init=_INIT_ZERO)
        self.map_layer0 = Linear(model_channels, emb_channels, init=_INIT)
        self.map_layer1 = Linear(emb_channels, emb_channels, init=_INIT)
        if label_dim:
            # Unit normals: a one-hot label selects a column.
            init = Init("kaiming_normal", weight_gain=math.sqrt(label_dim))
            self.map_label = Linear(label_dim, emb_channels, bias=False, init=init)
        self.enc = nn.ModuleDict({e.name: _layer(e, emb_channels, settings) for e in self.encoder})
        self.dec = nn.ModuleDict({e.name: _layer(e, emb_channels, settings) for e in self.decoder})
        self.out_norm = GroupNorm(levels.widths[0])
        self.out_conv = Conv2d(levels.widths[0], out_channels, 3, init=_INIT_ZERO)

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
            c_noise: noise condition [N], or [1] for all.
            class_labels: [N, label_dim]; None is the null label, a row of zeros.
            label_mask: bool [N], False replaces a label by the null label; None is all True.
            augment_labels: [N, augment_dim]; None is no augmentation.

        Returns:
            The output [N, out_channels, H, W], float32 under autocast.

        Raises:
            UserError: images or labels do not have the network's sizes.
        """
        check_inputs(
            x,
            self.img_shape,
            class_labels=class_labels,
            label_dim=self.label_dim,
            label_mask=label_mask,
            augment_labels=augment_labels,
            augment_dim=self.augment_dim,
        )
        emb = self._embed(c_noise, class_labels, label_mask, augment_labels)
        skips: list[Tensor] = []
        for entry, layer in zip(self.encoder, self.enc.values(), strict=True):
            x = layer(x) if entry.kind == "conv" else layer(x, emb)
            skips.append(x)
        for entry, layer in zip(self.decoder, self.dec.values(), strict=True):
            x = torch.cat([x, skips.pop()], dim=1) if entry.skip_channels else x
            x = layer(x, emb)
        with full_precision(x):
            output: Tensor = self.out_conv(F.silu(self.out_norm(widen(x))))
        return output

    def _embed(
        self,
        c_noise: Tensor,
        class_labels: Tensor | None,
        label_mask: Tensor | None,
        augment_labels: Tensor | None,
    ) -> Tensor:
        """The embedding of everything but the image, [N, emb_channels]."""
        dtype = self.map_layer0.weight.dtype
        emb = torch.cat(self.map_noise(c_noise.to(dtype)), dim=1)
        if self.augment_dim and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(dtype))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.label_dim:
            emb = emb + self.map_label(zeroed_labels(class_labels, label_mask, self.label_dim, emb))
        return F.silu(emb)


def _layer(entry: Entry, emb_channels: int, settings: BlockSettings) -> nn.Module:
    """The module of an entry of the plan."""
    if entry.kind == "conv":
        return Conv2d(entry.in_channels, entry.out_channels, 3, init=_INIT)
    return make_block(entry, emb_channels, settings)
