"""The training objective: draws are data, the evaluation is pure.

E_{sigma, y, n} of a weighted sum of terms, each a function of D(y + sigma n, sigma).
Karras et al. 2022 ("EDM"), Eq. 8, for the denoising term alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.denoiser import ConditionalDenoiser, residual
from diffusion.preconditioning import broadcast_sigma
from losses.batch import Batch, Draws, Generators, LossTerms, NoisedBatch
from losses.levels import NoiseLevel
from losses.weights import Weight

Term = Callable[[NoisedBatch, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """One noise-level distribution, one weighting, one reduction and the terms that share them.

    Attributes:
        noise_level: distribution of sigma.
        weight: w(sigma).
        reduction: "sum" or "mean" over channels and pixels.
        terms: name -> term.
    """

    noise_level: NoiseLevel
    weight: Weight
    reduction: str
    terms: Mapping[str, Term]

    def draw(self, generators: Generators, batch: Batch) -> Draws:
        """Draw all that is random for one micro-batch, on the generators' device."""
        sigma = self.noise_level.draw(generators.micro, batch.images.shape[0])
        noise = torch.randn(
            batch.images.shape, generator=generators.micro, device=generators.micro.device
        )
        return Draws(sigma, noise)

    def __call__(self, denoiser: ConditionalDenoiser, batch: Batch, draws: Draws) -> LossTerms:
        """Evaluate every term.

        Args:
            denoiser: the model under training, or a closed-form one.
            batch: clean images and their conditions.
            draws: from `draw`, or from elsewhere.

        Returns:
            Values per element and term.
        """
        y, n, sigma = batch.images, draws.noise, draws.sigma
        denoised, difference = residual(denoiser, y, n, sigma, **batch.conditions())
        level = broadcast_sigma(sigma, y)
        noised = NoisedBatch(y, n, sigma, y + level * n, denoised, difference)
        weight = self.weight(level)
        values = {name: term(noised, weight) for name, term in self.terms.items()}
        return LossTerms(values, sigma, self.reduction)
