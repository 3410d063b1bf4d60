"""The training objective: draws are data, the evaluation is pure.

E_{sigma, y, n} of a weighted sum of terms, each a function of D(y + sigma n, sigma).
Karras et al. 2022 ("EDM"), Eq. 8, for the denoising term alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from diffusion.denoiser import ConditionalDenoiser, residual
from diffusion.preconditioning import broadcast_sigma
from losses.batch import Batch, Context, Draws, Generators, LossTerms, NoisedBatch, Points
from losses.levels import NoiseLevel
from losses.sampling import variates
from losses.terms import Term
from losses.uncertainty import LogVariance
from losses.weights import Weight


@dataclass(frozen=True)
class Objective:
    """One noise-level distribution, one weighting, one reduction and the terms that share them.

    Attributes:
        noise_level: distribution of sigma.
        sampling: how the levels of a batch are drawn, a key of `losses.SAMPLINGS`.
        weight: w(sigma).
        reduction: "sum" or "mean" over channels and pixels.
        terms: name -> (factor, term).
        input_perturbation: standard deviation of what is added to the input's noise.
        uncertainty: the learned logarithm of the denoising loss's variance, a module whose
            parameters are trained too; None without it.
    """

    noise_level: NoiseLevel
    sampling: str
    weight: Weight
    reduction: str
    terms: Mapping[str, tuple[float, Term]]
    input_perturbation: float = 0.0
    uncertainty: LogVariance | None = None

    def draw(self, generators: Generators, batch: Batch) -> Draws:
        """Draw all that is random for one micro-batch, on the generators' device."""
        num, micro = batch.images.shape[0], generators.micro
        sigma = self.noise_level.sigma(
            variates(self.sampling, generators, num, normal=self.noise_level.is_normal)
        )
        noise = torch.randn(batch.images.shape, generator=micro, device=micro.device)
        perturbation = None
        if self.input_perturbation:
            fresh = torch.randn(batch.images.shape, generator=micro, device=micro.device)
            perturbation = self.input_perturbation * fresh
        own = {name: term.draw(generators, batch) for name, (_, term) in self.terms.items()}
        return Draws(sigma, noise, perturbation, {name: d for name, d in own.items() if d})

    def __call__(
        self,
        denoiser: ConditionalDenoiser,
        batch: Batch,
        draws: Draws,
        rollout: ConditionalDenoiser | None = None,
    ) -> LossTerms:
        """Evaluate every term.

        Args:
            denoiser: the model under training, or a closed-form one.
            batch: clean images and their conditions.
            draws: from `draw`, or from elsewhere.
            rollout: the model whose trajectories terms follow; None means `denoiser`.

        Returns:
            Values per element and term.
        """
        y, n, sigma = batch.images, draws.noise, draws.sigma
        noise = n if draws.perturbation is None else n + draws.perturbation
        shared = Points(y + broadcast_sigma(sigma, y) * noise, sigma, batch.conditions())
        followed = denoiser if rollout is None else rollout
        context = Context(denoiser, followed, shared.conditions, self.weight)
        own = {name: draws.terms.get(name, {}) for name in self.terms}
        asked = {
            name: term.extra_points(shared, context, own[name])
            for name, (_, term) in self.terms.items()
        }
        extra = {name: points for name, points in asked.items() if points is not None}
        # one network call for the shared points and for all that terms ask for
        sets = [shared, *extra.values()]
        every = Points.joined(sets)
        found, difference = residual(denoiser, every.x, y, n, every.sigma, **every.conditions)
        denoised, *parts = torch.split(found, [len(points.x) for points in sets])
        contexts = {
            name: replace(context, extra=part) for name, part in zip(extra, parts, strict=True)
        }
        noised = NoisedBatch(y, n, sigma, shared.x, denoised, difference)
        values = {
            name: factor * term(noised, contexts.get(name, context), own[name])
            for name, (factor, term) in self.terms.items()
        }
        if self.uncertainty is not None:
            log_variance = broadcast_sigma(self.uncertainty(sigma), y)
            values["denoising"] = values["denoising"] / log_variance.exp() + log_variance
        return LossTerms(values, sigma, self.reduction)
