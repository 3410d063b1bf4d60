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

from diffusion.denoiser import Points, joined
from diffusion.preconditioning import broadcast_sigma
from diffusion.schedules import Schedule
from diffusion.steps import posterior_mean, slope, variance_small
from losses.batch import Batch, Generators, Model, NoisedBatch
from losses.levels import NoiseLevel
from losses.terms import Term
from torch_utils.errors import UserError

# (denoise, x, sigma, sigma_next, unit noise) -> x_next, levels as [N, 1, 1, 1]
Transition = Callable[[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor, Tensor, Tensor], Tensor]


def euler_maruyama(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    noise: Tensor,
) -> Tensor:
    """One step of dx = 2 f dsigma + sqrt(2 sigma) dW, f = (x - D)/sigma, coefficients frozen.

    The reverse SDE that has the exact marginals, with sigma as time; the published step.
    """
    change = sigma_next - sigma
    drift = 2 * change * slope(x, denoise(x, sigma), sigma)
    return x + drift + (2 * change.abs() * sigma).sqrt() * noise


def posterior(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    noise: Tensor,
) -> Tensor:
    """One step of x_next given x and y = D. Ho et al. 2020 ("DDPM"), Eq. 6 and 7."""
    mean = posterior_mean(x, denoise(x, sigma), sigma, sigma_next)
    return mean + variance_small(sigma, sigma_next).clamp(min=0).sqrt() * noise


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
    def create(
        cls, options: Mapping[str, Any], level: NoiseLevel, schedule: Schedule | None
    ) -> Self:
        """Make the term.

        Raises:
            UserError: an empty window.
        """
        if not options["epsilon_min"] < options["epsilon_max"]:
            raise UserError(
                f"loss term consistency: epsilon_min={options['epsilon_min']:g} must be below"
                f" epsilon_max={options['epsilon_max']:g}"
            )
        return cls(**{**options, "step": STEPS[options["step"]]})

    def size(self, num: int) -> int:
        """How many samples of a batch are rolled out, at least one."""
        return max(1, round(self.batch_fraction * num))

    def draw(self, generators: Generators, batch: Batch) -> dict[str, Tensor]:
        """A uniform for each sample's window, and the rollouts' noises [steps, 2n, C, H, W]."""
        num, micro = self.size(len(batch.images)), generators.micro
        shape = (self.num_steps - 1, 2 * num, *batch.images.shape[1:])
        return {
            "window": torch.rand(num, generator=micro, device=micro.device),
            "noise": torch.randn(shape, generator=micro, device=micro.device),
        }

    def ahead(self, x: Tensor, sigma: Tensor, model: Model, draws: Mapping[str, Tensor]) -> Points:
        """Follow both rollouts and return where they end, first all first ones: 2n points."""
        num = len(draws["window"])
        single = {key: None if v is None else v[:num] for key, v in model.conditions.items()}
        double = joined(single, single)
        followed = model.denoiser if self.rollout == "online" else model.rollout

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return followed(x, sigma.flatten(), **double)

        def denoise_start(x: Tensor, sigma: Tensor) -> Tensor:
            # both copies are still the same: one evaluation serves them
            return torch.cat([followed(x[:num], sigma[:num].flatten(), **single)] * 2)

        nodes = self.nodes(sigma[:num], draws["window"])
        state = torch.cat([x[:num], x[:num]]).detach()
        levels = [broadcast_sigma(torch.cat([node, node]), x) for node in nodes]
        with torch.no_grad(), without_dropout(followed):
            for i, (level, level_next) in enumerate(pairwise(levels)):
                estimate = denoise if i else denoise_start
                state = self.step(estimate, state, level, level_next, draws["noise"][i])
        # older PyTorch's autocast would serve the casts of weights made here, without gradient
        torch.clear_autocast_cache()
        return Points(state, torch.cat([nodes[-1], nodes[-1]]), double)

    def __call__(self, noised: NoisedBatch, model: Model, draws: Mapping[str, Tensor]) -> Tensor:
        """Values per element of the rolled out samples, [n, C, H, W]; without w(sigma)."""
        num, ends = len(draws["window"]), model.ahead["consistency"]
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
    """Put a module into evaluation mode for a while."""
    modules = list(denoiser.modules()) if isinstance(denoiser, nn.Module) else []
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
