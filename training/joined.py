"""The parameters of a module in one tensor, so that an update is a few operations.

On a CPU an operation on a list of tensors is a call for each of them, and most tensors of a
network are so small that the call costs more than its work. On a GPU such operations are a few
kernels for the whole list, and joining would only add a copy.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_States = Sequence[Mapping[str, Tensor]]
_Change = Callable[[_States], list[dict[str, Tensor]]]
_ALIGNMENT = 16  # elements: 64 bytes of float32, as of tensors with a memory of their own


class JoinedParameters:
    """A module's parameters as views of one tensor, where that makes updates faster.

    From then on nothing may give a parameter another memory, as `nn.Module.to` does when it changes
    dtype, device or layout; values may be copied into it.

    Attributes:
        parameters: of the module, in its order.
        tensors: the joined tensor alone, or the parameters where they are not joined.
    """

    def __init__(self, module: nn.Module) -> None:
        """Join the parameters if all of them are dense float32 tensors on a CPU.

        Args:
            module: its parameters keep their values, layouts and `requires_grad`.
        """
        self.parameters = list(module.parameters())
        self.tensors: list[nn.Parameter] = self.parameters
        self._views: list[Tensor] | None = None
        if len(self.parameters) > 1 and all(map(_can_join, self.parameters)):
            self._join()

    def _join(self) -> None:
        self._starts, end = [], 0
        for parameter in self.parameters:
            self._starts.append(end)
            end += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        joined = nn.Parameter(torch.zeros(end), requires_grad=False)
        is_between = torch.ones(end, dtype=torch.bool)
        for start, parameter in zip(self._starts, self.parameters, strict=True):
            is_between[start : start + parameter.numel()] = False
        self._between = is_between.nonzero()[:, 0]
        self._views = self._parts(joined.detach())
        torch._foreach_copy_(self._views, [parameter.detach() for parameter in self.parameters])
        for parameter, view in zip(self.parameters, self._views, strict=True):
            parameter.data = view
        self.tensors = [joined]

    def _parts(self, joined: Tensor) -> list[Tensor]:
        """The part of every parameter in a tensor that is laid out like the joined one."""
        return [
            joined.as_strided(parameter.shape, parameter.stride(), start)
            for parameter, start in zip(self.parameters, self._starts, strict=True)
        ]

    def gradients(self) -> list[Tensor]:
        """The gradients of `tensors`, also as their `grad`; those of parameters without are zero.

        They are not those of the parameters: what is done to them does not change the latter.
        """
        if self._views is None:
            return [p.grad for p in self.parameters if p.grad is not None]
        (joined,) = self.tensors
        for parameter, view in zip(self.parameters, self._views, strict=True):
            assert parameter.data_ptr() == view.data_ptr(), "a parameter was given another memory"
        if joined.grad is None:
            joined.grad = torch.zeros_like(joined)
        # what was no number between parameters, after scaling by what was none, is not for ever
        joined.grad.index_fill_(0, self._between, 0)
        parts = self._parts(joined.grad)
        pairs = [(part, p.grad) for part, p in zip(parts, self.parameters, strict=True)]
        given = [(part, grad) for part, grad in pairs if grad is not None]
        if len(given) < len(pairs):
            joined.grad.zero_()
        torch._foreach_copy_([part for part, _ in given], [grad for _, grad in given])
        return [joined.grad]

    def apart(self, states: _States) -> list[dict[str, Tensor]]:
        """An optimizer's state of every parameter, from those of `tensors`.

        Args:
            states: by name, tensors of a tensor's size, or of one element for all of it.
        """
        if self._views is None:
            return [dict(state) for state in states]
        ((joined,), (state,)) = self.tensors, states
        apart: list[dict[str, Tensor]] = [{} for _ in self.parameters]
        for name, value in state.items():
            is_whole = value.shape == joined.shape
            parts = self._parts(value) if is_whole else [value] * len(apart)
            for own, part in zip(apart, parts, strict=True):
                own[name] = part
        return apart

    def together(self, states: _States) -> list[dict[str, Tensor]]:
        """An optimizer's state of `tensors`, from those of the parameters: undoes `apart`.

        Args:
            states: that of a parameter that was never updated may be empty.
        """
        if self._views is None:
            return [dict(state) for state in states]
        (joined,) = self.tensors
        together: dict[str, Tensor] = {}
        for index, state in enumerate(states):
            for name, value in state.items():
                if value.shape != self.parameters[index].shape or name == "step":
                    together[name] = value
                    continue
                whole = together.setdefault(name, torch.zeros_like(joined))
                self._parts(whole)[index].copy_(value)
        return [together]


def _can_join(parameter: nn.Parameter) -> bool:
    layouts = torch.contiguous_format, torch.channels_last
    is_dense = any(parameter.is_contiguous(memory_format=layout) for layout in layouts)
    return parameter.device.type == "cpu" and parameter.dtype == torch.float32 and is_dense


def optimizer_state(
    optimizer: torch.optim.Optimizer, weights: Sequence[JoinedParameters]
) -> dict[str, Any]:
    """An optimizer's `state_dict` as if it stepped every parameter by itself.

    Args:
        optimizer: of one group, the `tensors` of all `weights`.
        weights: the parts of what is trained.
    """
    state = optimizer.state_dict()
    return _renumbered(state, [(part.tensors, part.apart) for part in weights])


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, weights: Sequence[JoinedParameters], state: dict[str, Any]
) -> None:
    """Take over a state of `optimizer_state`; the settings stay those of the optimizer."""
    found = _renumbered(state, [(part.parameters, part.together) for part in weights])
    settings = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({**found, "param_groups": settings})


def _renumbered(
    state: dict[str, Any], parts: Sequence[tuple[Sequence[Tensor], _Change]]
) -> dict[str, Any]:
    """A state dict with the states of each part changed, and all numbered anew."""
    old = 0
    states: list[dict[str, Tensor]] = []
    for tensors, change in parts:
        numbers = range(old, old + len(tensors))
        states += change([state["state"].get(number, {}) for number in numbers])
        old += len(tensors)
    (group,) = state["param_groups"]
    return {
        "state": {number: own for number, own in enumerate(states) if own},
        "param_groups": [{**group, "params": list(range(len(states)))}],
    }
