"""Terms of a training objective: each maps the shared noised batch to values per element."""

from dataclasses import dataclass

from torch import Tensor

from losses.batch import NoisedBatch


@dataclass(frozen=True)
class Denoising:
    """Denoising score matching, w(sigma) (D - y)^2. Karras et al. 2022 ("EDM"), Eq. 2."""

    def __call__(self, noised: NoisedBatch, weight: Tensor) -> Tensor:
        """Values per element.

        Args:
            noised: the shared evaluation.
            weight: w(sigma), [N, 1, 1, 1].

        Returns:
            [N, C, H, W].
        """
        return weight * noised.residual.square()
