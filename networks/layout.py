"""The plan of a U-Net as plain data: which layers, with which names and widths, in which order.

Made and checked before any tensor exists, so that an impossible size is an error at once.
The names are those of the published state dictionaries (Karras et al. 2022, code release).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch_utils.errors import UserError


@dataclass(frozen=True)
class Entry:
    """One layer of the plan.

    Attributes:
        name: `<height>x<width>_<role>`, the key in the module dictionary.
        kind: conv, block, a layer that only resamples (conv_resample, pool_resample), or one of the
            auxiliary layers (names that start with aux_).
        in_channels: channels of its input, those of the skip connection included.
        out_channels: channels of its output.
        skip_channels: channels it takes from the skip stack.
        resample: up or down, None where the resolution stays.
        attention: whether a block ends in self-attention.
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    skip_channels: int = 0
    resample: str | None = None
    attention: bool = False


@dataclass(frozen=True)
class Levels:
    """The resolutions of a U-Net, finest first: each half the one before.

    Attributes:
        sizes: (height, width) of each level.
        widths: channels of each level.
        attn_resolutions: levels whose larger side is in this list have attention. Published lists
            are for square images; the larger side bounds the cost.
    """

    sizes: tuple[tuple[int, int], ...]
    widths: tuple[int, ...]
    attn_resolutions: tuple[int, ...]

    def prefix(self, level: int) -> str:
        """The first part of the names at a level, like `32x32`."""
        height, width = self.sizes[level]
        return f"{height}x{width}"

    def has_attention(self, level: int) -> bool:
        """Whether the blocks of a level may have attention."""
        return max(self.sizes[level]) in self.attn_resolutions


