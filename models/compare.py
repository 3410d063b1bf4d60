"""How two models differ: in their descriptions, and tensor by tensor or block by block."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.build import build
from models.composition import blocks_of
from models.config import ModelConfig
from models.snapshot import SnapshotInfo

NOT_COMPARED = ("versions",)  # of a description: what wrote it, not what it says


@dataclass(frozen=True)
class Difference:
    """How tensors of two models differ.

    Attributes:
        name: of a tensor, or of a block of them.
        count: how many tensors differ.
        largest: the largest difference of two numbers; not a number where one of them is none.
        relative: norm of the differences, as a fraction of the norm of the first model's numbers.
        problem: why the numbers cannot be compared, e.g. another shape; an empty text if they can.
    """

    name: str
    count: int
    largest: float
    relative: float
    problem: str = ""


def info_differences(a: SnapshotInfo, b: SnapshotInfo) -> list[str]:
    """Lines like `model.network.dropout: 0.1 -> 0.2`; what wrote the files is not compared."""
    return _differences(_compared(a), _compared(b))


def config_differences(a: ModelConfig, b: ModelConfig) -> list[str]:
    """Lines like `network.dropout: 0.1 -> 0.2`."""
    return _differences(a.model_dump(mode="json"), b.model_dump(mode="json"))


def _compared(info: SnapshotInfo) -> dict[str, Any]:
    tree = {**vars(info), "model": info.model.model_dump(mode="json")}
    return {key: value for key, value in tree.items() if key not in NOT_COMPARED}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    before, after = dict(_leaves(a)), dict(_leaves(b))
    return [
        f"{key}: {_shown(before, key)} -> {_shown(after, key)}"
        for key in {**before, **after}
        if before.get(key, _ABSENT) != after.get(key, _ABSENT)
    ]


_ABSENT = object()
_LONGEST = 60  # characters of a value


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "absent"
    text = str(values[key])
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def differing_tensors(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[Difference]:
    """The tensors that differ, in the order of the first model, then those that it lacks."""
    found = []
    for name in {**a, **b}:
        if name not in a or name not in b:
            where = "second" if name in b else "first"
            found.append(Difference(name, 1, math.inf, math.inf, f"only in the {where}"))
        elif a[name].shape != b[name].shape or a[name].dtype != b[name].dtype:
            kinds = f"{_kind(a[name])} -> {_kind(b[name])}"
            found.append(Difference(name, 1, math.inf, math.inf, kinds))
        elif not _is_same(a[name], b[name]):
            found.append(_measured(name, [name], a, b))
    return found


def _kind(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def differing_blocks(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], config: ModelConfig
) -> list[Difference]:
    """The same for the blocks of a network; tensors that cannot be compared stand for themselves.

    Args:
        a, b: state dicts.
        config: of the first model.
    """
    single = differing_tensors(a, b)
    blocks = [f"model.{name}" for name, _ in blocks_of(build(config, empty=True).model)]
    found = [row for row in single if row.problem]
    comparable = [*a.keys() - {row.name for row in found}]
    members: dict[str, list[str]] = {}
    for name in (row.name for row in single if not row.problem):
        owners = (block for block in blocks if name.startswith(f"{block}."))
        members.setdefault(next(owners, name), []).append(name)
    rows = []
    for owner, names in members.items():
        whole = [n for n in comparable if n == owner or n.startswith(f"{owner}.")]
        rows.append(_measured(owner, whole, a, b, len(names)))
    return [*rows, *found]


def renamed(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, str]:
    """Tensors that are in both models under different names; empty if anything else differs."""
    only_a, only_b = a.keys() - b.keys(), sorted(b.keys() - a.keys())
    if len(only_a) != len(only_b) or any(not _is_same(a[k], b[k]) for k in a.keys() & b.keys()):
        return {}
    pairs: dict[str, str] = {}
    for name in sorted(only_a):
        same = (other for other in only_b if _is_same(a[name], b[other]))
        other = next(same, None)
        if other is None:
            return {}
        pairs[name] = other
        only_b.remove(other)
    return pairs


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal; numbers that are not finite are compared bit by bit."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) or torch.equal(*(t.reshape(-1).view(torch.uint8) for t in (a, b)))


def _measured(
    name: str,
    members: Sequence[str],
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    count: int = 1,
) -> Difference:
    """How far tensors that both models have are from each other."""
    largest, squares, size = 0.0, 0.0, 0.0
    for member in members:
        ours = a[member].double()
        gap = b[member].double() - ours
        furthest = gap.abs().max().item() if gap.numel() else 0.0
        largest = furthest if math.isnan(furthest) else max(largest, furthest)
        squares += gap.square().sum().item()
        size += ours.square().sum().item()
    relative = math.sqrt(squares / size) if size else math.inf
    return Difference(name, count, largest, relative)
