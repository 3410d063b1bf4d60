"""Terms of a training objective: each maps the shared noised batch to values per element."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffusion.preconditioning import broadcast_sigma
from diffusion.schedules import Schedule
from losses.batch import Batch, Generators, Model, NoisedBatch
from losses.levels import NoiseLevel


@dataclass(frozen=True)
class Denoising:
    """Denoising score matching, w(sigma) (D - y)^2. Karras et al. 2022 ("EDM"), Eq. 2."""

    @classmethod
    def create(
        cls, options: Mapping[str, Any], level: NoiseLevel, schedule: Schedule | None
    ) -> "Denoising":
        """Make the term; it has no options."""
        return cls(**options)

    def draw(self, generators: Generators, batch: Batch) -> dict[str, Tensor]:
        """Nothing is random beyond the shared point."""
        return {}

    def ahead(self, x: Tensor, sigma: Tensor, model: Model, draws: Mapping[str, Tensor]) -> None:
        """Nothing is evaluated along with the shared point."""

    def __call__(self, noised: NoisedBatch, model: Model, draws: Mapping[str, Tensor]) -> Tensor:
        """Values per element, [N, C, H, W]."""
        return model.weight(broadcast_sigma(noised.sigma, noised.y)) * noised.residual.square()
