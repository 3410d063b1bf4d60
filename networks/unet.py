"""The U-Net of Ho et al. 2020 (appendix B), which the networks `ddpm` and `vdiff` are variants of.

The time embedding, the way down and up, and the output layers; a variant adds its settings and
what it makes of labels. All norms have 32 groups, whatever the width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.blocks import BlockSettings, check_heads, make_block
from networks.inputs import check_inputs
from networks.layers import (
    Conv2d,
    GroupNorm,
    Init,
    Linear,
    PositionalEmbedding,
    Resample,
    StridedConv2d,
    full_precision,
    widen,
)
from networks.layout import (
    Entry,
    Resampler,
    check_widths,
    decoder_entries,
    encoder_entries,
    make_levels,
)
from torch_utils.errors import UserError

NUM_GROUPS = 32


@dataclass(frozen=True)
class Variant:
    """What tells one U-Net of this family from another, its sizes apart.

    Attributes:
        name: of the network, for messages.
        settings: of the blocks.
        middle: of the block with attention in the bottleneck.
        resampler: what leads from level to level.
        init_out: first values of the output convolution.
        down_padding: zeros around a halving convolution, end or both (`StridedConv2d`).
    """

    name: str
    settings: BlockSettings
    middle: BlockSettings
    resampler: Resampler
    init_out: Init
    down_padding: str = "end"

    def block_settings(self, entry: Entry) -> BlockSettings:
        """The settings of an entry of the plan."""
        return self.middle if entry.name.endswith("_in0") else self.settings


class UNet(nn.Module, ABC):
    """Encoder, bottleneck and decoder, conditioned on a number and, in the variants, on labels.

    Attention acts at the levels whose larger side is in `attn_resolutions`, on every block of
    encoder and decoder, and always on the first block of the bottleneck.
    """

    def __init__(
        self,
        variant: Variant,
        *,
        img_resolution: tuple[int, int],
        img_channels: int,
        label_dim: int,
        augment_dim: int,
        out_channels: int,
        model_channels: int,
        channel_mult: Sequence[int],
        num_blocks: int,
        attn_resolutions: Sequence[int],
        emb_channels: int | None,
    ) -> None:
        """Plan and check the layers, then make them.

        Args:
            variant: which U-Net of the family.
            img_resolution: height and width of the images.
            img_channels: channels of the input.
            label_dim: width of the class labels, 0 for none.
            augment_dim: has to be 0.
            out_channels: channels of the output.
            model_channels: the unit of all widths.
            channel_mult: width of each level in that unit, finest first.
            num_blocks: residual blocks a level.
            attn_resolutions: resolutions with self-attention.
            emb_channels: width of the embedding, None for 4 model_channels.

        Raises:
            UserError: the sizes do not fit together.
        """
        super().__init__()
        if augment_dim:
            raise UserError(
                f"the network {variant.name} takes no augmentation labels: train it without"
                f" augmentation (augment_dim is {augment_dim}), or choose ddpmpp, ncsnpp or adm"
            )
        levels = make_levels(img_resolution, model_channels, channel_mult, attn_resolutions)
        self.encoder = encoder_entries(
            levels, img_channels, model_channels, num_blocks, "standard", variant.resampler
        )
        self.decoder = decoder_entries(
            levels, self.encoder, num_blocks, attention="every", resampler=variant.resampler
        )
        check_widths([*self.encoder, *self.decoder], NUM_GROUPS)
        for entry in [*self.encoder, *self.decoder]:
            check_heads([entry], variant.block_settings(entry))

        self.img_shape = (img_channels, *img_resolution)
        self.label_dim = label_dim
        self.emb_channels = emb_channels or 4 * model_channels
        init = variant.settings.init
        self.map_noise = PositionalEmbedding(model_channels, endpoint=True)
        self.map_layer0 = Linear(model_channels, self.emb_channels, init=init)
        self.map_layer1 = Linear(self.emb_channels, self.emb_channels, init=init)
        self.enc = self._layers(self.encoder, variant)
        self.dec = self._layers(self.decoder, variant)
        width = levels.widths[0]
        self.out_norm = GroupNorm(width, groups=NUM_GROUPS, eps=variant.settings.eps)
        self.out_conv = Conv2d(width, out_channels, 3, init=variant.init_out)

    def _layers(self, entries: Sequence[Entry], variant: Variant) -> nn.ModuleDict:
        return nn.ModuleDict({e.name: _layer(e, self.emb_channels, variant) for e in entries})

    @abstractmethod
    def embed_labels(self, class_labels: Tensor | None, label_mask: Tensor | None) -> Tensor:
        """The embedding of the labels, [N, emb_channels] or [1, emb_channels] for all.

        Called only if label_dim is not 0; each variant has its own.
        """

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
            c_noise: noise condition [N], or [1] for all: the step index, or 1000 times the time
                in [0, 1]; integers and fractions alike.
            class_labels: [N, label_dim]; None is the null label.
            label_mask: bool [N], False replaces a label by the null label; None is all True.
            augment_labels: has to be None.

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
            augment_dim=0,
        )
        emb = self._embed(c_noise, class_labels, label_mask)
        skips: list[Tensor] = []
        for entry, layer in zip(self.encoder, self.enc.values(), strict=True):
            x = layer(x, emb) if entry.kind == "block" else layer(x)
            skips.append(x)
        for entry, layer in zip(self.decoder, self.dec.values(), strict=True):
            x = torch.cat([x, skips.pop()], dim=1) if entry.skip_channels else x
            x = layer(x, emb) if entry.kind == "block" else layer(x)
        with full_precision(x):
            output: Tensor = self.out_conv(F.silu(self.out_norm(widen(x))))
        return output

    def _embed(
        self, c_noise: Tensor, class_labels: Tensor | None, label_mask: Tensor | None
    ) -> Tensor:
        """The embedding of everything but the image, [N, emb_channels]."""
        dtype = self.map_layer0.weight.dtype
        # A condition in float64 keeps its precision up to the sine: it runs to a thousand.
        cos, sin = self.map_noise(c_noise.to(torch.promote_types(c_noise.dtype, dtype)))
        emb = torch.cat([sin, cos], dim=1).to(dtype)
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.label_dim:
            emb = emb + self.embed_labels(class_labels, label_mask)
        return F.silu(emb)


def _layer(entry: Entry, emb_channels: int, variant: Variant) -> nn.Module:
    """The module of an entry of the plan."""
    channels, init = (entry.in_channels, entry.out_channels), variant.settings.init
    match entry.kind:
        case "block":
            return make_block(entry, emb_channels, variant.block_settings(entry))
        case "pool_resample":
            return Resample(entry.resample, None)
        case "conv_resample" if entry.resample == "down":
            return StridedConv2d(*channels, padding=variant.down_padding, init=init)
        case _:
            assert entry.kind in ("conv", "conv_resample"), entry.kind
            return Conv2d(*channels, 3, resample=entry.resample, taps=None, init=init)
