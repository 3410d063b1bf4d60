"""Reference statistics as .npz files: images are compared with them.

Keys `mu` and `sigma` as in EDM's files (Karras et al., 2022), and `detector`, `weights_sha256`,
`num`, `source`, `content_key`, `image_shape` and `features`, which EDM's lack. Nothing in a file is
unpickled.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metrics.detectors import DETECTORS, Detector
from metrics.evaluate import Evaluation
from metrics.reference_checks import (
    checked_features,
    checked_gaussian,
    checked_hash,
    checked_shape,
)
from metrics.statistics import MAX_FEATURES, Gaussian
from torch_utils.downloads import sha256_of
from torch_utils.errors import UserError
from torch_utils.files import prepare_folder, writing
from torch_utils.npys import names_in, read_npz, write_npz
from torch_utils.text import printable, some
from torch_utils.zips import BAD_ZIP

PUBLISHED_DETECTOR = "inception"  # the detector of files without the key `detector`
MAX_BYTES = 2 * 8 * MAX_FEATURES**2  # of everything but the features
MAX_FEATURE_BYTES = 2**36  # four million images of 2,048 features in float64
_HEADER = 2**16  # of an array
_STATISTICS = (
    *("mu", "sigma", "detector", "weights_sha256", "num", "source", "content_key", "image_shape"),
)


@dataclass(frozen=True)
class Reference:
    """What is known of a data set.

    Attributes:
        gaussian: mean and covariance of its features.
        detector: the name of the detector that made the features.
        source: the name of the data set; empty if the file does not say.
        image_shape: (C, H, W) of its images; None if the file does not say.
        features: float32 [N, F] in the order of the images; None if they were not kept.
        weights_sha256: hash of the detector's weights; empty if it has none, or if the file does
            not say.
        name: what to call it: the name of the file, or of the images that it was computed from.
        sha256: hash of the file; empty if it was computed from images.
        content_key: name of the content of the images; empty if it is not known.
    """

    gaussian: Gaussian
    detector: str
    source: str
    image_shape: tuple[int, int, int] | None = None
    features: np.ndarray | None = None
    weights_sha256: str = ""
    name: str = ""
    sha256: str = ""
    content_key: str = ""

    @property
    def num(self) -> int | None:
        """Images that it was computed from; None if the file does not say."""
        return self.gaussian.num


def is_published_for(detector: str) -> bool:
    """Whether files that do not name their detector are for this one: some form of Inception."""
    return detector in DETECTORS and DETECTORS[detector].is_fid


def no_features(name: str) -> UserError:
    """The error for statistics where the features of every image are needed."""
    return UserError(
        f"{name} holds mean and covariance only, but kid and pr need features: give the data set "
        "itself (--ref=DATA.zip), or make the reference with fid.py ref --features"
    )


def reference_of(
    evaluation: Evaluation,
    detector: Detector,
    source: str,
    image_shape: tuple[int, int, int],
    content_key: str = "",
) -> Reference:
    """A reference from what a detector saw of all images of a data set.

    Args:
        evaluation: of all processes; its features become part of the reference.
        detector: which saw it.
        source: the name of the data set.
        image_shape: (C, H, W).
        content_key: name of the content of its images, if it is known.

    Raises:
        UserError: fewer than two images.
    """
    features = evaluation.features
    return Reference(
        evaluation.statistics.finalize(),
        detector.name,
        source,
        image_shape,
        None if features is None else features.astype(np.float32, copy=False),
        detector.weights_sha256,
        name=source,
        content_key=content_key,
    )


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
        "mu": reference.gaussian.mu.astype(np.float64, copy=False),
        "sigma": reference.gaussian.sigma.astype(np.float64, copy=False),
        "detector": np.array(reference.detector),
        "source": np.array(reference.source),
    }
    if reference.gaussian.num is not None:
        values["num"] = np.array(reference.gaussian.num, dtype=np.int64)
    if reference.image_shape is not None:
        values["image_shape"] = np.array(reference.image_shape, dtype=np.int64)
    for key in ("weights_sha256", "content_key"):
        if text := getattr(reference, key):
            values[key] = np.array(text)
    if reference.features is not None:
        values["features"] = reference.features.astype(np.float32, copy=False)
    with writing(path):
        write_npz(path, values)


def load_reference(
    path: str | os.PathLike[str],
    detector: str,
    weights_sha256: str = "",
    wants_features: bool = False,
) -> Reference:
    """Read a reference for features of one detector.

    Args:
        path: the .npz file.
        detector: the detector that is about to be used.
        weights_sha256: hash of its weights; empty if it has none.
        wants_features: whether the features of every image are needed.

    Returns:
        The reference, its values checked; without features if they are not wanted.

    Raises:
        UserError: the file does not exist or is not an .npz; keys are missing, shapes wrong, values
            not finite, or sigma is not a covariance; it was made with another detector or other
            weights; or it has no features. A file that does not name its detector counts as
            Inception's.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise UserError(f"no such reference file: {name}")
    values = _read(name, _STATISTICS, MAX_BYTES)
    missing = [key for key in ("mu", "sigma") if key not in values]
    if missing:
        raise UserError(
            f"{name} is not a reference: it has no {' and no '.join(missing)}, only "
            f"{some([printable(key)[:40] for key in array_names(name)]) or 'nothing'}"
        )
    _check_detector(name, values, detector)
    made_with = checked_hash(name, values.get("weights_sha256"))
    if made_with and weights_sha256 and made_with != weights_sha256:
        raise UserError(
            f"{name} was made with {detector} weights of SHA-256 {made_with[:12]}..., in use are "
            f"{weights_sha256[:12]}...: their numbers cannot be compared; use the same weights "
            "(--weights), or make another reference with fid.py ref"
        )
    gaussian = checked_gaussian(name, values)
    shape = checked_shape(name, values.get("image_shape"))
    return Reference(
        gaussian,
        detector,
        str(values.get("source", "")),
        shape,
        _features(name, gaussian) if wants_features else None,
        made_with,
        printable(Path(path).name),
        sha256_of(Path(path)),
        str(values.get("content_key", "")),
    )


