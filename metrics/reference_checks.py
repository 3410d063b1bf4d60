"""Whether what a file says of a data set can be true: its statistics, features, shape and hash.

Strangers write such files; what cannot be computed with is refused in one line.
"""

import re

import numpy as np

from metrics.statistics import Gaussian, is_covariance
from torch_utils.errors import UserError

_STRIPE = 256  # rows that are compared at once
_SHA256 = re.compile("[0-9a-f]{64}")


def checked_gaussian(name: str, values: dict[str, np.ndarray]) -> Gaussian:
    """Mean and covariance from the arrays `mu` and `sigma` and, if it is there, `num`.

    Raises:
        UserError: shapes or types are wrong, values not finite, or sigma is not a covariance.
    """
    mu, sigma = values["mu"], values["sigma"]
    if mu.ndim != 1 or not len(mu) or sigma.shape != (len(mu), len(mu)):
        raise UserError(
            f"{name} is not a reference: mu has shape {mu.shape} and sigma {sigma.shape}, "
            "expected (F,) and (F, F)"
        )
    if mu.dtype.kind != "f" or sigma.dtype.kind != "f":
        raise UserError(f"{name} is not a reference: mu and sigma must be floating point")
    mu, sigma = mu.astype(np.float64), sigma.astype(np.float64, copy=False)
    if not (np.isfinite(mu).all() and np.isfinite([sigma.min(), sigma.max()]).all()):
        raise UserError(f"{name} holds values that are not finite: make it again")
    if not _is_symmetric(sigma):
        raise UserError(f"{name} is not a reference: sigma is not symmetric")
    if not is_covariance(sigma):
        raise UserError(
            f"{name} is damaged: sigma is not a covariance, as it is not positive semidefinite; "
            "make it again"
        )
    num = values.get("num")
    if num is not None and (num.shape != () or num.dtype.kind not in "iu" or num < 2):
        raise UserError(f"{name} is not a reference: num must be an integer from 2 on")
    return Gaussian(mu, sigma, None if num is None else int(num))


def checked_features(name: str, features: np.ndarray, gaussian: Gaussian) -> np.ndarray:
    """The features of the images that statistics were made of, float32 [N, F], not read-only.

    Raises:
        UserError: the shape or type is wrong, or a value is not finite.
    """
    expected = (gaussian.num, len(gaussian.mu))
    if features.dtype.kind != "f" or features.shape != expected:
        raise UserError(
            f"{name} is not a reference: features are {features.dtype} of shape {features.shape}, "
            f"expected float32 of shape {expected}, as num and mu say"
        )
    if not np.isfinite([features.min(), features.max()]).all():
        raise UserError(f"{name} holds features that are not finite: make it again")
    return np.array(features, dtype=np.float32)


def checked_hash(name: str, value: np.ndarray | None) -> str:
    """The SHA-256 of a detector's weights; empty if it is not there.

    Raises:
        UserError: it is something else.
    """
    found = "" if value is None else str(value)
    if found and not _SHA256.fullmatch(found):
        raise UserError(f"{name} is not a reference: weights_sha256 must be 64 hexadecimal digits")
    return found


def checked_shape(name: str, value: np.ndarray | None) -> tuple[int, int, int] | None:
    """The shape (C, H, W) of the images, if it is there.

    Raises:
        UserError: it is something else.
    """
    if value is None:
        return None
    if value.shape != (3,) or value.dtype.kind not in "iu" or not (value > 0).all():
        raise UserError(f"{name} is not a reference: image_shape must be three positive integers")
    channels, height, width = map(int, value)
    return channels, height, width


def _is_symmetric(sigma: np.ndarray) -> bool:
    """Whether a matrix is its own transpose; by stripes, because a comparison makes copies."""
    tolerance = 1e-7 * max(sigma.max(), -sigma.min())
    stripes = (slice(start, start + _STRIPE) for start in range(0, len(sigma), _STRIPE))
    return all(
        np.allclose(sigma[stripe], sigma[:, stripe].T, rtol=1e-5, atol=tolerance)
        for stripe in stripes
    )
