"""Where each tensor of ours comes from: the names of foreign layers, and how values are rearranged.

The plan of our U-Net is walked once; a family gives its own name of each entry.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from networks.layout import Entry

Shapes = Mapping[str, tuple[int, ...]]


def identity(tensor: Tensor) -> Tensor:
    """The tensor itself."""
    return tensor


def swap_halves(tensor: Tensor) -> Tensor:
    """(shift, scale) along the first axis to our (scale, shift)."""
    first, second = tensor.chunk(2)
    return torch.cat([second, first])


def interleave(tensor: Tensor) -> Tensor:
    """All queries, all keys, all values along the first axis to our q, k, v of each channel."""
    return torch.stack(tensor.chunk(3), dim=1).flatten(0, 1)


def transpose(tensor: Tensor) -> Tensor:
    """A table of embeddings to the weight of a linear layer over one-hots."""
    return tensor.mT


@dataclass(frozen=True)
class Source:
    """Where a tensor of ours comes from.

    Attributes:
        names: foreign tensors, to be concatenated along the first axis.
        convert: applied to the concatenation.
    """

    names: tuple[str, ...]
    convert: Callable[[Tensor], Tensor] = identity

    def tensor(self, state: Mapping[str, Tensor]) -> Tensor:
        """Our tensor from the foreign state dict."""
        parts = [state[name] for name in self.names]
        return self.convert(torch.cat(parts) if len(parts) > 1 else parts[0]).contiguous()

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        """The shape that our tensor would have; (-1,) if the parts do not fit together."""
        if len({shapes[name] for name in self.names}) > 1:
            return (-1,)
        meta = {name: torch.empty(shapes[name], device="meta") for name in self.names}
        try:
            return tuple(self.tensor(meta).shape)
        except (RuntimeError, ValueError):
            return (-1,)


@dataclass(frozen=True)
class Part:
    """The foreign layers that one layer of ours is made of, and the conversion."""

    names: tuple[str, ...]
    convert: Callable[[Tensor], Tensor] = identity


@dataclass(frozen=True)
class Unit:
    """One entry of a U-Net's plan, with its place as foreign code counts.

    Attributes:
        entry: of our plan.
        side: down, mid or up.
        level: of the entry, 0 is the finest; a resampling layer belongs to the level it leaves.
        index: place among the residual units of its level, resampling layers last.
    """

    entry: Entry
    side: str
    level: int
    index: int

    @property
    def is_resampler(self) -> bool:
        """Whether it leads to another level."""
        return self.entry.resample is not None


def units(encoder: Sequence[Entry], decoder: Sequence[Entry], num_blocks: int) -> list[Unit]:
    """The entries of a plan with their places, without the first convolution."""
    prefixes = list(dict.fromkeys(entry.name.split("_")[0] for entry in encoder))
    placed = []
    for entry in [*encoder[1:], *decoder]:
        prefix, role = entry.name.split("_")
        level = prefixes.index(prefix)
        if role == "down":
            placed.append(Unit(entry, "down", level - 1, num_blocks))
        elif role == "up":
            placed.append(Unit(entry, "up", level + 1, num_blocks + 1))
        elif role in ("in0", "in1"):
            placed.append(Unit(entry, "mid", level, int(role[-1])))
        else:
            side = "up" if entry.skip_channels else "down"
            placed.append(Unit(entry, side, level, int(role.removeprefix("block"))))
    return placed


@dataclass(frozen=True)
class Naming:
    """The names of a family.

    Attributes:
        first: the first convolution.
        layers: layer of ours -> foreign part, for the layers outside of encoder and decoder.
        locate: unit -> (prefix of its residual or resampling layer, prefix of its attention).
        residual: layer of our block -> part, relative to the first prefix.
        attention: the same for the layers of attention and the second prefix.
    """

    first: str
    layers: Mapping[str, Part]
    locate: Callable[[Unit], tuple[str, str]]
    residual: Mapping[str, Part]
    attention: Mapping[str, Part]

    def parts(
        self, encoder: Sequence[Entry], decoder: Sequence[Entry], num_blocks: int
    ) -> dict[str, Part]:
        """Layer of ours -> foreign layers, for the network of a plan."""
        found = {**self.layers, f"enc.{encoder[0].name}": Part((self.first,))}
        for unit in units(encoder, decoder, num_blocks):
            ours = f"{'dec' if unit.side in ('mid', 'up') else 'enc'}.{unit.entry.name}"
            residual, attention = self.locate(unit)
            if unit.entry.kind != "block":
                found[ours] = Part((residual,))
                continue
            for prefix, table in ((residual, self.residual), (attention, self.attention)):
                for layer, part in table.items():
                    names = tuple(f"{prefix}.{name}" for name in part.names)
                    found[f"{ours}.{layer}"] = Part(names, part.convert)
        return found
