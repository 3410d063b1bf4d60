"""Terms of a training objective: each maps the shared noised batch to values per element."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor

from diffusion.preconditioning import broadcast_sigma
from diffusion.schedules import Schedule
from losses.batch import Batch, Context, Generators, NoisedBatch, Points
from losses.levels import NoiseLevel


class Term(ABC):
    """One part of an objective. By default it needs the shared evaluation only."""

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], level: NoiseLevel, schedule: Schedule | None
    ) -> Self:
        """Make the term.

        Args:
            options: checked options of the term's row in `losses.TERMS`, without lambda.
            level: the objective's noise level.
            schedule: the model's, if it has one.
        """
        return cls(**options)

    def draw(self, generators: Generators, batch: Batch) -> dict[str, Tensor]:
        """Draw what the term needs beyond noise level and noise: here nothing."""
        return {}

    def extra_points(
        self, shared: Points, context: Context, draws: Mapping[str, Tensor]
    ) -> Points | None:
        """Points to evaluate in the same network call as the shared ones; here no points.

        D at these points comes back as `context.extra`.

        Args:
            shared: the noised batch, N points.
            context: what else the term may use; `extra` is not there yet.
            draws: what `draw` returned.
        """
        return None

    @abstractmethod
    def __call__(
        self, noised: NoisedBatch, context: Context, draws: Mapping[str, Tensor]
    ) -> Tensor:
        """Values per element, [n, C, H, W], of the first n <= N samples.

        Args:
            noised: the evaluation that all terms share.
            context: what else the term may use.
            draws: what `draw` returned.
        """


class Denoising(Term):
    """Denoising score matching, w(sigma) (D - y)^2. Karras et al. 2022 ("EDM"), Eq. 2."""

    def __call__(
        self, noised: NoisedBatch, context: Context, draws: Mapping[str, Tensor]
    ) -> Tensor:
        """Values per element, [N, C, H, W]."""
        return context.weight(broadcast_sigma(noised.sigma, noised.y)) * noised.residual.square()
