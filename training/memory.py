"""How much memory and arithmetic a training step will need, and micro-batches that fit.

A step runs on tensors without storage (`FakeTensorMode`), and the bytes that would be alive are
counted. The number is exact except for workspaces of the libraries underneath.
"""

import copy
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from diffusion.denoiser import Denoiser
from losses.batch import Batch, Draws, Generators
from losses.objective import Objective
from networks.blocks import set_fused_attention, set_remat
from networks.imagined import imagined
from networks.norms import are_used
from torch_utils.alive_bytes import AliveBytes, MadeBytes
from torch_utils.distributed import World
from torch_utils.flops import Flops
from torch_utils.memory import available_bytes
from torch_utils.precision import DTYPES, autocast
from training.config import ResolvedConfig, TrainingConfig
from training.data import TrainingData
from training.setup import create_objective

# share of the free memory; the rest is for workspaces and fragments, which took 30% on CPUs
USABLE = {"cuda": 0.9, "cpu": 0.7}
_GIB = 2**30
_GENEROUS = 3  # about four times what a call with gradients takes, in results of its operations


@dataclass(frozen=True)
class StepNeeds:
    """What a training step takes in one process.

    Attributes:
        peak: bytes at its worst moment.
        flops: of all its micro-batches, forward and backward, with what is computed again.
    """

    peak: int
    flops: int