def _check_detector(name: str, values: dict[str, np.ndarray], detector: str) -> None:
    if "detector" not in values:
        if is_published_for(detector):
            return
        raise UserError(
            f"{name} does not say its detector, so it is one of {PUBLISHED_DETECTOR} features, "
            f"not {detector}: make one with fid.py ref --detector={detector}"
        )
    made_with = str(values["detector"])
    if made_with != detector:
        raise UserError(
            f"{name} was made with detector {made_with!r}, not {detector!r}: "
            f"use --detector={made_with} or make another reference"
        )


def _features(name: str, gaussian: Gaussian) -> np.ndarray:
    """Read the features, which statistics say how many there are of."""
    if "features" not in array_names(name):
        raise no_features(name)
    if gaussian.num is None:
        raise UserError(f"{name} is not a reference: it has features, but not their num")
    size = gaussian.num * len(gaussian.mu) * np.dtype(np.float64).itemsize
    values = _read(name, ("features",), min(size, MAX_FEATURE_BYTES) + _HEADER)
    return checked_features(name, values["features"], gaussian)


def array_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of the arrays in an .npz.

    Raises:
        UserError: it is damaged or not an .npz.
    """
    try:
        return names_in(path)
    except UserError:
        raise
    except BAD_ZIP as error:
        raise UserError(f"{os.fspath(path)} is damaged or not an .npz file") from error


def _read(name: str, wanted: Collection[str], limit: int) -> dict[str, np.ndarray]:
    """Arrays of an .npz file, without unpickling and within a bound of memory."""
    try:
        return read_npz(name, wanted, limit)
    except UserError:
        raise
    except (*BAD_ZIP, TypeError) as error:
        raise UserError(f"{name} is damaged or not an .npz file") from error