def num_groups(channels: int) -> int:
    """Groups of a group norm over this many channels: 32, or fewer so that a group has four."""
    return min(32, channels // 4)


def make_levels(
    img_resolution: tuple[int, int],
    model_channels: int,
    channel_mult: Sequence[int],
    attn_resolutions: Sequence[int],
) -> Levels:
    """Halve the resolution once for each entry of `channel_mult` after the first.

    Args:
        img_resolution: height and width of the images.
        model_channels: the unit of the widths.
        channel_mult: width of each level in that unit, finest first.
        attn_resolutions: see `Levels`.

    Returns:
        The levels.

    Raises:
        UserError: height or width cannot be halved often enough.
    """
    factor = 2 ** (len(channel_mult) - 1)
    for side, size in zip(("height", "width"), img_resolution, strict=True):
        if size % factor:
            raise UserError(
                f"the {side} of the images must be a multiple of {factor} (channel_mult has"
                f" {len(channel_mult)} levels, each half the one before), not {size}"
            )
    height, width = img_resolution
    return Levels(
        sizes=tuple((height >> level, width >> level) for level in range(len(channel_mult))),
        widths=tuple(model_channels * mult for mult in channel_mult),
        attn_resolutions=tuple(attn_resolutions),
    )


@dataclass(frozen=True)
class Resampler:
    """The layer that leads from one level to the next.

    Attributes:
        kind: of its entry: block, conv_resample or pool_resample.
        attention: whether the layer has attention, at its new resolution, if the level that it
            leaves has attention.
        attn_kind: kind of its entry if the level that it leaves has attention; None for `kind`.
    """

    kind: str = "block"
    attention: bool = False
    attn_kind: str | None = None

    def entry(self, levels: Levels, level: int, channels: int, resample: str) -> Entry:
        """The entry that leads up or down to a level."""
        from_attention = levels.has_attention(level - 1 if resample == "down" else level + 1)
        return Entry(
            f"{levels.prefix(level)}_{resample}",
            (from_attention and self.attn_kind) or self.kind,
            channels,
            channels,
            resample=resample,
            attention=self.attention and from_attention,
        )


_RESAMPLING_BLOCK = Resampler()


def encoder_entries(
    levels: Levels,
    in_channels: int,
    first_channels: int,
    num_blocks: int,
    encoder_type: str,
    resampler: Resampler = _RESAMPLING_BLOCK,
) -> list[Entry]:
    """Plan the way down: a convolution, then blocks, with a halving layer between levels.

    Args:
        levels: resolutions and widths.
        in_channels: channels of the input.
        first_channels: width after the first convolution.
        num_blocks: blocks a level, the halving one not counted.
        encoder_type: standard, or how an image pyramid is fed in: skip or residual
            (Song et al. 2021, appendix H).
        resampler: what halves between levels.

    Returns:
        The entries in order.
    """
    entries = [Entry(f"{levels.prefix(0)}_conv", "conv", in_channels, first_channels)]
    channels, aux_channels = first_channels, in_channels
    for level, width in enumerate(levels.widths):
        prefix = levels.prefix(level)
        if level > 0:
            entries.append(resampler.entry(levels, level, channels, "down"))
            entries.extend(_pyramid_entries(prefix, encoder_type, aux_channels, channels))
            if encoder_type == "residual":
                aux_channels = channels
        for index in range(num_blocks):
            attention = levels.has_attention(level)
            name = f"{prefix}_block{index}"
            entries.append(Entry(name, "block", channels, width, attention=attention))
            channels = width
    return entries


def _pyramid_entries(
    prefix: str, encoder_type: str, aux_channels: int, channels: int
) -> list[Entry]:
    """The layers that feed the image pyramid in at one level."""
    if encoder_type == "skip":
        return [
            Entry(f"{prefix}_aux_down", "aux_down", aux_channels, aux_channels, resample="down"),
            Entry(f"{prefix}_aux_skip", "aux_skip", aux_channels, channels),
        ]
    if encoder_type == "residual":
        name = f"{prefix}_aux_residual"
        return [Entry(name, "aux_residual", aux_channels, channels, resample="down")]
    return []


def decoder_entries(
    levels: Levels,
    encoder: Sequence[Entry],
    num_blocks: int,
    *,
    attention: str,
    outputs: tuple[str, int] | None = None,
    resampler: Resampler = _RESAMPLING_BLOCK,
    in_middle: bool = True,
) -> list[Entry]:
    """Plan the way up: every block takes one encoder output from the skip stack.

    Args:
        levels: resolutions and widths.
        encoder: the plan of the encoder, whose outputs (auxiliary ones apart) are the skip stack.
        num_blocks: blocks a level of the encoder; the decoder has one more.
        attention: which blocks of a level with attention have it, the last or every one.
        outputs: how output images branch off, and their channels: standard, one at the finest
            level; or skip, one at every level, summed (Song et al. 2021, appendix H). None for a
            network whose output layers are not part of the decoder.
        resampler: what doubles between levels.
        in_middle: whether the first block of the bottleneck has attention.

    Returns:
        The entries in order.
    """
    assert attention in ("last", "every"), attention
    skips = [entry.out_channels for entry in encoder if not entry.kind.startswith("aux")]
    channels = skips[-1]
    deepest = len(levels.widths) - 1
    entries = []
    for level in range(deepest, -1, -1):
        prefix, width = levels.prefix(level), levels.widths[level]
        if level == deepest:
            first = Entry(f"{prefix}_in0", "block", channels, channels, attention=in_middle)
            entries.append(first)
            entries.append(Entry(f"{prefix}_in1", "block", channels, channels))
        else:
            entries.append(resampler.entry(levels, level, channels, "up"))
        for index in range(num_blocks + 1):
            skip = skips.pop()
            entries.append(
                Entry(
                    f"{prefix}_block{index}",
                    "block",
                    channels + skip,
                    width,
                    skip_channels=skip,
                    attention=levels.has_attention(level)
                    and (attention == "every" or index == num_blocks),
                )
            )
            channels = width
        if outputs is not None:
            entries.extend(_output_entries(levels, level, *outputs))
    return entries


def _output_entries(
    levels: Levels, level: int, decoder_type: str, out_channels: int
) -> list[Entry]:
    """The layers that turn the features of one level into an image."""
    prefix, width = levels.prefix(level), levels.widths[level]
    entries = []
    if decoder_type == "skip" and level < len(levels.widths) - 1:
        entries.append(
            Entry(f"{prefix}_aux_up", "aux_up", out_channels, out_channels, resample="up")
        )
    if decoder_type == "skip" or level == 0:
        entries.append(Entry(f"{prefix}_aux_norm", "aux_norm", width, width))
        entries.append(Entry(f"{prefix}_aux_conv", "aux_conv", width, out_channels))
    return entries


def check_widths(entries: Iterable[Entry], fixed_groups: int | None = None) -> None:
    """Check that every group norm of the plan can split its channels evenly.

    Args:
        entries: the plan of encoder and decoder.
        fixed_groups: groups of every norm, None for those of `num_groups`.

    Raises:
        UserError: a width does not divide into its groups.
    """
    for entry in entries:
        if entry.kind not in ("block", "aux_norm"):
            continue
        for channels in (entry.in_channels, entry.out_channels):
            groups = fixed_groups or num_groups(channels)
            if groups == 0 or channels % groups:
                wanted = (
                    f"{groups} groups: make model_channels a multiple of {groups}"
                    if fixed_groups
                    else f"{max(groups, 1)} groups of at least 4: make model_channels a multiple"
                    " of 32 (of 4 in networks below 128 channels)"
                )
                raise UserError(
                    f"layer {entry.name} would normalise {channels} channels, which do not split"
                    f" into {wanted}"
                )
