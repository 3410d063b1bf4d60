"""What follows the gradients of a step: whether they are finite, Adam, and the averages of weights.

On a GPU each of these is a few kernels for all tensors. On a CPU it is a call for each tensor, for
which threads are woken and waited for; most tensors of a network are so small that this takes
longer than their work. There the small ones are updated as one, and averages move as a whole.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.profiler import record_function

from training.ema import update_average
from training.joined import Joined, can_join

_SMALL = 2**14  # elements; below, a call takes longer than its work
_MOMENTS = "exp_avg", "exp_avg_sq"


class Update:
    """Adam or AdamW for the weights that are trained, and averages that follow them."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, net: nn.Module, averages: Sequence[nn.Module]
    ) -> None:
        """
        Args:
            optimizer: of the parameters of `net`, and maybe of others, which have no averages.
            net: the module that is averaged.
            averages: copies of it.
        """
        self.optimizer = optimizer
        self._trained = [p for group in optimizer.param_groups for p in group["params"]]
        self._weights = list(net.parameters())
        self._averages = [list(average.parameters()) for average in averages]

    def gradients(self) -> list[Tensor]:
        """Those of the parameters that have one."""
        return [p.grad for p in self._trained if p.grad is not None]

    def size(self, gradients: Sequence[Tensor]) -> Tensor:
        """A scalar on their device that is finite only if all of them are."""
        return torch.nn.utils.get_total_norm(gradients)

    def step(self, is_bad: Tensor, betas: Sequence[float]) -> None:
        """Move weights, unless the step is bad, and averages.

        Args:
            is_bad: a scalar bool on the weights' device; where it is true, weights and moments
                stay what they are.
            betas: for each average, the share that it keeps of itself.
        """
        # the fused kernels leave weights and moments alone where this is 1
        self.optimizer.found_inf = is_bad.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        weights = [parameter.detach() for parameter in self._weights]
        for average, beta in zip(self._averages, betas, strict=True):
            update_average(average, weights, beta)

    def note_loaded(self) -> None:
        """Note that the optimizer's state is another one now."""


