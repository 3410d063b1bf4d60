"""DDPM++ and NCSN++ (Song et al. 2021, appendix H), as reimplemented by Karras et al. 2022.

Options choose between the two; state-dict names and order are the published ones. It knows
nothing of sigma: `diffusion` computes its input, its noise condition and what its output means.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.blocks import BlockSettings, make_block
from networks.conditions import blocks_of, conditions
from networks.inputs import ConditionalNetwork, zeroed_labels
from networks.layers import (
    Conv2d,
    FourierEmbedding,
    Init,
    Linear,
    PositionalEmbedding,
    Resample,
    full_precision,
)
from networks.layout import Entry, check_widths, decoder_entries, encoder_entries, make_levels
from networks.norms import GroupNorm
from torch_utils.errors import UserError

_INIT = Init("xavier_uniform")
_INIT_ZERO = Init("xavier_uniform", weight_gain=1e-5)
_INIT_ATTN = Init("xavier_uniform", weight_gain=math.sqrt(0.2))
_EPS = 1e-6


class SongUNet(ConditionalNetwork):
    """The U-Net of DDPM++ and NCSN++.

    Attention acts at the levels whose larger side is in `attn_resolutions`: on every encoder block,
    on the last decoder block, and always on the first block of the bottleneck. The null label is a
    row of zeros.

    Attributes:
        prefers_channels_last: in float32 on CPUs, where oneDNN's convolutions are faster so.
    """

    prefers_channels_last = True

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
        embedding_type: str,
        channel_mult_noise: int,
        encoder_type: str,
        decoder_type: str,
        resample_filter: Sequence[float],
    ) -> None:
        """Build the network; `networks.create` checks the options and knows their defaults.

        Args:
            img_resolution, img_channels, label_dim, augment_dim, out_channels, model_channels,
                channel_mult, num_blocks, attn_resolutions: as in `networks.unet.UNet`.
            channel_mult_emb: width of the embedding in units of model_channels.
            dropout: probability of dropping a feature in training.
            embedding_type: of the noise condition, positional or fourier.
            channel_mult_noise: width of the noise features in units of model_channels.
            encoder_type: standard, skip or residual.
            decoder_type: standard or skip.
            resample_filter: taps of the filter between levels.

        Raises:
            UserError: the sizes do not fit together.
        """
        super().__init__()
        noise_channels = model_channels * channel_mult_noise
        if noise_channels % 2:
            raise UserError(
                f"model_channels times channel_mult_noise must be even, not {noise_channels}"
            )
        levels = make_levels(img_resolution, model_channels, channel_mult, attn_resolutions)
        self.encoder = encoder_entries(
            levels, img_channels, model_channels, num_blocks, encoder_type
        )
        self.decoder = decoder_entries(
            levels, self.encoder, num_blocks, attention="last", outputs=(decoder_type, out_channels)
        )
        check_widths([*self.encoder, *self.decoder])

        self.img_shape = (img_channels, *img_resolution)
        self.label_dim = label_dim
        self.augment_dim = augment_dim
        emb_channels = model_channels * channel_mult_emb
        self.map_noise: PositionalEmbedding | FourierEmbedding
        if embedding_type == "positional":
            self.map_noise = PositionalEmbedding(noise_channels, endpoint=True)
        else:
            self.map_noise = FourierEmbedding(noise_channels)
        if label_dim:
            self.map_label = Linear(label_dim, noise_channels, init=_INIT)
        if augment_dim:
            self.map_augment = Linear(augment_dim, noise_channels, bias=False, init=_INIT)
        self.map_layer0 = Linear(noise_channels, emb_channels, init=_INIT)
        self.map_layer1 = Linear(emb_channels, emb_channels, init=_INIT)

        settings = BlockSettings(
            num_heads=1,
            dropout=dropout,
            skip_scale=math.sqrt(0.5),
            eps=_EPS,
            resample_filter=tuple(resample_filter),
            resample_proj=True,
            adaptive_scale=False,
            init=_INIT,
            init_zero=_INIT_ZERO,
            init_attn=_INIT_ATTN,
        )
        self.enc = nn.ModuleDict({e.name: _layer(e, emb_channels, settings) for e in self.encoder})
        self.dec = nn.ModuleDict({e.name: _layer(e, emb_channels, settings) for e in self.decoder})

    def embed(
        self,
        c_noise: Tensor,
        class_labels: Tensor | None,
        label_mask: Tensor | None,
        augment_labels: Tensor | None,
    ) -> Tensor:
        """The embedding of everything but the image, [N, emb_channels]."""
        dtype = self.map_layer0.weight.dtype
        cos, sin = self.map_noise(c_noise.to(dtype))
        emb = torch.cat([sin, cos], dim=1)
        if self.label_dim:
            labels = zeroed_labels(class_labels, label_mask, self.label_dim, emb)
            emb = emb + self.map_label(labels * math.sqrt(self.label_dim))
        if self.augment_dim and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(dtype))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))

    def evaluate(self, x: Tensor, emb: Tensor) -> Tensor:
        """The output image, from encoder and decoder."""
        own = iter(conditions(blocks_of(self.enc, self.dec), emb, x))
        return self._decode(self._encode(x, own), own)

    def _encode(self, x: Tensor, own: Iterator[Tensor]) -> list[Tensor]:
        """The skip stack: the outputs of all encoder layers but the auxiliary ones."""
        skips: list[Tensor] = []
        pyramid = x
        for entry, layer in zip(self.encoder, self.enc.values(), strict=True):
            if entry.kind == "aux_down":
                pyramid = layer(pyramid)
            elif entry.kind == "aux_skip":
                skips[-1] = skips[-1] + layer(pyramid)
            elif entry.kind == "aux_residual":
                pyramid = (skips[-1] + layer(pyramid)) * math.sqrt(0.5)
                skips[-1] = pyramid
            elif entry.kind == "conv":
                skips.append(layer(x))
            else:
                skips.append(layer(skips[-1], next(own)))
        return skips

    def _decode(self, skips: list[Tensor], own: Iterator[Tensor]) -> Tensor:
        """The output image from the skip stack, the output convolutions in full precision."""
        x = skips[-1]
        features = x
        image: Tensor | None = None
        for entry, layer in zip(self.decoder, self.dec.values(), strict=True):
            if entry.kind == "block":
                x = torch.cat([x, skips.pop()], dim=1) if entry.skip_channels else x
                x = layer(x, next(own))
                continue
            with full_precision(x):
                if entry.kind == "aux_up":
                    image = layer(image)
                elif entry.kind == "aux_norm":
                    features = layer(x, silu=True, widens=True)
                else:
                    output = layer(features)
                    image = output if image is None else image + output
        assert image is not None, "the finest level ends in an output convolution"
        return image


def _layer(entry: Entry, emb_channels: int, settings: BlockSettings) -> nn.Module:
    """The module of an entry of the plan."""
    channels = entry.in_channels, entry.out_channels
    taps = settings.resample_filter
    match entry.kind:
        case "block":
            return make_block(entry, emb_channels, settings)
        case "conv":
            return Conv2d(*channels, 3, init=_INIT)
        case "aux_down" | "aux_up":
            return Resample(entry.resample, taps)
        case "aux_skip":
            return Conv2d(*channels, 1, init=_INIT)
        case "aux_residual":
            return Conv2d(*channels, 3, resample=entry.resample, taps=taps, fused=True, init=_INIT)
        case "aux_norm":
            return GroupNorm(entry.in_channels, eps=_EPS)
        case _:
            assert entry.kind == "aux_conv", entry.kind
            return Conv2d(*channels, 3, init=_INIT_ZERO)