class Forecast:
    """What one training step needs, for any size of its micro-batches."""

    def __init__(
        self,
        config: TrainingConfig,
        blank: Denoiser,
        *,
        share: int,
        on_gpu: bool,
        is_fused: bool = False,
        in_group: bool = False,
    ) -> None:
        """Note what is to be forecast; the work begins with the first question.

        Args:
            config: the experiment; its `run.batch` and `run.batch_gpu` are ignored.
            blank: the model of the config and the data's shape, without weights.
            share: images that this process computes in a step.
            on_gpu: whether a GPU computes it; else a CPU.
            is_fused: whether it does so by the fused kernels of `networks.fused`.
            in_group: whether gradients are averaged over processes, which keeps them at all times.
        """
        self.config, self.share = config, share
        self.blank, self._on_gpu, self._in_group = blank, on_gpu, in_group
        self._is_fused = is_fused
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._found: dict[int, StepNeeds] = {}

    @cached_property
    def _objective(self) -> Objective:
        return create_objective(self.config, self.blank.preconditioning)

    @cached_property
    def _denoiser(self) -> Denoiser:
        """A copy of the network without storage."""
        denoiser = copy.deepcopy(self.blank).train()
        with self._fake:
            denoiser = denoiser.to_empty(device="cpu")
        set_remat(denoiser.model, self.config.run.remat)
        if self._on_gpu:
            set_fused_attention(denoiser.model, True)
        return denoiser

    @cached_property
    def weights(self) -> int:
        """Bytes of the weights."""
        tensors = self.blank.state_dict().values()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def kept(self) -> int:
        """Bytes between steps: weights, averages, two moments."""
        return (4 + len(self.config.ema.posthoc)) * self.weights

    def peak(self, num: int) -> int:
        """Bytes at the worst moment of a step in micro-batches of `num` images."""
        return self.step(num).peak

    def step(self, num: int) -> StepNeeds:
        """What a step in micro-batches of `num` images takes."""
        if num not in self._found:
            self._found[num] = self._run(num)
        return self._found[num]

    def _run(self, num: int) -> StepNeeds:
        """Run forward and backward of a micro-batch on tensors without values."""
        # the backward pass makes gradients, unless the step has some from before
        had_gradients = self._in_group or num < self.share
        denoiser, objective = self._denoiser, self._objective
        alive, flops = AliveBytes(as_on_gpu=self._on_gpu), Flops()
        with self._fake, alive, flops, imagined(self._is_fused):
            for parameter in denoiser.parameters():
                parameter.grad = torch.empty_like(parameter) if had_gradients else None
            before = alive.now
            batch, draws = self._inputs(num)
            inputs = alive.now - before
            with autocast(self.config.run.precision, torch.device("cpu")):
                terms = objective(denoiser, batch, draws)
            terms.total().backward()  # type: ignore[no-untyped-call]
        # all micro-batches of a step are drawn before the first one is computed
        waiting = inputs * (self.share // num - 1)
        peak = max(self.kept + alive.peak + waiting, self.kept + self.weights)
        return StepNeeds(peak, flops.total * (self.share // num))

    def _inputs(self, num: int) -> tuple[Batch, Draws]:
        """Batch and draws of a micro-batch, without values."""
        model, augment_dim = self._denoiser, self.config.augment.augment_dim
        labels = torch.empty(num, model.label_dim) if model.label_dim else None
        batch = Batch(
            torch.empty(num, model.img_channels, *model.img_resolution),
            labels,
            torch.ones(num, dtype=torch.bool) if self.config.run.label_dropout else None,
            torch.empty(num, augment_dim) if augment_dim else None,
        )
        random = torch.Generator()
        return batch, self._objective.draw(Generators(random, random), batch)


def forecast_for(config: ResolvedConfig, blank: Denoiser, world: World) -> Forecast:
    """The forecast of a run's steps in this process.

    Args:
        config: of the run.
        blank: the model, without weights.
        world: the processes.
    """
    # compiled blocks are PyTorch's own, and keep at most what its eager kernels do
    is_fused = not config.run.compile and are_used(world.device, DTYPES[config.run.precision])
    (is_plain,) = world.any(not is_fused)  # all processes must come to the same size
    return Forecast(
        config,
        blank,
        share=config.run.batch // world.size,
        on_gpu=world.device.type == "cuda",
        is_fused=not is_plain,
        in_group=world.is_group,
    )


def micro_batch_that_fits(
    forecast: Forecast,
    config: ResolvedConfig,
    data: TrainingData,
    world: World,
    *,
    is_open: bool,
) -> tuple[int, str | None]:
    """Choose the micro-batch size of a new run, or check the one that was asked for.

    Args:
        forecast: of the run's steps.
        config: of the run, with the largest size that may be chosen.
        data: on the host.
        world: the processes; every one must call, and all get the same.
        is_open: whether a smaller size may be chosen.

    Returns:
        The size, and a line for the log if it was chosen for want of memory or does not fit.
    """
    wanted, share = config.run.batch_gpu, forecast.share
    free = _free(config, data, world)
    if free is None or surely_fits(config, forecast.blank, free / 2):
        return wanted, None
    needed, budget = forecast.peak(wanted), USABLE[world.device.type] * free
    if world.device.type == "cpu":
        budget -= 4 * forecast.weights  # the copy of a state that is being written
    if needed <= budget:
        return wanted, None
    size, peak = _largest_that_fits(forecast, wanted, needed, budget)
    less = "" if config.run.remat else ", --remat=1 takes less"
    if not is_open:
        return wanted, (
            f"warning: micro-batches of {wanted} images take about {gib(needed)} of memory, and "
            f"{gib(free)} are free: --batch-gpu={size} takes about {gib(peak)}{less}"
        )
    return size, (
        f"micro-batches of {size} images, which take about {gib(peak)} of memory: all {share} at "
        f"once would take {gib(needed)}, and {gib(free)} are free (--batch-gpu chooses{less})"
    )


def surely_fits(config: ResolvedConfig, blank: Denoiser, budget: float) -> bool:
    """Whether a step takes so little memory that it need not be forecast, which takes seconds.

    Args:
        config: of the run.
        blank: the model, without weights.
        budget: bytes. The answer is no where it is in doubt, and with other terms than denoising.
    """
    if config.loss.terms != ("denoising",) or next(blank.parameters()).device.type != "meta":
        return False
    made = MadeBytes()
    with made, torch.no_grad(), torch.device("meta"):
        widths = blank.label_dim, config.augment.augment_dim
        labels = [torch.empty(1, width) if width else None for width in widths]
        x = torch.empty(1, blank.img_channels, *blank.img_resolution)
        blank.model(x, torch.empty(1), labels[0], None, labels[1])
    weights = sum(parameter.nbytes for parameter in blank.parameters())
    fixed = (9 + len(config.ema.posthoc)) * weights
    return fixed + _GENEROUS * made.total * config.run.batch_gpu < budget


def _largest_that_fits(
    forecast: Forecast, wanted: int, needed: int, budget: float
) -> tuple[int, int]:
    """The largest divisor of the share, below `wanted`, whose peak is in the budget, or else 1.

    Returns:
        (size, its peak).
    """
    fixed = forecast.kept + forecast.weights
    size, peak = wanted, needed
    while peak > budget and size > 1:
        # a peak is nearly linear in the size
        likely = (budget - fixed) / (peak - fixed) * size
        size = max((n for n in divisors(forecast.share) if n < size and n <= likely), default=1)
        peak = forecast.peak(size)
    return size, peak


def divisors(num: int) -> set[int]:
    """All divisors of a positive number."""
    low = [n for n in range(1, math.isqrt(num) + 1) if num % n == 0]
    return {*low, *(num // n for n in low)}


def gib(num: float) -> str:
    """A number of bytes for people."""
    return f"{num / _GIB:.1f} GiB"


def _free(config: ResolvedConfig, data: TrainingData, world: World) -> int | None:
    """Free bytes of the process that has the least; None if that is unknown."""
    free = available_bytes(world.device)
    if free is not None and data.is_resident(world.device, config.run.data_device):
        free -= data.images.numel()
    unknown = torch.iinfo(torch.int64).max
    least = -int(world.max(torch.tensor(-(unknown if free is None else free))))
    return None if least == unknown else least
