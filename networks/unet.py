"""The U-Net of Ho et al. 2020 (appendix B), of which `ddpm`, `vdiff` and `adm` are variants.

This file has the embedding, the way down and up, and the output layers. A variant is a row of
settings; `vdiff` also has its own embedding of labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.blocks import BlockSettings, make_block
from networks.conditions import blocks_of, conditions
from networks.inputs import ConditionalNetwork, zeroed_labels
from networks.layers import (
    Conv2d,
    Init,
    Linear,
    PositionalEmbedding,
    Resample,
    StridedConv2d,
    full_precision,
)
from networks.layout import (
    Entry,
    Resampler,
    check_widths,
    decoder_entries,
    encoder_entries,
    make_levels,
)
from networks.norms import GroupNorm
from torch_utils.errors import UserError

NUM_GROUPS = 32  # of every norm in `ddpm` and `vdiff`, whatever the width


@dataclass(frozen=True)
class Variant:
    """What distinguishes the U-Nets of this family, apart from their sizes.

    Attributes:
        name: of the network, for messages.
        settings: those of the blocks.
        middle: those of the block with attention in the bottleneck.
        resampler: the layer between two levels.
        init_out: first values of the output convolution.
        init_label: first values of the label layer; None for `settings.init`.
        down_padding: zeros around a halving convolution, end or both (`StridedConv2d`).
        label_bias: whether the label layer has a bias.
        labels_first: whether the label layer is made before the blocks, not after the output
            layers; the published order of a network numbers its parameters.
        endpoint: whether the last frequency of the noise embedding is 1/10000 itself.
        exp_frequencies: how that embedding's frequencies are rounded, see `PositionalEmbedding`.
        cosine_first: whether the noise embedding has its cosines before its sines.
        widens_first: whether the first convolution has the width of the finest level, not
            model_channels.
        has_augmentation: whether the network takes augmentation labels.
        in_middle: whether the bottleneck has attention.
    """

    name: str
    settings: BlockSettings
    middle: BlockSettings
    init_out: Init
    resampler: Resampler = field(default_factory=Resampler)
    init_label: Init | None = None
    down_padding: str = "end"
    label_bias: bool = False
    labels_first: bool = False
    endpoint: bool = True
    exp_frequencies: bool = False
    cosine_first: bool = False
    widens_first: bool = False
    has_augmentation: bool = False
    in_middle: bool = True

    def block_settings(self, entry: Entry) -> BlockSettings:
        """The settings of an entry of the plan."""
        return self.middle if entry.name.endswith("_in0") else self.settings


class UNet(ConditionalNetwork):
    """Encoder, bottleneck and decoder, conditioned on a number and on labels.

    Attention acts at the levels whose larger side is in `attn_resolutions`, on every block of
    encoder and decoder, and on the first block of the bottleneck unless the variant has none there.
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
        first_channels: int | None = None,
    ) -> None:
        """Plan and check the layers, then make them.

        Args:
            variant: which U-Net of the family.
            img_resolution: height and width of the images.
            img_channels: channels of the input.
            label_dim: width of the class labels, 0 without classes.
            augment_dim: width of the augmentation labels; 0 where the variant has no use for them.
            out_channels: channels of the output.
            model_channels: the unit of all widths.
            channel_mult: width of each level in that unit, finest first.
            num_blocks: residual blocks a level.
            attn_resolutions: resolutions with self-attention.
            emb_channels: width of the embedding, None for four times that of the noise embedding.
            first_channels: width of the first convolution and of the noise embedding, None for
                model_channels.

        Raises:
            UserError: the sizes do not fit together.
        """
        super().__init__()
        if augment_dim and not variant.has_augmentation:
            raise UserError(
                f"the network {variant.name} takes no augmentation labels: train it without"
                f" augmentation (augment_dim is {augment_dim}), or choose ddpmpp, ncsnpp or adm"
            )
        levels = make_levels(img_resolution, model_channels, channel_mult, attn_resolutions)
        unit = first_channels or model_channels
        first = levels.widths[0] if variant.widens_first else unit
        if unit % 2:
            raise UserError(f"the noise embedding is {unit} wide: make model_channels even")
        self.encoder = encoder_entries(
            levels, img_channels, first, num_blocks, "standard", variant.resampler
        )
        self.decoder = decoder_entries(
            levels,
            self.encoder,
            num_blocks,
            attention="every",
            resampler=variant.resampler,
            in_middle=variant.in_middle,
        )
        check_widths([*self.encoder, *self.decoder], variant.settings.num_groups)
        for entry in [*self.encoder, *self.decoder]:
            if entry.attention:  # refuse a width without heads before a tensor exists
                variant.block_settings(entry).heads(entry.out_channels)

        self.img_shape = (img_channels, *img_resolution)
        self.label_dim = label_dim
        self.augment_dim = augment_dim
        self.emb_channels = emb_channels or 4 * unit
        self.cosine_first = variant.cosine_first
        settings = variant.settings
        self.map_noise = PositionalEmbedding(
            unit, endpoint=variant.endpoint, by_exp=variant.exp_frequencies
        )
        if augment_dim:
            self.map_augment = Linear(augment_dim, unit, bias=False, init=settings.init_zero)
        self.map_layer0 = Linear(unit, self.emb_channels, init=settings.init)
        self.map_layer1 = Linear(self.emb_channels, self.emb_channels, init=settings.init)
        if label_dim and variant.labels_first:
            self.map_label = self._label_layer(variant)
        self.enc = self._layers(self.encoder, variant)
        self.dec = self._layers(self.decoder, variant)
        width = levels.widths[0]
        self.out_norm = GroupNorm(width, groups=settings.num_groups, eps=settings.eps)
        self.out_conv = Conv2d(width, out_channels, 3, init=variant.init_out)
        if label_dim and not variant.labels_first:
            self.map_label = self._label_layer(variant)

    def _label_layer(self, variant: Variant) -> Linear:
        init = variant.init_label or variant.settings.init
        return Linear(self.label_dim, self.emb_channels, bias=variant.label_bias, init=init)

    def _layers(self, entries: Sequence[Entry], variant: Variant) -> nn.ModuleDict:
        return nn.ModuleDict({e.name: _layer(e, self.emb_channels, variant) for e in entries})

    def embed(
        self,
        c_noise: Tensor,
        class_labels: Tensor | None,
        label_mask: Tensor | None,
        augment_labels: Tensor | None,
    ) -> Tensor:
        """The embedding of everything but the image, [N, emb_channels]."""
        dtype = self.map_layer0.weight.dtype
        # A condition in float64 keeps its precision up to the sine: it runs to a thousand.
        cos, sin = self.map_noise(c_noise.to(torch.promote_types(c_noise.dtype, dtype)))
        emb = torch.cat([cos, sin] if self.cosine_first else [sin, cos], dim=1).to(dtype)
        if self.augment_dim and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(dtype))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.label_dim:
            labels = zeroed_labels(class_labels, label_mask, self.label_dim, emb)
            emb = emb + self.embed_labels(labels)
        return F.silu(emb)

    def embed_labels(self, labels: Tensor) -> Tensor:
        """The embedding of labels whose null label is a row of zeros, one row a label."""
        embedding: Tensor = self.map_label(labels)
        return embedding

    def evaluate(self, x: Tensor, emb: Tensor) -> Tensor:
        """The output image, from encoder, decoder and output layers."""
        own = iter(conditions(blocks_of(self.enc, self.dec), emb, x))
        skips: list[Tensor] = []
        for entry, layer in zip(self.encoder, self.enc.values(), strict=True):
            x = layer(x, next(own)) if entry.kind == "block" else layer(x)
            skips.append(x)
        for entry, layer in zip(self.decoder, self.dec.values(), strict=True):
            x = torch.cat([x, skips.pop()], dim=1) if entry.skip_channels else x
            x = layer(x, next(own)) if entry.kind == "block" else layer(x)
        with full_precision(x):
            output: Tensor = self.out_conv(self.out_norm(x, silu=True, widens=True))
        return output


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