class JoinedUpdate(Update):
    """The same on a CPU, where weights, averages and moments each lie in one memory.

    From then on nothing may give a parameter another memory, as `nn.Module.to` does when it changes
    dtype, device or layout; values may be copied into it. The optimizer's state stays what PyTorch
    makes: a step and two moments for each parameter. A step in which some parameters have no
    gradient is PyTorch's own.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, net: nn.Module, averages: Sequence[nn.Module]
    ) -> None:
        super().__init__(optimizer, net, averages)
        order = sorted(range(len(self._weights)), key=lambda i: not _is_small(self._weights[i]))
        self._weights, *self._averages = (
            [tensors[index] for index in order] for tensors in (self._weights, *self._averages)
        )
        self._memories = [_moved_together(group) for group in (self._weights, *self._averages)]
        self._num_small = sum(map(_is_small, self._weights))
        averaged = {*self._weights}
        others = [parameter for parameter in self._trained if parameter not in averaged]
        self._alone = self._weights[self._num_small :] + others
        self._gathered = Joined(self._weights[: self._num_small])  # gradients of the small ones
        self._moments: list[Joined] = []
        self._steps = torch.zeros(0)  # of the small ones, once the moments are joined

    def size(self, gradients: Sequence[Tensor]) -> Tensor:
        """A scalar that is finite only if all of them are: of the sums, that of squares is fast."""
        vectors = [gradient.reshape(-1) for gradient in gradients]
        return torch.stack([torch.dot(vector, vector) for vector in vectors]).sum()

    @torch.no_grad()
    def step(self, is_bad: Tensor, betas: Sequence[float]) -> None:
        """Move weights, unless the step is bad, and averages; as in `Update`."""
        groups = self._weights, *self._averages
        is_there = all(m.holds(group) for m, group in zip(self._memories, groups, strict=True))
        assert is_there, "a parameter was given another memory"
        if len(self.gradients()) < len(self._trained) or not self._has_joined_state():
            self._moments = []  # small parameters may have taken different numbers of steps after
            super().step(is_bad, betas)
            return
        if not is_bad:
            # as PyTorch calls it
            with record_function(f"Optimizer.step#{type(self.optimizer).__name__}.step"):
                self._move_weights()
        weights, *averages = (memory.whole for memory in self._memories)
        for average, beta in zip(averages, betas, strict=True):
            update_average([average], [weights], beta)

    def _move_weights(self) -> None:
        """A step of Adam of all parameters, the small ones as one."""
        small = [_gradient(parameter) for parameter in self._weights[: self._num_small]]
        torch._foreach_copy_(self._gathered.parts, small)
        (group,) = self.optimizer.param_groups
        states = [self.optimizer.state[parameter] for parameter in self._alone]
        exp_avgs, exp_avg_sqs = (moments.first(self._num_small) for moments in self._moments)
        kernel = adamw if isinstance(self.optimizer, torch.optim.AdamW) else adam
        kernel(
            [self._memories[0].first(self._num_small), *self._alone],
            [self._gathered.whole, *map(_gradient, self._alone)],
            [exp_avgs, *(state["exp_avg"] for state in states)],
            [exp_avg_sqs, *(state["exp_avg_sq"] for state in states)],
            [],
            [self._steps[0], *(state["step"] for state in states)],
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
        )
        self._steps[1:] += 1

    def note_loaded(self) -> None:
        """Note that the optimizer's state is another one now."""
        self._moments = []

    def _has_joined_state(self) -> bool:
        """Whether the optimizer's state is joined, which is done if it can be.

        The small parameters must all have taken the same number of steps.
        """
        if self._moments:
            return True
        states = [self.optimizer.state[parameter] for parameter in self._weights]
        small = states[: self._num_small]
        steps = {float(state.get("step", 0)) for state in small}
        if len(steps) > 1:
            return False
        self._steps = torch.full([len(small)], *steps, dtype=torch.float32, device="cpu")
        for state, step in zip(small, self._steps, strict=True):
            state["step"] = step  # each a memory of its own, as where PyTorch counts them
        for parameter in self._trained:
            state = self.optimizer.state[parameter]
            state.setdefault("step", torch.zeros((), dtype=torch.float32, device="cpu"))
            for name in _MOMENTS:
                state[name] = _laid_out_as(parameter, state.get(name))
        self._moments = [Joined([state[name] for state in states]) for name in _MOMENTS]
        for name, moments in zip(_MOMENTS, self._moments, strict=True):
            for state, values in zip(states, moments.parts, strict=True):
                state[name] = values
        return True


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _laid_out_as(parameter: Tensor, moment: Tensor | None) -> Tensor:
    """A moment in a parameter's layout, zeros if there is none; a state may have another one."""
    if moment is None:
        return torch.zeros_like(parameter)
    is_alike = moment.stride() == parameter.stride()
    return moment if is_alike else torch.empty_like(parameter).copy_(moment)


def _is_small(parameter: Tensor) -> bool:
    return parameter.numel() < _SMALL


def _moved_together(parameters: Sequence[nn.Parameter]) -> Joined:
    """Give parameters one memory; they keep their values, layouts and `requires_grad`."""
    memory = Joined(parameters)
    for parameter, values in zip(parameters, memory.parts, strict=True):
        parameter.data = values
    return memory


def update_for(
    optimizer: torch.optim.Optimizer, net: nn.Module, averages: Sequence[nn.Module]
) -> Update:
    """The update that is fast for these weights; arguments as of `Update`."""
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    averaged = [p for module in (net, *averages) for p in module.parameters()]
    is_joined = all(map(can_join, trained + averaged)) and any(map(_is_small, averaged))
    return (JoinedUpdate if is_joined else Update)(optimizer, net, averages)
