"""Weightings w(sigma) in E[w(sigma) |D - y|^2]; they do not depend on what the network predicts."""

from collections.abc import Callable

from torch import Tensor

from torch_utils.errors import UserError

Weight = Callable[[Tensor], Tensor]


def edm(sigma_data: float = 0.5) -> Weight:
    """EDM's weighting, which makes the effective weight of every noise level one at the start.

    (sigma^2 + sigma_data^2) / (sigma sigma_data)^2. Karras et al. 2022, Table 1.

    Raises:
        UserError: sigma_data is not positive.
    """
    if not sigma_data > 0:
        raise UserError(f"weight edm: sigma_data is {sigma_data}: it must be positive")
    return lambda sigma: (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


def snr() -> Weight:
    """The signal-to-noise ratio, 1 / sigma^2: equal weight of the error in predicted noise.

    Ho et al. 2020 ("DDPM"), Eq. 14; Karras et al. 2022, Table 1, columns VP and VE.
    """
    return lambda sigma: 1 / sigma.square()
