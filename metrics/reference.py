"""Reference statistics as .npz files: images are compared with them.

Keys `mu` and `sigma` as in EDM's files (Karras et al., 2022), and `detector`, `num`, `source`,
`image_shape`, which EDM's lack. Nothing in a file is ever unpickled.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metrics.statistics import MAX_FEATURES, Gaussian, is_covariance
from torch_utils.errors import UserError
from torch_utils.files import prepare_folder, replacing, writing
from torch_utils.npys import read_npz
from torch_utils.zips import BAD_ZIP

PUBLISHED_DETECTOR = "inception"  # the detector of files without the key `detector`
MAX_BYTES = 2 * 8 * MAX_FEATURES**2
_STRIPE = 256  # rows that are compared at once


@dataclass(frozen=True)
class Reference:
    """Statistics of a data set.

    Attributes:
        gaussian: mean and covariance of its features.
        detector: the name of the detector that made the features.
        source: the name of the data set; empty if the file does not say.
        image_shape: (C, H, W) of its images; None if the file does not say.
    """

    gaussian: Gaussian
    detector: str
    source: str
    image_shape: tuple[int, int, int] | None = None


def check_destination(path: str | os.PathLike[str]) -> None:
    """Make the folders of a path, and check before the work that it can be written.

    Raises:
        UserError: its name does not end in .npz, it is a folder, or its folder cannot be written.
    """
    if Path(path).suffix != ".npz" or Path(path).is_dir():
        raise UserError(f"a reference is a file named *.npz, not {os.fspath(path)!r}")
    prepare_folder(Path(path).absolute().parent)


def save_reference(path: str | os.PathLike[str], reference: Reference) -> None:
    """Write a reference, whole or not at all; parent folders are made.

    Args:
        path: the .npz to write.
        reference: what to write.

    Raises:
        UserError: the path does not end in .npz, or cannot be written.
    """
    check_destination(path)
    values = {
        "mu": reference.gaussian.mu.astype(np.float64),
        "sigma": reference.gaussian.sigma.astype(np.float64),
        "detector": np.array(reference.detector),
        "source": np.array(reference.source),
    }
    if reference.gaussian.num is not None:
        values["num"] = np.array(reference.gaussian.num, dtype=np.int64)
    if reference.image_shape is not None:
        values["image_shape"] = np.array(reference.image_shape, dtype=np.int64)
    with writing(path), replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **values)


def load_reference(path: str | os.PathLike[str], detector: str) -> Reference:
    """Read a reference for features of one detector.

    Args:
        path: the .npz file.
        detector: the detector that is about to be used.

    Returns:
        The reference, its values checked.

    Raises:
        UserError: the file does not exist or is not an .npz; keys are missing, shapes wrong, values
            not finite, or sigma is not a covariance; or it was made with another detector. A file
            that does not name its detector counts as Inception's.
    """
    name = os.fspath(path)
    values = _read(name)
    missing = [key for key in ("mu", "sigma") if key not in values]
    if missing:
        raise UserError(f"{name} is not a reference: it has no {' and no '.join(missing)}")
    if "detector" not in values and detector != PUBLISHED_DETECTOR:
        raise UserError(
            f"{name} does not say its detector, so it is one of {PUBLISHED_DETECTOR} features, "
            f"not {detector}: make one with fid.py ref --detector={detector}"
        )
    made_with = str(values.get("detector", PUBLISHED_DETECTOR))
    if made_with != detector:
        raise UserError(
            f"{name} was made with detector {made_with!r}, not {detector!r}: "
            f"use --detector={made_with} or make another reference"
        )
    gaussian = _gaussian(name, values)
    shape = _image_shape(name, values.get("image_shape"))
    return Reference(gaussian, detector, str(values.get("source", "")), shape)


def _image_shape(name: str, value: np.ndarray | None) -> tuple[int, int, int] | None:
    """Check the shape of the images, if it is there."""
    if value is None:
        return None
    if value.shape != (3,) or value.dtype.kind not in "iu" or not (value > 0).all():
        raise UserError(f"{name} is not a reference: image_shape must be three positive integers")
    channels, height, width = map(int, value)
    return channels, height, width


def _read(name: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, without unpickling and within a bound of memory."""
    if not os.path.isfile(name):
        raise UserError(f"no such reference file: {name}")
    try:
        wanted = ("mu", "sigma", "detector", "num", "source", "image_shape")
        return read_npz(name, wanted, MAX_BYTES)
    except UserError:
        raise
    except (*BAD_ZIP, TypeError) as error:
        raise UserError(f"{name} is damaged or not an .npz file") from error


def _gaussian(name: str, values: dict[str, np.ndarray]) -> Gaussian:
    """Check mean and covariance."""
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


def _is_symmetric(sigma: np.ndarray) -> bool:
    """Whether a matrix is its own transpose; by stripes, because a comparison makes copies."""
    tolerance = 1e-7 * max(sigma.max(), -sigma.min())
    stripes = (slice(start, start + _STRIPE) for start in range(0, len(sigma), _STRIPE))
    return all(
        np.allclose(sigma[stripe], sigma[:, stripe].T, rtol=1e-5, atol=tolerance)
        for stripe in stripes
    )
