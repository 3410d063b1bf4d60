"""What a network may predict, and how D follows from it: c_skip x + sum of c_out F.

Karras et al. 2022 ("EDM"), Table 1: edm, eps and neg_eps. Salimans and Ho 2022, sec. 4 and
Appendix D: v, x0 and x0_eps. Lipman et al. 2023: flow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Parts = tuple[Tensor, ...]


@dataclass(frozen=True)
class Output:
    """What the network predicts: one image, or several whose weighted sum gives D.

    Attributes:
        coefficients: (sigma, sigma_data) -> (c_skip, one c_out for each predicted image).
        target: (y, n, sigma, sigma_data) -> F*, the exact values for clean y and unit noise n,
            so that c_skip x + sum c_out F* = y.
        num_parts: how many images the network predicts, one after the other in its channels.
    """

    coefficients: Callable[[Tensor, float], tuple[Tensor, Parts]]
    target: Callable[[Tensor, Tensor, Tensor, float], Parts]
    num_parts: int = 1


def _edm_coefficients(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Parts]:
    variance = sigma.square() + sigma_data**2
    return sigma_data**2 / variance, (sigma * sigma_data / variance.sqrt(),)


def _edm_target(y: Tensor, n: Tensor, sigma: Tensor, sigma_data: float) -> Parts:
    return ((sigma * y / sigma_data - sigma_data * n) / (sigma.square() + sigma_data**2).sqrt(),)


def _both_coefficients(sigma: Tensor, _: float) -> tuple[Tensor, Parts]:
    kept = 1 / (1 + sigma.square())
    return kept, (sigma.square() * kept, -sigma * kept)


OUTPUTS = {
    "edm": Output(_edm_coefficients, _edm_target),
    "eps": Output(
        lambda sigma, _: (torch.ones_like(sigma), (-sigma,)),
        lambda y, n, sigma, _: (n,),
    ),
    # sigma times the score: the noise with its sign turned
    "neg_eps": Output(
        lambda sigma, _: (torch.ones_like(sigma), (sigma,)),
        lambda y, n, sigma, _: (-n,),
    ),
    "score": Output(
        lambda sigma, _: (torch.ones_like(sigma), (sigma.square(),)),
        lambda y, n, sigma, _: (-n / sigma,),
    ),
    "x0": Output(
        lambda sigma, _: (torch.zeros_like(sigma), (torch.ones_like(sigma),)),
        lambda y, n, sigma, _: (y,),
    ),
    "v": Output(
        lambda sigma, _: (1 / (1 + sigma.square()), (-sigma / (1 + sigma.square()).sqrt(),)),
        lambda y, n, sigma, _: ((n - sigma * y) / (1 + sigma.square()).sqrt(),),
    ),
    "flow": Output(
        lambda sigma, _: (1 / (1 + sigma), (-sigma / (1 + sigma),)),
        lambda y, n, sigma, _: (n - y,),
    ),
    # two estimates of y: that of eps has the larger weight below sigma = 1, that of x0 above
    "x0_eps": Output(_both_coefficients, lambda y, n, sigma, _: (y, n), num_parts=2),
}
