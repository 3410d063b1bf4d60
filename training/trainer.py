"""One optimization step: micro-batches to gradients to weights to the average of weights.

Everything that a step depends on is its arguments or this object's state; what is random comes in
as data. Karras et al. 2022 ("EDM"), Appendix F.
"""

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from diffusion.denoiser import Denoiser
from losses.batch import Batch, Draws, LossTerms
from losses.objective import Objective
from torch_utils.distributed import World
from torch_utils.precision import autocast
from training.config import ResolvedConfig
from training.ema import average_of, decay_at, power_averages, power_decays
from training.optimizer import create_optimizer, learning_rate
from training.precision import StepGuard
from training.tally import Tally
from training.update import update_for


class _Loss(nn.Module):
    """Denoiser and objective as one module, so that DDP sees all network calls of a step."""

    def __init__(self, denoiser: Denoiser, objective: Objective, average: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.uncertainty = objective.uncertainty
        self.objective = objective
        self._average = [average]  # in a list: not a part of what is trained

    def forward(self, batch: Batch, draws: Draws) -> LossTerms:
        return self.objective(self.denoiser, batch, draws, rollout=self._average[0])


def _without_buffer_sync() -> dict[str, Any]:
    """DDP's argument that leaves buffers alone, which are constants; PyTorch 2.13 renamed it."""
    name = "forward_sync_buffers"
    is_known = name in inspect.signature(DistributedDataParallel).parameters
    return {name if is_known else "broadcast_buffers": False}


class Trainer:
    """A model under training.

    Attributes:
        denoiser: the weights that are optimized.
        trained: the denoiser, and the objective's own module if it has one.
        average: their average, for sampling.
        posthoc: averages of other lengths by name, to make more of after training.
        objective: what they are optimized for.
        tally: of losses, since the last flush.
        guard: loss scale, and steps skipped because they were not finite.
        seen: images seen so far.
        updates: steps taken so far, skipped ones included.
    """

    def __init__(
        self, denoiser: Denoiser, objective: Objective, config: ResolvedConfig, world: World
    ) -> None:
        self.config = config
        self.world = world
        self.objective = objective
        self.denoiser = denoiser.to(world.device).train()
        self.average = average_of(self.denoiser)
        self.posthoc = power_averages(self.denoiser, config.ema)
        self.trained = nn.ModuleList([self.denoiser])
        if objective.uncertainty is not None:
            self.trained.append(objective.uncertainty.to(world.device))
        self.optimizer = create_optimizer(config.optimizer, self.trained.parameters())
        averages = [self.average, *self.posthoc.values()]
        self._update = update_for(self.optimizer, self.denoiser, averages)
        self.tally = Tally(world)
        self.guard = StepGuard(config.run.precision, config.run.loss_scaling, world.device)
        self.seen = 0
        self.updates = 0
        self._loss: nn.Module = _Loss(self.denoiser, objective, self.average)
        if world.is_group:
            self._loss = DistributedDataParallel(
                self._loss,
                device_ids=[world.device] if world.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                **_without_buffer_sync(),
            )

    def step(
        self,
        micro_batches: Sequence[tuple[Batch, Draws]],
        dropout_seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """Take one step, or skip it if its loss or gradient is not finite.

        Args:
            micro_batches: this process's share of the global batch, all of one size.
            dropout_seeds: what to seed the device's default generator with before each of them;
                None leaves it alone.

        Returns:
            This process's mean loss, a scalar on the device.
        """
        loss = self._gradients(micro_batches, dropout_seeds)
        self.update(loss)
        return loss

    def update(self, loss: Tensor) -> None:
        """From the gradients of a step to weights, averages and counters; `loss` is its loss."""
        gradients = self._update.gradients()
        if self.guard.adapts:
            torch._foreach_mul_(gradients, 1 / self.guard.scale)
        clip = self.config.optimizer.clip_norm
        get_size = self._update.size if clip is None else torch.nn.utils.get_total_norm
        size = get_size(gradients)
        # a loss can overflow, in any process, although no gradient does; what is not finite is NaN
        # when it is taken from itself, and so is every sum that it is in
        is_bad = (size - size) + self.world.sum(loss - loss) != 0
        if clip is not None:
            torch._foreach_mul_(gradients, (clip / (size + 1e-6)).clamp(max=1))

        batch, duration = self.config.run.batch, self.config.run.duration
        rate = learning_rate(self.config.optimizer, seen=self.seen, batch=batch, duration=duration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.updates += 1
        beta = decay_at(self.config.ema, seen=self.seen, batch=batch, update=self.updates)
        others = power_decays(self.config.ema, seen=self.seen, batch=batch)
        self._update.step(is_bad, [beta, *others.values()])
        self.guard.update(is_bad)
        self.seen += batch

    def _gradients(
        self, micro_batches: Sequence[tuple[Batch, Draws]], dropout_seeds: Sequence[int] | None
    ) -> Tensor:
        """Accumulate gradients over the micro-batches; the mean loss, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for index, (data, draws) in enumerate(micro_batches):
            if dropout_seeds is not None:
                torch.manual_seed(dropout_seeds[index])
            with self._without_sync(index < len(micro_batches) - 1):
                with autocast(self.config.run.precision, self.world.device):
                    terms = self._loss(data, draws)
                loss = terms.total() / len(micro_batches)
                (loss * self.guard.scale).backward()
            losses.append(loss.detach())
            self.tally.report_loss(terms)
        return torch.stack(losses).sum()

    def rehearse(self, data: Batch, draws: Draws) -> None:
        """Compute a micro-batch's gradients by this process alone, and forget them.

        Nothing that a step depends on changes, but for PyTorch's default generators.
        """
        loss = self._loss
        loss = loss.module if isinstance(loss, DistributedDataParallel) else loss
        with autocast(self.config.run.precision, self.world.device):
            terms = loss(data, draws)
        parameters = list(self.trained.parameters())
        torch.autograd.grad(terms.total(), parameters, allow_unused=True)

    def _without_sync(self, skip: bool) -> Any:
        """DDP's context that leaves gradients unreduced, until the last micro-batch."""
        if skip and isinstance(self._loss, DistributedDataParallel):
            return self._loss.no_sync()
        return contextlib.nullcontext()

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on with the next step. All processes must call."""
        return {
            "seen": self.seen,
            "updates": self.updates,
            "denoiser": self.denoiser.state_dict(),
            "uncertainty": [module.state_dict() for module in self.trained][1:],
            "average": self.average.state_dict(),
            "posthoc": {name: average.state_dict() for name, average in self.posthoc.items()},
            "optimizer": self.optimizer.state_dict(),
            "guard": self.guard.state(),
            "statistics": self.tally.state(),
        }

    def load(self, state: dict[str, Any], *, keeps_scale: bool = True) -> None:
        """Go on from `state`, with the optimizer's settings as they are now.

        Args:
            state: of `state()`.
            keeps_scale: go on with the state's loss scale; otherwise start from the config's.
        """
        self.seen, self.updates = state["seen"], state["updates"]
        self.denoiser.load_state_dict(state["denoiser"])
        self.average.load_state_dict(state["average"])
        for name, average in self.posthoc.items():
            average.load_state_dict(state["posthoc"][name])
        for module, values in zip([*self.trained][1:], state["uncertainty"], strict=True):
            module.load_state_dict(values)
        ours = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": ours})
        self._update.note_loaded()
        first_scale = self.guard.scale.clone()
        self.guard.load(state["guard"])
        if not keeps_scale:
            self.guard.scale.copy_(first_scale)
        self.tally.load(state["statistics"])
