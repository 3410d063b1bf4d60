"""Settings that are probably not meant: lines at the start of a run, never errors."""

import math

import losses
from torch_utils.registry import split_name
from training.config import ResolvedConfig

# networks and preconditionings of EDM's own program, which augments unless told otherwise
_EDM_NETWORKS = ("ddpmpp", "ncsnpp")
_EDM_PRESETS = ("edm", "vp", "ve")
_FEWEST_POINTS = 8  # of a run, from which averages between the stored ones are fitted to 2%
_LARGEST_SHARE = 0.05  # of the initial weights in the average at the end


def remarks(
    config: ResolvedConfig, *, has_recipe: bool = False, has_blocks: bool = True
) -> list[str]:
    """One line for each setting that defeats another, or differs from what people may expect.

    Args:
        config: resolved.
        has_recipe: a recipe was given; it decides about augmentation itself.
        has_blocks: the network has blocks that can be computed again (`networks.blocks.set_remat`),
            or compiled.
    """
    lines = [_warmup(config), _average(config), _posthoc(config), _kept_objective(config)]
    lines += [] if has_blocks else without_blocks(config)
    if config.evaluate.keep_best and config.run.keep_snapshots is None:
        lines.append("evaluate.keep_best has no effect: run.keep_snapshots keeps all snapshots")
    lines += [] if has_recipe else [_augmentation(config)]
    return [line for line in lines if line]


def without_blocks(config: ResolvedConfig) -> list[str]:
    """One line for each setting of blocks, of which the network has none."""
    settings = (("remat", "computed again"), ("compile", "compiled"))
    name = config.network["name"]
    return [
        f"run.{key} has no effect: {name} has no blocks that are {done}"
        for key, done in settings
        if getattr(config.run, key)
    ]


def in_short(number: int) -> str:
    """A number of images: 500, 6k, 10M, 1.5M."""
    for unit, suffix in ((1_000_000, "M"), (1_000, "k")):
        if number >= unit:
            return f"{number / unit:.4g}{suffix}"
    return str(number)


def _warmup(config: ResolvedConfig) -> str:
    optimizer, duration = config.optimizer, config.run.duration
    warmup = optimizer.warmup
    if warmup <= duration:
        return ""
    verb = "ends at" if optimizer.decay == "constant" else "stays below"
    return (
        f"warm-up ({in_short(warmup)} images) is longer than the run ({in_short(duration)}): "
        f"the learning rate {verb} {100 * duration / warmup:.2g}% of {optimizer.lr:g}; "
        "set optimizer.warmup"
    )


def _average(config: ResolvedConfig) -> str:
    """The share of the initial weights in the average that is sampled from."""
    ema, duration = config.ema, config.run.duration
    steps = math.ceil(duration / config.run.batch)
    share, key = 0.0, "ema.decay"
    if ema.kind == "halflife" and ema.rampup_ratio is None and ema.halflife:
        share, key = 0.5 ** (duration / ema.halflife), "ema.halflife"
    elif ema.kind == "constant":
        share = ema.decay**steps
    if share <= _LARGEST_SHARE:
        return ""
    first = "initial weights" if ema.starts == "initial" else "weights of the first step"
    return f"at the end {share:.0%} of the averaged weights are still the {first}: lower {key}"


def _posthoc(config: ResolvedConfig) -> str:
    """Whether averages of other lengths can be made after training."""
    run = config.run
    num = math.ceil(run.duration / run.snap)
    kept = num if run.keep_snapshots is None else min(num, run.keep_snapshots)
    if not config.ema.posthoc or kept >= _FEWEST_POINTS:
        return ""
    key = "lower run.snap" if num < _FEWEST_POINTS else "raise run.keep_snapshots"
    return (
        f"ema.posthoc: {kept} snapshots remain at the end, too few to fit averages of other "
        f"lengths well: {key}"
    )


def _kept_objective(config: ResolvedConfig) -> str:
    preset = config.preconditioning.name
    published = losses.PUBLISHED_OBJECTIVES[preset]
    differing = []
    for key in ("noise_level", "weight"):
        entry = getattr(config.loss, key)
        if entry is not None:
            name, _ = split_name(f"loss.{key}", entry)
            wanted = getattr(published, key)
            if name != wanted:
                differing.append(f"loss.{key} {name} ({preset}: {wanted})")
    if not differing:
        return ""
    return (
        f"preconditioning {preset} is trained with what the config says, {' and '.join(differing)};"
        " null takes the preset's"
    )


def _augmentation(config: ResolvedConfig) -> str:
    is_edm = config.network["name"] in _EDM_NETWORKS
    is_edm &= config.preconditioning.name in _EDM_PRESETS
    if not is_edm or config.augment.settings is not None:
        return ""
    return "no augmentation: the default of --augment is 0 here, and 0.12 in EDM's program"
