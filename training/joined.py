"""The parameters of a module in one tensor, so that an average of them moves in one operation.

On a CPU an operation on a list of tensors is a call for each of them, and most tensors of a
network are so small that the call costs more than its work. On a GPU such operations are a few
kernels for the whole list, and nothing is joined.
"""

import torch
from torch import nn

_ALIGNMENT = 16  # elements: 64 bytes of float32, as of tensors with a memory of their own


class JoinedParameters:
    """A module's parameters as views of one tensor, where that is faster.

    From then on nothing may give a parameter another memory, as `nn.Module.to` does when it changes
    dtype, device or layout; values may be copied into it.
    """

    def __init__(self, module: nn.Module) -> None:
        """Join the parameters if all of them are dense float32 tensors on a CPU.

        Args:
            module: its parameters keep their values, layouts and `requires_grad`.
        """
        self._parameters = list(module.parameters())
        self._joined: torch.Tensor | None = None
        self._starts: list[int] = []
        if len(self._parameters) > 1 and all(map(_can_join, self._parameters)):
            self._joined = self._join()

    def _join(self) -> torch.Tensor:
        end = 0
        for parameter in self._parameters:
            self._starts.append(end)
            end += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        joined = torch.zeros(end, dtype=torch.float32, device="cpu")
        for start, parameter in zip(self._starts, self._parameters, strict=True):
            view = joined.as_strided(parameter.shape, parameter.stride(), start)
            parameter.data = view.copy_(parameter.detach())
        return joined

    def tensors(self) -> list[torch.Tensor]:
        """The joined tensor alone, or the parameters where they are not joined; detached."""
        if self._joined is None:
            return [parameter.detach() for parameter in self._parameters]
        first = self._joined.data_ptr()
        for start, parameter in zip(self._starts, self._parameters, strict=True):
            is_there = parameter.data_ptr() == first + start * self._joined.element_size()
            assert is_there, "a parameter was given another memory"
        return [self._joined]


def _can_join(parameter: nn.Parameter) -> bool:
    layouts = torch.contiguous_format, torch.channels_last
    is_dense = any(parameter.is_contiguous(memory_format=layout) for layout in layouts)
    return parameter.device.type == "cpu" and parameter.dtype == torch.float32 and is_dense
