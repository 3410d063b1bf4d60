"""Averages of any length after training: power functions of the progress, fitted by stored ones.

Karras et al. 2024 ("EDM2"), section 3 and its appendix. The average of length sigma_rel after t
images weighs the weights at tau images by p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1). Any
average is nearly a weighted sum of others, as their profiles p say. Nothing here reads files.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from torch_utils.errors import UserError

LENGTHS = (0.05, 0.10)  # of the stored averages, if nothing else is said
POWER = "power"  # the kind of such an average
MIN_LENGTH, MAX_LENGTH = 0.001, 0.28  # up to 0.2887, where gamma is 0, old weights count less
POOR_FIT = 0.03  # relative residual of a profile from which on a fit is called poor
_SMALLEST = 1e-13  # relative singular values below are rounding errors

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """How an average weighs the weights of a run.

    Attributes:
        length: sigma_rel, the standard deviation of the profile as a fraction of the progress.
        images: t, the progress at which the average was taken.
    """

    length: float
    images: float


@dataclass(frozen=True)
class Fit:
    """A profile as a sum of others.

    Attributes:
        coefficients: of the others; their sum is 1.
        residual: norm of what is missing, relative to that of the profile.
    """

    coefficients: tuple[float, ...]
    residual: float

    @property
    def is_poor(self) -> bool:
        """Whether the sum is hardly the average that was asked for."""
        return self.residual > POOR_FIT


def checked_length(length: float) -> float:
    """A length for which there is an average.

    Raises:
        UserError: it is too short or too long.
    """
    if not MIN_LENGTH <= length <= MAX_LENGTH:
        raise UserError(
            f"the length of an average is {length:g}: it must be from {MIN_LENGTH} to {MAX_LENGTH} "
            "of the images seen"
        )
    return length


def checked_lengths(lengths: tuple[float, ...]) -> tuple[float, ...]:
    """The lengths of stored averages, each with a name of its own.

    Raises:
        UserError: as `checked_length`, or two of them would be in one file.
    """
    names = [length_name(checked_length(length)) for length in lengths]
    if any(float(name) != length for name, length in zip(names, lengths, strict=True)):
        raise UserError("give lengths of averages with no more than three decimals, like 0.125")
    if len({*names}) < len(names):
        raise UserError(f"give every length of an average once, not {', '.join(names)}")
    return lengths


def length_name(length: float) -> str:
    """What a file name says of a length: 0.05 is 0.050."""
    return f"{length:.3f}"


def power_average(length: float) -> dict[str, Any]:
    """What the description of a snapshot says of an average that training kept."""
    return {"kind": POWER, "sigma_rel": length, "gamma": gamma_of(length)}


@functools.cache
def gamma_of(length: float) -> float:
    """The exponent of the power function of a length sigma_rel, in [0.001, 0.28].

    It is the largest root of (gamma + 2)^2 (gamma + 3) = (gamma + 1) / sigma_rel^2.
    """
    inverse = length**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(roots.real.max())


def power_decay(length: float, *, seen: int, batch: int) -> float:
    """The share that an average of a length keeps of itself in one update.

    Args:
        length: sigma_rel.
        seen: images seen before this step.
        batch: images in this step.

    Returns:
        beta in average = weights + beta (average - weights); 0 in the first step. The weights
        after a step then count as their profile does over the images of the step, exactly.
    """
    return float((seen / (seen + batch)) ** (gamma_of(length) + 1))


def fit(target: Profile, stored: Sequence[Profile]) -> Fit:
    """The sum of stored profiles that is closest to a profile in the mean square.

    Args:
        target: the profile that is wanted.
        stored: one or more.
    """
    products = inner_products([*stored, target])
    inner, with_target, own = products[:-1, :-1], products[:-1, -1], products[-1, -1]
    size = np.sqrt(np.diag(inner))  # profiles of unit norm have the smallest rounding errors
    inverse = np.linalg.pinv(inner / np.outer(size, size), rcond=_SMALLEST, hermitian=True)
    best = inverse @ (with_target / size) / size
    ones = inverse @ (1 / size) / size  # the direction that changes the sum at the least cost
    coefficients = best + ones * (1 - best.sum()) / ones.sum()
    missing = own - 2 * coefficients @ with_target + coefficients @ inner @ coefficients
    return Fit(tuple(coefficients.tolist()), float(np.sqrt(max(missing, 0.0) / own)))


def inner_products(profiles: Sequence[Profile]) -> Array:
    """Integrals over tau of the products of profiles, times the images of the last one, [N, N].

    For exponents a and b and s = min(t_a, t_b), the integral is
    (a + 1)(b + 1) / (a + b + 1) * s^(a + b + 1) / (t_a^(a + 1) t_b^(b + 1)).
    """
    gammas = {length: gamma_of(length) for length in {entry.length for entry in profiles}}
    a = np.array([gammas[entry.length] for entry in profiles])[:, None]
    time_a = np.array([entry.images / profiles[-1].images for entry in profiles])[:, None]
    b, time_b = a.T, time_a.T
    common = np.minimum(time_a, time_b)
    factor = (a + 1) * (b + 1) / (a + b + 1)
    shares = (common / time_a) ** a * (common / time_b) ** b  # not above 1: nothing overflows
    products: Array = factor * shares * common / (time_a * time_b)
    return products
