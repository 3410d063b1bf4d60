"""Terms of a training objective: each maps the shared noised batch to values per element."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor

from diffusion.denoiser import Points
from diffusion.preconditioning import broadcast_sigma
from diffusion.schedules import Schedule
from losses.batch import Batch, Generators, Model, NoisedBatch
from losses.levels import NoiseLevel


class Term(ABC):
    """One part of an objective; unless it says otherwise, of the shared point alone."""

    @classmethod
    def create(
        cls, options: Mapping[str, Any], level: NoiseLevel, schedule: Schedule | None
    ) -> Self:
        """Make the term.

        Args:
            options: those of its row in `losses.TERMS`, checked, without lambda.
            level: the objective's noise level.
            schedule: the model's, if it has one.
        """
        return cls(**options)

    def draw(self, generators: Generators, batch: Batch) -> dict[str, Tensor]:
        """Draw what the term needs beyond noise level and noise: here nothing."""
        return {}

    def ahead(
        self, x: Tensor, sigma: Tensor, model: Model, draws: Mapping[str, Tensor]
    ) -> Points | None:
        """Points to evaluate in the same call as the shared one, here none.

        D there comes as `model.ahead`, with gradient.

        Args:
            x: the shared noisy images, [N, C, H, W].
            sigma: their noise levels, [N].
            model: without `ahead`.
            draws: what `draw` returned.
        """
        return None

    @abstractmethod
    def __call__(self, noised: NoisedBatch, model: Model, draws: Mapping[str, Tensor]) -> Tensor:
        """Values per element, [n, C, H, W], of the first n <= N samples.

        Args:
            noised: the evaluation that all terms share.
            model: for evaluations elsewhere.
            draws: what `draw` returned.
        """


class Denoising(Term):
    """Denoising score matching, w(sigma) (D - y)^2. Karras et al. 2022 ("EDM"), Eq. 2."""

    def __call__(self, noised: NoisedBatch, model: Model, draws: Mapping[str, Tensor]) -> Tensor:
        """Values per element, [N, C, H, W]."""
        return model.weight(broadcast_sigma(noised.sigma, noised.y)) * noised.residual.square()
