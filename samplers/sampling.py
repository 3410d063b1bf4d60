"""A model with the settings to sample it: checked to fit each other, and put together once."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion.denoiser import ConditionalDenoiser, DenoiseFunction, Denoiser, device_of
from diffusion.guidance import (
    autoguidance,
    classifier_free,
    clipped,
    conditional,
    dynamic_clip,
    static_clip,
)
from diffusion.half import halved
from samplers.levels import solver_of, visited_levels
from samplers.restarts import check_restarts
from samplers.settings import GenerationSettings
from samplers.solvers.derivatives import check_continuous
from samplers.solvers.interface import Solver
from samplers.stability import VISIBLE, excess_noise, least_steps
from torch_utils.errors import UserError
from torch_utils.precision import resolve_precision


@dataclass(frozen=True)
class Sampling:
    """Settings that fit a model, and the noise levels that they visit; made by `sampling_of`.

    Attributes:
        settings: all of them; the precision is fp32, bf16 or fp16.
        denoiser: the model.
        guide: the guidance network, if there is one.
        sigmas: the levels that are visited, decreasing; the last is 0 unless the grid has another
            end.
        notes: a line for each way in which the levels differ from what was asked for.
        called: gives what is called in a model's place, e.g. `diffusion.calls.Calls.of`.
    """

    settings: GenerationSettings
    denoiser: Denoiser
    guide: Denoiser | None
    sigmas: list[float]
    notes: list[str]
    called: Callable[[Denoiser], ConditionalDenoiser] = lambda denoiser: denoiser

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the solver's state and arithmetic."""
        return torch.float64 if self.settings.solver_dtype == "float64" else torch.float32

    def at_precision(self, *, in_place: bool = False) -> "Sampling":
        """The same with its networks in the precision of the settings.

        Args:
            in_place: use up the networks in float32, see `diffusion.half.halved`.
        """
        precision, guide = self.settings.precision, self.guide
        if guide is not None:
            guide = halved(guide, precision, in_place=in_place)
        denoiser = halved(self.denoiser, precision, in_place=in_place)
        return replace(self, denoiser=denoiser, guide=guide)

    @property
    def solver(self) -> Solver:
        """The sampler with its options, for this model and these levels."""
        return solver_of(self.settings, *_range(self.denoiser, self.guide), len(self.sigmas) - 1)

    @property
    def ignores_labels(self) -> bool:
        """Whether labels change nothing: at scale 0, if what is left is called without labels."""
        guidance, guide = self.settings.guidance, self.guide
        is_alone = guidance is not None and guidance.scale == 0
        is_everywhere = guidance is not None and guidance.interval == (0.0, math.inf)
        return is_alone and is_everywhere and (guide is None or guide.label_dim == 0)

    def denoise(self, labels: Tensor | None) -> DenoiseFunction:
        """What the sampler calls: the model with its labels, guided and clipped.

        Args:
            labels: [N, label_dim], or None for an unconditional model. They are not given to a
                guidance network that has no labels.
        """
        guidance, clip = self.settings.guidance, self.settings.clip_rule
        limit = dynamic_clip if self.settings.clip == "dynamic" else static_clip
        model = self.called(self.denoiser)
        plain = conditional(model, labels)
        if guidance is None or (self.guide is None and labels is None):
            return plain if clip == "none" else clipped(plain, limit)
        scale, interval = guidance.scale, guidance.interval
        if self.guide is not None:
            weak = conditional(self.called(self.guide), labels if self.guide.label_dim else None)
            return autoguidance(plain, weak, scale=scale, interval=interval, clip=clip, limit=limit)
        assert labels is not None
        return classifier_free(
            model,
            labels,
            scale=scale,
            interval=interval,
            clip=clip,
            limit=limit,
            split=guidance.batch == "split",
        )

    def cautions(self, *, label_dropout: float | None = None) -> list[str]:
        """A line for each reason to expect wrong images, although the sampler can run.

        Args:
            label_dropout: probability of the null label in training; None if unknown.
        """
        lines = []
        settings = self.settings
        if excess_noise(self.solver, self.sigmas) > VISIBLE:
            schedule = self.denoiser.preconditioning.schedule
            model = *_range(self.denoiser, self.guide), self.denoiser.round_sigma, schedule
            enough = least_steps(settings, model)
            advice = f"take {enough} or more" if enough else "take another sampler or grid"
            lines.append(
                f"sampler {settings.name} makes noise with {settings.steps} steps of this grid: "
                f"{advice}"
            )
        guidance = settings.guidance
        is_guided = guidance is not None and guidance.is_active
        if guidance is not None and is_guided and self.guide is None and not label_dropout:
            what = f"guidance {guidance.scale:g} needs a model that knows the null label"
            how = "train with run.label_dropout, or guide by a second network"
            if label_dropout is None:
                lines.append(f"{what}, and the snapshot does not say whether this one does: {how}")
            else:
                lines.append(f"{what}; this one was trained without label dropout: {how}")
        return lines


def sampling_of(
    settings: GenerationSettings, denoiser: Denoiser, guide: Denoiser | None = None
) -> Sampling:
    """Put settings and a model together, before any work.

    The precision `auto` becomes that of the model's device; see `Sampling.at_precision`.

    Args:
        settings: all of them.
        denoiser: the model; its weights are not read.
        guide: the guidance network, if there is one.

    Raises:
        UserError: guidance without labels or without a scale, a guide of another shape, an empty
            range of noise levels, a solver that needs a derivative that the model lacks, or a
            restart that has no place on the grid.
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
                f"{denoiser.label_dim}: it must have as many, or be unconditional"
            )
    schedule = denoiser.preconditioning.schedule
    sigmas, notes = visited_levels(
        settings, *_range(denoiser, guide), denoiser.round_sigma, schedule
    )
    if settings.name == "ito_taylor":
        for model in (denoiser, guide):
            if model is not None:
                check_continuous("sampler ito_taylor", sigmas, model.round_sigma)
    if settings.name == "restart":
        check_restarts(sigmas, settings.options["restarts"], denoiser.round_sigma)
    wanted = resolve_precision(settings.precision, device_of(denoiser))
    precision = "fp32" if settings.row.takes_derivatives else wanted
    if precision != wanted:
        notes.append(
            f"precision {settings.precision} has no effect: sampler {settings.name} takes "
            "derivatives of the network, in fp32"
        )
    return Sampling(settings.at_precision(precision), denoiser, guide, sigmas, notes)


def _range(denoiser: Denoiser, guide: Denoiser | None) -> tuple[float, float]:
    """The noise levels that all networks accept."""
    models = [denoiser] if guide is None else [denoiser, guide]
    return max(model.sigma_min for model in models), min(model.sigma_max for model in models)
