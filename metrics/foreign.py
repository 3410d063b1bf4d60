"""References in every form in which they are published: files are told apart by their content."""

import dataclasses
import os
from pathlib import Path

from metrics.npz_images import IMAGES_KEY, NpzImages, is_npz
from metrics.pickled import read_npy, read_pkl
from metrics.reference import (
    Reference,
    array_names,
    is_published_for,
    load_reference,
    no_features,
)
from torch_utils.bounded import open_regular
from torch_utils.downloads import sha256_of
from torch_utils.errors import UserError
from torch_utils.shipped import shipped

_NPY, _ZIP, _PICKLE = b"\x93NUMPY", b"PK", b"\x80"
# how files begin that are given by mistake
_OTHERS = {
    b"<!doctype": "a web page, as failed downloads leave",
    b"<html": "a web page, as failed downloads leave",
    b"<?xml": "an answer of a server, as failed downloads leave",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
    b"\x89png": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x1f\x8b": "packed by gzip: unpack it",
    b"\x89hdf": "an HDF5 file",
}
_LONGEST = 64  # bytes of a beginning
_EXPECTED = (
    "a reference is statistics (.npz, .npy or .pkl), images in an .npz, or a data set (zip or "
    "folder)"
)


def open_reference(
    path: str | os.PathLike[str],
    detector: str,
    *,
    weights_sha256: str = "",
    wants_features: bool = False,
) -> Reference | NpzImages | None:
    """Open what images are compared with, whoever made it.

    Args:
        path: an .npz of ours or of EDM, or of guided-diffusion with statistics or images; SA-DPM's
            .npy; EDM2's .pkl; or a data set.
        detector: the detector that is about to be used.
        weights_sha256: hash of its weights; empty if it has none.
        wants_features: whether the features of every image are needed.

    Returns:
        Statistics; or images, of which they must be computed, together with statistics of the
        whole data set if the file has both; or None if it is a data set, a zip or folder.

    Raises:
        UserError: there is no such file, it is something else, or statistics that cannot be used
            with this detector.
    """
    place = shipped(path)
    if place.is_dir():
        return None
    if not place.is_file():
        raise UserError(f"no such reference file: {place}")
    start = _beginning(place)
    for known, what in _OTHERS.items():
        if start.lstrip().lower().startswith(known):
            raise UserError(f"{place} is {what}; {_EXPECTED}")
    suffix = place.suffix.lower()
    if start.startswith(_NPY) or suffix == ".npy":
        return _pickled(read_npy(place, detector), place, wants_features)
    if is_npz(place):
        return _in_npz(place, detector, weights_sha256, wants_features)
    if start.startswith(_ZIP):
        return None
    if start.startswith(_PICKLE) or suffix in (".pkl", ".pickle"):
        return _pickled(read_pkl(place, detector), place, wants_features)
    raise UserError(f"{place} is {'of no known kind' if start else 'empty'}; {_EXPECTED}")


def _beginning(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(_LONGEST)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _pickled(reference: Reference, path: Path, wants_features: bool) -> Reference:
    if wants_features:
        raise no_features(str(path))
    return dataclasses.replace(reference, sha256=sha256_of(path))


def _in_npz(
    path: Path, detector: str, weights_sha256: str, wants_features: bool
) -> Reference | NpzImages:
    """Statistics, or images if there are no statistics that this detector can be used with."""
    names = array_names(path)
    has_images = IMAGES_KEY in names
    has_statistics = {"mu", "sigma"} <= set(names)
    if has_images and "detector" not in names:
        has_statistics = has_statistics and is_published_for(detector)
    if has_images and not has_statistics:
        return NpzImages(path)
    has_features = "features" in names
    needs_images = wants_features and has_images and not has_features
    wanted = wants_features and not needs_images
    reference = load_reference(path, detector, weights_sha256, wanted)
    return NpzImages(path, reference.gaussian) if needs_images else reference
