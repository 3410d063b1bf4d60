"""Settings meet a model: misfits are refused, and what the sampler calls is put together."""

import math
from collections.abc import Callable

from torch import Tensor

from diffusion.denoiser import ConditionalDenoiser, DenoiseFunction, Denoiser
from diffusion.guidance import autoguidance, classifier_free, clipped, conditional
from samplers.options import GenerationSettings
from samplers.solvers.derivatives import check_continuous
from samplers.stability import falls_apart, least_steps
from torch_utils.errors import UserError


def check(settings: GenerationSettings, denoiser: Denoiser, guide: Denoiser | None = None) -> None:
    """Refuse settings that a model cannot be sampled with, before any work.

    Args:
        settings: all of them.
        denoiser: the model; its weights are not looked at.
        guide: the guidance network, if there is one.

    Raises:
        UserError: guidance without labels or without a scale, a guide of another shape, an empty
            range of noise levels, or a solver that needs a derivative that the model lacks.
    """
    guidance = settings.guidance
    if guide is None:
        if guidance is not None and guidance.is_active and denoiser.label_dim == 0:
            raise UserError(
                f"guidance {guidance.scale:g} needs a model with labels; this one is "
                "unconditional: leave it out, or give a guidance network"
            )
    else:
        if guidance is None:
            raise UserError("a guidance network needs a guidance scale")
        ours = denoiser.img_channels, *denoiser.img_resolution
        theirs = guide.img_channels, *guide.img_resolution
        if ours != theirs:
            raise UserError(f"the guidance network makes images {theirs}, the model {ours}")
        if guide.label_dim not in (0, denoiser.label_dim):
            raise UserError(
                f"the guidance network has {guide.label_dim} labels, the model "
                f"{denoiser.label_dim}: they must have the same, or the guidance network none"
            )
    sigmas, _ = noise_levels(settings, denoiser, guide)
    if settings.sampler.name == "ito_taylor":
        for model in (denoiser, guide):
            if model is not None:
                check_continuous("sampler ito_taylor", sigmas, model.round_sigma)


def noise_levels(
    settings: GenerationSettings, denoiser: Denoiser, guide: Denoiser | None = None
) -> tuple[list[float], list[str]]:
    """The levels that are visited, ending in 0, and a line for each way they are not as asked.

    They lie in the range of the model and of its guide.

    Raises:
        UserError: the range is empty, or the grid cannot have so many steps.
    """
    low, high = _range(denoiser, guide)
    schedule = denoiser.preconditioning.schedule
    return settings.sampler.plan(low, high, denoiser.round_sigma, schedule)


def solver(
    settings: GenerationSettings, denoiser: Denoiser, guide: Denoiser | None = None
) -> Callable[..., Tensor]:
    """The sampler with its options, for this model."""
    levels, _ = noise_levels(settings, denoiser, guide)
    return settings.sampler.bound(*_range(denoiser, guide), len(levels) - 1)


def cautions(
    settings: GenerationSettings,
    denoiser: Denoiser,
    guide: Denoiser | None = None,
    *,
    label_dropout: float | None = None,
) -> list[str]:
    """A line for each reason why images of these settings cannot be right, though they can be made.

    Args:
        settings, denoiser, guide: as of `check`.
        label_dropout: probability of the null label in training; None if that is not known.
    """
    lines = []
    sampler = settings.sampler
    schedule = denoiser.preconditioning.schedule
    model = *_range(denoiser, guide), denoiser.round_sigma, schedule
    if falls_apart(sampler, model):
        enough = least_steps(sampler, model)
        advice = f"take {enough} or more" if enough else "take another sampler or grid"
        lines.append(
            f"sampler {sampler.name} makes noise with {sampler.steps} steps of this grid: {advice}"
        )
    guidance = settings.guidance
    if guidance is not None and guidance.is_active and guide is None and not label_dropout:
        what = f"guidance {guidance.scale:g} needs a model that knows the null label"
        how = "train with run.label_dropout, or guide by --guidance-network"
        if label_dropout is None:
            lines.append(f"{what}, and the snapshot does not say whether this one does: {how}")
        else:
            lines.append(f"{what}; this one was trained without label dropout: {how}")
    return lines


def ignores_labels(settings: GenerationSettings, guide: Denoiser | None = None) -> bool:
    """Whether labels change nothing: at scale 0, of the model itself or a guide without labels."""
    guidance = settings.guidance
    is_unguided = guidance is None or guidance.scale != 0 or guidance.interval != (0.0, math.inf)
    return not is_unguided and (guide is None or guide.label_dim == 0)


def _range(denoiser: Denoiser, guide: Denoiser | None) -> tuple[float, float]:
    """The noise levels that all networks accept."""
    models = [denoiser] if guide is None else [denoiser, guide]
    return max(model.sigma_min for model in models), min(model.sigma_max for model in models)


def guided(
    settings: GenerationSettings,
    denoiser: Denoiser,
    labels: Tensor | None,
    guide: Denoiser | None = None,
) -> DenoiseFunction:
    """What the sampler calls: the model with its labels, guided and clipped as the settings say.

    Args:
        settings: all of them; see `check`.
        denoiser: the model.
        labels: [N, label_dim], or None for an unconditional model.
        guide: the guidance network; without labels of its own it gets none.
    """
    guidance, clip = settings.guidance, settings.clip_rule
    if guidance is None or (guide is None and labels is None):
        denoise = conditional(denoiser, labels)
        return denoise if clip == "none" else clipped(denoise)
    scale, interval = guidance.scale, guidance.interval
    if guide is None:
        assert labels is not None
        is_split = guidance.batch == "split"
        return classifier_free(
            denoiser, labels, scale=scale, interval=interval, clip=clip, split=is_split
        )
    weak = guide if guide.label_dim else _ignoring_labels(guide)
    return autoguidance(denoiser, weak, labels, scale=scale, interval=interval, clip=clip)


def _ignoring_labels(denoiser: Denoiser) -> ConditionalDenoiser:
    """An unconditional model that may be given labels."""

    def call(
        x: Tensor,
        sigma: Tensor | float,
        labels: Tensor | None = None,
        label_mask: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        denoised: Tensor = denoiser(x, sigma)
        return denoised

    return call
