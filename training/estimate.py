"""What a run will cost, said before it starts: parameters, FLOPs, memory; and time, by trying it.

Nothing is written. FLOPs and memory come from a step on tensors without values, see
`training.memory`; the time from a few real steps on throw-away weights.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import torch

from diffusion.denoiser import Denoiser
from models.composition import composition
from samplers.sampling import Sampling, sampling_of
from samplers.settings import generation_settings
from torch_utils.distributed import World
from torch_utils.flops import flops_text
from torch_utils.memory import available_bytes, resident_bytes
from torch_utils.no_memory import is_out_of_memory
from torch_utils.numbers import three_digits
from torch_utils.precision import autocast
from training.clock import duration
from training.config import ResolvedConfig
from training.data import TrainingData
from training.memory import Forecast, gib
from training.preview import BATCH_SIZE, Preview, plan_preview
from training.setup import create_trainer, model_of
from training.source import MicroBatches
from training.trainer import Trainer

MOST_STEPS = 5  # that a probe takes, beside the first one, which warms up
# bytes that libraries take with the first step on a CPU: kernels, threads of autograd, TensorBoard
WITH_FIRST_STEP = 100 * 2**20
CALLS = 3  # that are timed, of each number of images
LONG_CALL = 0.3  # seconds of a call that tells how long others take


@dataclass(frozen=True)
class Costs:
    """What a run takes, as far as it can be counted.

    Attributes:
        parameters: numbers that are trained.
        step: FLOPs of a step, of all processes together.
        forward: FLOPs of one evaluation of the network for one image.
        evaluations: of the network, for one image of the sampler; guidance takes two a call.
        memory: bytes of a process at the worst moment of a step; without what it has on the host if
            a GPU computes.
        resident: bytes that the process takes already, if a CPU computes; else those of the images
            on the GPU.
    """

    parameters: int
    step: int
    forward: int
    evaluations: int
    memory: int
    resident: int


def costs_of(
    forecast: Forecast, config: ResolvedConfig, data: TrainingData, world: World, blank: Denoiser
) -> Costs:
    """Count what a run takes.

    Args:
        forecast: of its steps.
        config: of the run.
        data: on the host.
        world: the processes.
        blank: the model, without weights.
    """
    # first: the forecast loads what training may do without
    resident, more = resident_bytes() or 0, 0
    needs = forecast.step(config.run.batch_gpu)
    if world.device.type == "cuda":
        on_device = data.is_resident(world.device, config.run.data_device)
        resident = data.images.numel() if on_device else 0
    else:
        # a thread writes a copy of the training state while the next steps run
        more = (4 + len(config.ema.posthoc)) * forecast.weights + WITH_FIRST_STEP
    sampling = sampling_of(generation_settings(config.sampler), blank)
    return Costs(
        parameters=sum(weights.numel() for weights in blank.parameters()),
        step=needs.flops * world.size,
        forward=sum(part.flops for part in composition(model_of(config, data))),
        evaluations=evaluations_of(sampling),
        memory=needs.peak + resident + more,
        resident=resident,
    )


def evaluations_of(sampling: Sampling) -> int:
    """Evaluations of the network for one image: calls, and second ones where guidance needs them.

    Where guidance has an interval, calls are shared out evenly over the steps.
    """
    settings, guidance = sampling.settings, sampling.settings.guidance
    if guidance is None or not guidance.is_active or not sampling.denoiser.label_dim:
        return settings.num_calls
    low, high = guidance.interval
    starts = sampling.sigmas[:-1]
    share = sum(low < sigma <= high for sigma in starts) / len(starts)
    return round(settings.num_calls * (1 + share))


def lines_of(costs: Costs, config: ResolvedConfig, world: World) -> Iterator[str]:
    """Costs in words."""
    settings = generation_settings(config.sampler)
    yield (
        f"{costs.parameters:,} parameters; a step of {config.run.batch:,} images: "
        f"{flops_text(costs.step)}; an image by {settings.name}: {settings.num_calls} calls, "
        f"{flops_text(costs.evaluations * costs.forward)}"
    )
    where = world.device.type
    if where == "cuda":
        beside = f"{gib(costs.resident)} of it images" if costs.resident else "images on the host"
        yield f"memory: about {gib(costs.memory)} of the GPU in a step, {beside}"
    elif costs.resident:
        each = " a process" if world.size > 1 else ""
        beside = f"{gib(costs.resident)} of it taken already by programs and images"
        yield f"memory: about {gib(costs.memory)}{each} at most, {beside}"
    else:
        yield f"memory: about {gib(costs.memory)} at most, beside programs and images"


@dataclass(frozen=True)
class Probe:
    """How long parts of a run took.

    Attributes:
        call: seconds of an evaluation of the network for one image of some.
        steps: seconds of each step, without the first one if there are others; empty if a step
            would have taken too long.
        sample: seconds of an evaluation for one image of a preview, in a batch of them; None if
            there are no previews, or a batch would have taken too long.
    """

    call: float
    steps: list[float]
    sample: float | None


def probe_lines(
    costs: Costs,
    config: ResolvedConfig,
    data: TrainingData,
    world: World,
    *,
    seen: int = 0,
    limit: float,
) -> Iterator[str]:
    """Try a few steps and say how long the run will take. All processes must call.

    Args:
        costs: of the run.
        config: of the run.
        data: on the host.
        world: the processes.
        seen: images that the run has seen already.
        limit: seconds that the steps may take; a step that is expected to take longer is not tried.
    """
    free = available_bytes(world.device)
    needed = costs.memory - (costs.resident if world.device.type == "cpu" else 0)
    if any(world.any(free is not None and needed > free)):
        yield f"time: unknown, since a step takes more than the {gib(free or 0)} that are free"
        return
    try:
        trainer = create_trainer(config, model_of(config, data), world)
        preview = _preview_of(config, trainer)
        found = _probe(trainer, data, preview, costs.step, costs.forward, limit)
    except (MemoryError, RuntimeError) as error:
        if world.is_group or not is_out_of_memory(error):
            raise
        yield "time: unknown, since a step does not fit into memory"
        return
    yield from _time_lines(found, costs, config, world, preview, seen)


def _preview_of(config: ResolvedConfig, trainer: Trainer) -> Preview | None:
    if not config.preview.enabled:
        return None
    precision = config.run.precision
    return plan_preview(config.preview, config.sampler, trainer.average, precision=precision)


def _now(device: torch.device) -> float:
    """Seconds, when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _probe(
    trainer: Trainer,
    data: TrainingData,
    preview: Preview | None,
    step_flops: int,
    forward_flops: int,
    limit: float,
) -> Probe:
    """Time a call, steps, and a batch of a preview; the same number of each in all processes."""
    config, world = trainer.config, trainer.world
    torch.backends.cudnn.benchmark = config.run.bench

    def slowest(seconds: float) -> float:
        return float(world.max(torch.tensor(seconds, dtype=torch.float64)))

    num, call = 0, 0.0
    while num < config.run.batch_gpu and num * call < LONG_CALL:
        num = min(max(1, 4 * num), config.run.batch_gpu)
        _seconds_of_call(trainer, num)  # warms up
        # the least of some: one that a busy machine held up must not rule out all steps
        call = slowest(min(_seconds_of_call(trainer, num) for _ in range(CALLS))) / num
    steps, sample = list[float](), None
    if call * step_flops / max(forward_flops, 1) / world.size <= limit:
        placed = data.placed(world.device, config.run.data_device)
        source = MicroBatches(config, placed, trainer.objective, world)
        while len(steps) <= MOST_STEPS and sum(steps) < limit:
            start = _now(world.device)
            parts = list(source.at(trainer.seen))
            trainer.step([(batch, draws) for batch, draws, _ in parts], [s for *_, s in parts])
            steps.append(slowest(_now(world.device) - start))
    num = 0 if preview is None else min(BATCH_SIZE, -(-len(preview.samples) // world.size))
    if num and num * call <= limit:
        _seconds_of_call(trainer, num)
        sample = slowest(_seconds_of_call(trainer, num)) / num
    return Probe(call, steps[1:] or steps, sample)


def _seconds_of_call(trainer: Trainer, num: int) -> float:
    """Time one call of the averaged model for some images."""
    model, device = trainer.average, trainer.world.device
    x = torch.zeros(num, model.img_channels, *model.img_resolution, device=device)
    labels = torch.zeros(num, model.label_dim, device=device) if model.label_dim else None
    start = _now(device)
    with torch.inference_mode(), autocast(trainer.config.run.precision, device):
        model(x, 1.0, labels)
    return _now(device) - start


def _time_lines(
    found: Probe,
    costs: Costs,
    config: ResolvedConfig,
    world: World,
    preview: Preview | None,
    seen: int,
) -> Iterator[str]:
    """A probe in words."""
    batch = config.run.batch
    num_steps = max(0, -(-(config.run.duration - seen) // batch))
    if found.steps:
        step = median(found.steps)
        how = f"tried on {world.device}: {len(found.steps)} step(s)"
        how += ", blocks not compiled" if config.run.compile else ""
    else:
        step = found.call * costs.step / max(costs.forward, 1) / world.size
        how = f"not tried: by one evaluation of the network on {world.device}, and FLOPs"
    yield (
        f"time: {three_digits(step)} s a step, {three_digits(batch / step)} images/s, "
        f"{duration(num_steps * step)} for {num_steps:,} steps ({how})"
    )
    if preview is not None and found.sample is not None:
        share = -(-len(preview.samples) // world.size)
        each = found.sample * share * evaluations_of(preview.sampling)
        num = num_previews(config, seen)
        yield (
            f"previews: {duration(each)} each, {duration(each * num)} for {num:,} of "
            f"{len(preview.samples)} images"
        )


def num_previews(config: ResolvedConfig, seen: int = 0) -> int:
    """Previews of a run: after its first step, at every multiple of their interval, at the end."""
    every = config.preview.every or config.run.snap
    every = -(-max(every, config.run.tick) // config.run.batch) * config.run.batch
    left = -(-(config.run.duration - seen) // every)
    return max(0, left) + (1 if seen == 0 else 0)
