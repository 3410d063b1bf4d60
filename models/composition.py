"""The blocks of a network: size of their outputs, parameters, and FLOPs an image.

They are counted on a copy without values, which takes hardly any memory or time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.build import build
from models.config import ModelConfig

REST = "(others)"  # parameters and operations of the network itself, outside its blocks
UNITS = {"GFLOPs": 10**9, "MFLOPs": 10**6, "kFLOPs": 10**3}


@dataclass
class Part:
    """A block of a network.

    Attributes:
        name: of the module.
        parameters: how many numbers are trained.
        shape: of its output for one image, (C, H, W) or (C,); None if it is not one tensor.
        flops: of one image forward, convolutions and matrix products only; a multiplication with an
            addition counts as two.
    """

    name: str
    parameters: int
    shape: tuple[int, ...] | None = None
    flops: int = 0


def composition(config: ModelConfig) -> list[Part]:
    """The blocks of a model's network in the order of its modules, without idle ones.

    Raises:
        UserError: as `models.build.build`.
    """
    network = build(config, empty=True).model
    widths = {"class_labels": config.label_dim, "augment_labels": config.augment_dim}
    with torch.device("meta"):
        labels = {name: torch.empty(1, width) for name, width in widths.items() if width}
        x = torch.empty(1, config.img_channels, *config.img_resolution)
        return parts_of(network, x, torch.empty(1), **labels)


def parts_of(network: nn.Module, *arguments: Tensor, **named: Tensor) -> list[Part]:
    """The blocks of any module, found by calling it once in evaluation mode.

    Args:
        network: the module; lists and dictionaries of modules in it count item by item.
        *arguments, **named: the arguments to call it with, for one image.
    """
    blocks = dict(blocks_of(network))
    parts = {name: Part(name, _num_parameters(block)) for name, block in blocks.items()}
    began: dict[str, int] = {}
    counter = FlopCounterMode(display=False)

    def watch(name: str, block: nn.Module) -> None:
        def before(*_: Any) -> None:
            began[name] = counter.get_total_flops()

        def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
            parts[name].flops += counter.get_total_flops() - began[name]
            if isinstance(output, Tensor):
                parts[name].shape = tuple(output.shape[1:])

        hooks.append(block.register_forward_pre_hook(before))
        hooks.append(block.register_forward_hook(after))

    hooks: list[Any] = []
    for name, block in blocks.items():
        watch(name, block)
    was_training = network.training
    try:
        with torch.no_grad(), counter:
            network.eval()(*arguments, **named)
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    found = list(parts.values())
    rest = Part(
        REST,
        _num_parameters(network) - sum(part.parameters for part in found),
        flops=counter.get_total_flops() - sum(part.flops for part in found),
    )
    return [part for part in [*found, rest] if part.parameters or part.flops]


def lines_of(parts: Iterable[Part]) -> list[str]:
    """A table of the blocks and of their sum, a line each."""
    parts = list(parts)
    total = Part("total", sum(p.parameters for p in parts), flops=sum(p.flops for p in parts))
    unit = next((name for name, size in UNITS.items() if total.flops >= size), "kFLOPs")
    rows = [["block", "output", "parameters", f"{unit} an image"]]
    for part in [*parts, total]:
        shape = "" if part.shape is None else "x".join(map(str, part.shape))
        rows.append([part.name, shape, f"{part.parameters:,}", f"{part.flops / UNITS[unit]:,.3f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {count:>{widths[2]}}  {flops:>{widths[3]}}"
        for name, shape, count, flops in rows
    ]


def blocks_of(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The children of a module by name; containers are replaced by their children."""
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleDict | nn.ModuleList | nn.Sequential):
            yield from blocks_of(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
