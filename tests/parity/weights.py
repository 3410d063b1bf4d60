"""The weights of the golden test networks: no file, a rule (tests/parity/golden/README.md)."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


def fill_by_rule(target: nn.Module | Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Fill tensors, in place, with values that depend on their place among the sorted names.

    Args:
        target: a module, or a state dict of tensors that may be written to.
        prefix: put before each name, as a wrapper of the module would.

    Returns:
        The state dict with the prefixed names; its tensors are those of `target`.
    """
    state = target.state_dict() if isinstance(target, nn.Module) else target
    named = {prefix + name: tensor for name, tensor in state.items()}
    for index, name in enumerate(sorted(named)):
        values = _values(name, named[name], np.random.RandomState(1000 + index))
        if values is not None:
            with torch.no_grad():
                named[name].copy_(torch.as_tensor(values))
    return named


def _values(name: str, tensor: Tensor, draw: np.random.RandomState) -> np.ndarray | None:
    """The values of one tensor, None if it keeps those of its constructor."""
    shape = tuple(tensor.shape)
    if "resample_filter" in name or name == "u" or not tensor.is_floating_point():
        return None
    if "freqs" in name:
        return 16 * draw.standard_normal(shape)
    w = draw.standard_normal(shape).astype(np.float32)
    if len(shape) == 1 and name.endswith("weight"):
        return 1 + 0.1 * w
    if name.endswith("bias"):
        return 0.1 * w
    return np.asarray(w * 0.7 / np.sqrt(np.prod(shape[1:])))
