"""The consistency term: the denoiser's predictions are a martingale along its own trajectories.

"Consistent Diffusion Models" (CDM), NeurIPS 2023 (arXiv 2302.09057): for the exact denoiser,
E[D(x', sigma') | x] = D(x, sigma) when x' is reached from x by the exact reverse SDE.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffusion.preconditioning import broadcast_sigma
from diffusion.schedules import Schedule
from diffusion.steps import (
    ancestral_step,
    frozen_std,
    reverse_sde_step,
    slope,
    variance_small,
)
from losses.batch import Batch, Context, Generators, NoisedBatch, Points
from losses.levels import NoiseLevel
from losses.terms import Term
from torch_utils.errors import UserError

# (x, D(x, sigma), sigma, sigma_next, unit noise) -> x_next, levels as [N, 1, 1, 1]
Transition = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def euler_maruyama(
    x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, noise: Tensor
) -> Tensor:
    """One step of the reverse SDE with its coefficients frozen; the published step."""
    d, std = slope(x, denoised, sigma), frozen_std(sigma, sigma_next)
    return reverse_sde_step(x, d, sigma, sigma_next, std, noise)


def posterior(
    x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, noise: Tensor
) -> Tensor:
    """One draw of x_next given x and y = D. Ho et al. 2020 ("DDPM"), Eq. 6 and 7."""
    variance = variance_small(sigma, sigma_next)
    return ancestral_step(x, denoised, sigma, sigma_next, variance, noise)


STEPS: dict[str, Transition] = {"euler_maruyama": euler_maruyama, "posterior": posterior}


@dataclass(frozen=True)
class Consistency(Term):
    """(B1 - A)(B2 - A): A at the noised image, B1 and B2 at the ends of two rollouts from it.

    The two have independent noise, so the product's expectation is |E[B | x] - A|^2 and single
    values may be negative. Gradients flow through A, B1 and B2, not through the rollouts, which run
    without dropout.

    Attributes:
        num_steps: nodes of the rollout's time grid, one more than its steps.
        epsilon_min, epsilon_max: the rollout ends at sigma' = sigma - u, u uniform between them.
        rho: exponent of the rollout's time grid between sigma and sigma'.
        sigma_floor: sigma' is not below this, unless sigma is.
        batch_fraction: share of the batch, its first samples, that is rolled out.
        rollout: "online": the rollout follows the network under training; "ema": its average.
        step: one step of the rollout.
    """

    num_steps: int = 6
    epsilon_min: float = 0.0
    epsilon_max: float = 0.05
    rho: float = 7.0
    sigma_floor: float = 0.002
    batch_fraction: float = 1.0
    rollout: str = "online"
    step: Transition = euler_maruyama

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], level: NoiseLevel, schedule: Schedule | None
    ) -> Self:
        """Make the term.

        Raises:
            UserError: the window from epsilon_min to epsilon_max is empty.
        """
        if not options["epsilon_min"] < options["epsilon_max"]:
            raise UserError(
                f"loss term consistency: epsilon_min={options['epsilon_min']:g} must be below"
                f" epsilon_max={options['epsilon_max']:g}"
            )
        return cls(**{**options, "step": STEPS[options["step"]]})

    def size(self, num: int) -> int:
        """Number of samples of a batch that are rolled out, at least 1."""
        return max(1, round(self.batch_fraction * num))

    def draw(self, generators: Generators, batch: Batch) -> dict[str, Tensor]:
        """A uniform for each sample's window, and the rollouts' noises [steps, 2n, C, H, W]."""
        num, micro = self.size(len(batch.images)), generators.micro
        shape = (self.num_steps - 1, 2 * num, *batch.images.shape[1:])
        return {
            "window": torch.rand(num, generator=micro, device=micro.device),
            "noise": torch.randn(shape, generator=micro, device=micro.device),
        }

    def extra_points(self, shared: Points, context: Context, draws: Mapping[str, Tensor]) -> Points:
        """Roll out the first n samples twice and return the ends: n of each rollout, 2n points."""
        num = len(draws["window"])
        single = shared.first(num)
        double = Points.joined([single, single])
        followed = context.denoiser if self.rollout == "online" else context.rollout
        levels = torch.stack(self.nodes(single.sigma, draws["window"])).repeat(1, 2)
        state = double.x.detach()
        shaped = [broadcast_sigma(level, state) for level in levels]
        with torch.no_grad(), without_dropout(followed):
            # both rollouts start at the same point: one evaluation serves them
            start = followed(single.x, single.sigma, **single.conditions)
            denoised = torch.cat([start, start])
            for i, (sigma, sigma_next) in enumerate(pairwise(shaped)):
                if i > 0:
                    denoised = followed(state, levels[i], **double.conditions)
                state = self.step(state, denoised, sigma, sigma_next, draws["noise"][i])
        # older PyTorch keeps the weights that autocast cast in the rollout: they carry no gradient,
        # and the evaluation that follows would use them
        torch.clear_autocast_cache()
        return Points(state, levels[-1], double.conditions)

    def __call__(
        self, noised: NoisedBatch, context: Context, draws: Mapping[str, Tensor]
    ) -> Tensor:
        """Values per element of the rolled out samples, [n, C, H, W]; without w(sigma)."""
        assert context.extra is not None, "extra_points returned the ends"
        num, ends = len(draws["window"]), context.extra
        anchor = noised.denoised[:num]
        return (ends[:num] - anchor) * (ends[num:] - anchor)

    def nodes(self, sigma: Tensor, window: Tensor) -> list[Tensor]:
        """The rollout's noise levels, from sigma to sigma', [n] each.

        Args:
            sigma: where rollouts start, [n].
            window: uniforms in [0, 1), [n].
        """
        width = self.epsilon_min + window * (self.epsilon_max - self.epsilon_min)
        last = torch.minimum(sigma, (sigma - width).clamp(min=self.sigma_floor))
        high, low = (level.double() ** (1 / self.rho) for level in (sigma, last))
        shares = [i / (self.num_steps - 1) for i in range(1, self.num_steps - 1)]
        between = [((1 - s) * high + s * low) ** self.rho for s in shares]
        return [sigma, *(node.to(sigma.dtype) for node in between), last]


@contextlib.contextmanager
def without_dropout(denoiser: Any) -> Iterator[None]:
    """Put a module into evaluation mode; at the end its modes are as before."""
    modules = list(denoiser.modules()) if isinstance(denoiser, nn.Module) else []
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
