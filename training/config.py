"""The training config: one strict tree, read from YAML recipes and the command line.

A `TrainingConfig` is what was asked for: its spans (durations, intervals) are text with a unit, and
what it leaves open is None. `resolve` turns it into a `ResolvedConfig` for some data and a number
of processes: there spans are numbers of images. On disk both look alike.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from diffusion import DEFAULT_STEPS
from losses import NOISE_LEVELS, TERMS, WEIGHTS
from models.config import ModelConfig, Network, PreconditioningConfig
from models.posthoc import LENGTHS, checked_lengths
from samplers import DEFAULT_SAMPLER
from samplers.settings import flat_with_numbers, with_steps
from torch_utils.errors import UserError
from torch_utils.sections import Section, options_of
from training.augmentation import AugmentConfig
from training.evaluate_config import EvaluateConfig
from training.units import canonical, to_images

# spans as text, named for the unit that bare numbers have in EDM; resolved ones are integers
Million = Annotated[str | int, BeforeValidator(lambda value: canonical(value, "M"))]
Kilo = Annotated[str | int, BeforeValidator(lambda value: canonical(value, "k"))]
Ticks = Annotated[str | int, BeforeValidator(lambda value: canonical(value, "tick"))]

# a resolved span: a number of images, which files show with its unit
Count = Annotated[int, PlainSerializer(lambda count: f"{count}img", when_used="json")]

DEFAULT_NETWORK = {"name": "ddpmpp"}
DEFAULT_SAMPLING = {"name": DEFAULT_SAMPLER, "steps": DEFAULT_STEPS}


class DataConfig(Section):
    """What to train on.

    Attributes:
        path: dataset zip or folder.
        key: checksums that its images and labels must have; filled in by `resolve`.
        cond: train class-conditionally; needs labels.
        max_size: train on a random subset of at most so many images.
        subset_seed: determines the subset.
        xflip: add a mirrored copy of every image, which doubles the data set.
    """

    path: str | None = None
    key: str | None = None
    cond: bool = False
    max_size: int | None = Field(default=None, ge=1)
    subset_seed: int = Field(default=0, ge=0)
    xflip: bool = False


class LossConfig(Section):
    """The objective; see `losses.create`.

    Attributes:
        noise_level, weight, reduction: None for those that the preconditioning was published with;
            reduction is sum or mean over channels and pixels.
        terms: the losses that are summed.
        input_perturbation: standard deviation of the noise that is added to the input's (DDPM-IP).
        uncertainty: learn the denoising loss's variance at every noise level (EDM2).
    """

    noise_level: Annotated[str | dict[str, Any], options_of(NOISE_LEVELS)] | None = None
    weight: Annotated[str | dict[str, Any], options_of(WEIGHTS)] | None = None
    reduction: str | None = None
    terms: tuple[Annotated[str | dict[str, Any], options_of(TERMS)], ...] = ("denoising",)
    input_perturbation: float = Field(default=0.0, ge=0)
    uncertainty: bool = False


class OptimizerConfig(Section):
    """The optimizer and its learning rate.

    Attributes:
        name: adam, or adamw, whose weight decay is decoupled from the gradient.
        lr: learning rate at the plateau.
        betas, eps: Adam's.
        weight_decay: adamw's.
        warmup: images over which the rate rises linearly from 0.
        warmup_inclusive: count the step's own images, so that the first step already moves.
        decay: constant; cosine, down to 0 at the end of the run; inverse_sqrt, lr / sqrt(k / ref)
            beyond `decay_reference` images.
        decay_reference: images up to which inverse_sqrt keeps the rate.
        clip_norm: gradients are scaled down to this global norm; None for no clipping.
    """

    name: Literal["adam", "adamw"] = "adam"
    lr: float = Field(default=1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: Million = "10M"
    warmup_inclusive: bool = False
    decay: Literal["constant", "cosine", "inverse_sqrt"] = "constant"
    decay_reference: Million | None = None
    clip_norm: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> "OptimizerConfig":
        if self.weight_decay and self.name == "adam":
            raise ValueError("weight_decay needs name: adamw")
        if (self.decay == "inverse_sqrt") != (self.decay_reference is not None):
            raise ValueError("decay: inverse_sqrt and decay_reference go together")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas must be in [0, 1)")
        return self


class EmaConfig(Section):
    """How weights are averaged for sampling.

    Attributes:
        kind: halflife (EDM); constant decay; ramp, min(decay, (1 + n) / (10 + n)) at update n.
        halflife: images after which a weight's share has halved.
        rampup_ratio: the half-life is at most this fraction of the images seen; None for no ramp.
        decay: of kinds constant and ramp, per step.
        starts: the average starts as a copy of the initial weights, or of those after the first
            step.
        posthoc: lengths (sigma_rel) of further averages, from which `snapshot_tool.py ema` makes
            those of other lengths (EDM2); `on` for 0.05 and 0.1.
    """

    kind: Literal["halflife", "constant", "ramp"] = "halflife"
    halflife: Million = "0.5M"
    rampup_ratio: float | None = Field(default=0.05, gt=0)
    decay: float = Field(default=0.9999, ge=0, lt=1)
    starts: Literal["initial", "first_step"] = "initial"
    posthoc: Annotated[tuple[float, ...], AfterValidator(checked_lengths)] = ()

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """`posthoc: on` and `off`, which YAML reads as truth values."""
        if isinstance(value, dict) and isinstance(value.get("posthoc"), bool):
            return {**value, "posthoc": LENGTHS if value["posthoc"] else ()}
        return value


class PreviewConfig(Section):
    """Pictures of samples during training; `preview: off` turns them off.

    Attributes:
        enabled: whether they are made.
        every: interval; None for one with every snapshot.
        num_images: how many images; None for 8 a class, or 64 without classes. Large images are
            fewer.
        steps: of the sampler; None for the sampler's own, or as many as take no more than 50
            network calls an image.
    """

    enabled: bool = True
    every: Ticks | None = None
    num_images: int | None = Field(default=None, ge=1, le=10_000)
    steps: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """`off` and `on`, which YAML reads as truth values, switch the whole section."""
        return {"enabled": value} if isinstance(value, bool) else value


class RunConfig(Section):
    """The run: its length, its batches, and what it writes when.

    Attributes:
        duration: images to train for.
        batch: global batch size.
        batch_gpu: micro-batch size; None for a process's share of the batch, or as much as fits.
        seed: of all random numbers.
        label_dropout: probability of training a sample on the null label.
        tick: interval of status lines and statistics.
        snap: interval of snapshots.
        dump: interval of training states.
        keep_states, keep_snapshots: how many of the newest are kept; None for all.
        precision: fp32, or bf16 or fp16 autocast of the network; auto is bf16 on devices that
            multiply it in hardware, else fp32.
        loss_scaling: fp16's first scale of the loss; it then adapts.
        max_bad_steps: stop after so many steps in a row with a loss or gradient that is not
            finite; each is skipped and counted.
        remat: keep only the inputs of blocks and compute the rest again in the backward pass.
        bench: let cuDNN time its algorithms.
        compile: compile the network's blocks before the first step.
        desc: suffix of the run directory's name.
        device: auto, cpu or cuda.
        data_device: where decoded images lie: auto puts them on the GPU if they fit.
    """

    duration: Million = "200M"
    batch: int = Field(default=512, ge=1)
    batch_gpu: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    label_dropout: float = Field(default=0.0, ge=0, le=1)
    tick: Kilo = "50k"
    snap: Ticks = "50tick"
    dump: Ticks = "50tick"
    keep_states: int | None = Field(default=3, ge=1)
    keep_snapshots: int | None = Field(default=None, ge=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    loss_scaling: float = Field(default=1.0, gt=0)
    max_bad_steps: int = Field(default=100, ge=1)
    remat: bool = False
    bench: bool = True
    compile: bool = False
    desc: str | None = Field(default=None, pattern=r"^[\w.+=-]+$")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data_device: Literal["auto", "cpu", "cuda"] = "auto"


class TrainingConfig(Section):
    """A whole experiment.

    Attributes:
        data: what to train on.
        augment: what is done to the images.
        network: {name, options...} of networks.create.
        preconditioning: how the network becomes a denoiser.
        loss: the objective.
        optimizer, ema: how weights move and are averaged.
        sampler: {name, steps or calls, options...}, the snapshots' default; also of previews.
        preview: pictures of samples during training.
        evaluate: scores of snapshots during training.
        run: the rest.
    """

    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    network: Network = Field(default_factory=lambda: dict(DEFAULT_NETWORK))
    preconditioning: PreconditioningConfig = PreconditioningConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: EmaConfig = EmaConfig()
    sampler: Annotated[dict[str, Any], AfterValidator(flat_with_numbers)] = Field(
        default_factory=lambda: dict(DEFAULT_SAMPLING)
    )
    preview: PreviewConfig = PreviewConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    run: RunConfig = RunConfig()


class ResolvedOptimizer(OptimizerConfig):
    """The optimizer of a run; spans are images."""

    warmup: Count
    decay_reference: Count | None


class ResolvedEma(EmaConfig):
    """The average of a run; spans are images."""

    halflife: Count


class ResolvedPreview(PreviewConfig):
    """The previews of a run; spans are images."""

    every: Count | None


class ResolvedRun(RunConfig):
    """The run itself; spans are images, and micro-batches and precision are known."""

    duration: Count
    batch_gpu: int
    precision: Literal["fp32", "bf16", "fp16"]
    tick: Count
    snap: Count
    dump: Count


class ResolvedConfig(TrainingConfig):
    """A whole experiment for certain data and processes: all that training needs to know."""

    optimizer: ResolvedOptimizer
    ema: ResolvedEma
    preview: ResolvedPreview
    run: ResolvedRun

    def with_micro_batch(self, size: int) -> "ResolvedConfig":
        """The same experiment in micro-batches of another size."""
        return self._with(batch_gpu=size)

    def with_precision(self, precision: str) -> "ResolvedConfig":
        """The same experiment in another precision: fp32, bf16 or fp16."""
        return self._with(precision=precision)

    def _with(self, **changed: Any) -> "ResolvedConfig":
        return self.model_copy(update={"run": self.run.model_copy(update=changed)})


# where there are spans; the tick is first, because others count in it
_SPANS = (
    ("run", "tick"),
    ("run", "duration"),
    ("run", "snap"),
    ("run", "dump"),
    ("optimizer", "warmup"),
    ("optimizer", "decay_reference"),
    ("ema", "halflife"),
    ("preview", "every"),
)
_MAY_BE_ZERO = ("optimizer", "ema")


def resolve(
    config: TrainingConfig,
    *,
    num_images: int,
    world_size: int,
    data_key: str | None = None,
    fast_precision: str = "fp32",
) -> ResolvedConfig:
    """Turn every span into images, and choose precision and size of micro-batches.

    A sampler that was chosen by a number of calls gets its own name and steps: what a run and its
    snapshots store makes the same images when the choice has changed.

    Args:
        config: as read.
        num_images: size of the data set.
        world_size: number of processes.
        data_key: of the data; None if unknown.
        fast_precision: what the precision `auto` stands for.

    Raises:
        UserError: the batch is not divisible into micro-batches for that many processes, a span
            that must be positive is 0, the config asks for other data, or its sampler cannot be
            used.
    """
    if data_key is not None and config.data.key not in (None, data_key):
        raise UserError(
            f"data.key is {config.data.key}, but {config.data.path} has {data_key}: it is not the "
            "data that this config was made for; leave data.key out to train on it anyway"
        )
    batch = config.run.batch
    if batch % world_size:
        raise UserError(f"batch {batch} is not divisible by {world_size} processes")
    share = batch // world_size
    micro = min(config.run.batch_gpu or share, share)
    if share % micro:
        raise UserError(
            f"batch {batch} over {world_size} process(es) is {share} images each, which is not "
            f"divisible by the micro-batch size batch_gpu={micro}"
        )
    tree = config.model_dump()
    tree["run"]["batch_gpu"] = micro
    if config.run.precision == "auto":
        tree["run"]["precision"] = fast_precision
    tree["data"]["key"] = data_key
    tree["sampler"] = with_steps(config.sampler)
    tick = 0
    for section, key in _SPANS:
        span = tree[section][key]
        if span is None:
            continue
        count = to_images(span, batch=batch, num_images=num_images, tick=tick)
        tick = tick or count
        if not count and section not in _MAY_BE_ZERO:
            raise UserError(f"{section}.{key} is 0: it must be positive")
        tree[section][key] = count
    return ResolvedConfig.model_validate(tree)


def model_config(
    config: TrainingConfig, *, image_shape: tuple[int, int, int], label_dim: int
) -> ModelConfig:
    """The model that a training config and the data's shape determine.

    Args:
        config: the experiment.
        image_shape: (channels, height, width).
        label_dim: width of the data's labels; used if `data.cond` is set.
    """
    channels, height, width = image_shape
    return ModelConfig(
        network=config.network,
        preconditioning=config.preconditioning,
        img_resolution=(height, width),
        img_channels=channels,
        label_dim=label_dim if config.data.cond else 0,
        augment_dim=config.augment.augment_dim,
    )
