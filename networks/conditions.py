"""What the embedding does to all residual blocks of a network, computed at once.

On a GPU a block's own product and biases would cost ten kernels that take less time than their
launch; those of all blocks together cost as many.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.blocks import UNetBlock
from networks.layers import Conv2d, Linear, full_precision, widen, working_dtype


def blocks_of(*stages: nn.ModuleDict) -> list[UNetBlock]:
    """The blocks among the layers of a network, in the order in which they act."""
    layers = [layer for stage in stages for layer in stage.values()]
    return [layer for layer in layers if isinstance(layer, UNetBlock)]


def conditions(blocks: Sequence[UNetBlock], emb: Tensor, x: Tensor) -> list[Tensor]:
    """What blocks of one network add to their features, by one matrix product for all of them.

    These are the outputs of the layers `affine`, with the biases of `conv0` where they are added to
    the same features, and the biases of the layers that end in a residual sum, times its scale.

    Args:
        blocks: blocks with equal settings of scales.
        emb: embedding [N, emb_channels], or [1, emb_channels] for all.
        x: features of the network, for their dtype.

    Returns:
        For each block its columns, [N, k] or [1, k].
    """
    scale, is_adaptive = blocks[0].skip_scale, blocks[0].adaptive_scale
    assert all((b.skip_scale, b.adaptive_scale) == (scale, is_adaptive) for b in blocks)
    dtype = working_dtype(x)
    with full_precision(emb):
        weight = torch.cat([block.affine.weight for block in blocks])
        parts = F.linear(widen(emb), weight, _biases([block.affine for block in blocks]))
        if not is_adaptive:
            parts = parts + _biases([block.conv0 for block in blocks])
        columns = torch.split(parts, [block.condition_widths[0] for block in blocks], dim=1)
        own = {id(block): [part] for block, part in zip(blocks, columns, strict=True)}
        # those with a convolution in their shortcut first: its bias belongs to the same sum
        shortcuts = [b.skip for b in blocks if isinstance(b.skip, Conv2d)]
        summing = sorted(blocks, key=lambda block: not isinstance(block.skip, Conv2d))
        attending = [block for block in blocks if block.heads]
        layers = [*(block.conv1 for block in summing), *(block.proj for block in attending)]
        sums = scale * _biases(layers)
        if shortcuts:
            # scaled apart: parameters whose gradient is one tensor would share its memory
            more = scale * _biases(shortcuts)
            sums = sums + F.pad(more, (0, len(sums) - len(more)))
        rows = torch.split(
            sums.expand(len(emb), -1), [len(layer.weight) for layer in layers], dim=1
        )
        for block, row in zip([*summing, *attending], rows, strict=True):
            own[id(block)].append(row)
        joined = torch.cat([part for parts_of in own.values() for part in parts_of], dim=1)
        widths = [sum(block.condition_widths) for block in blocks]
        return list(torch.split(joined.to(dtype), widths, dim=1))


def _biases(layers: Sequence[Linear | Conv2d]) -> Tensor:
    return torch.cat([layer.bias for layer in layers if layer.bias is not None])
