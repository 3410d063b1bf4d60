"""References that were computed from data sets, kept in the cache folder.

An entry is named after the content of the images, the detector and its weights, so it never goes
stale. Where nothing can be written, they are computed again each time.
"""

import dataclasses
import re
from pathlib import Path

from metrics.reference import Reference, array_names, load_reference, save_reference
from torch_utils.cache_folder import REFERENCES, cache_folder
from torch_utils.errors import UserError
from torch_utils.files import drop_temporaries
from torch_utils.notes import warn

_ABANDONED = 24 * 3600  # seconds after which a half-written entry counts as abandoned
_HASH_DIGITS = 12
_NAME_LENGTH = 40  # characters of a data set's name


def cached_reference(
    content_key: str, detector: str, weights_sha256: str, wants_features: bool
) -> Reference | None:
    """Look for a reference; a damaged one is left out with a warning.

    Args:
        content_key: name of the content of the images.
        detector: name of the detector.
        weights_sha256: hash of its weights; empty if it has none.
        wants_features: whether the features of every image are needed.

    Returns:
        The reference, without features if they are not wanted; None if it is not there.
    """
    try:
        paths = _entries(content_key, detector, weights_sha256)
    except UserError:
        return None  # storing warns
    for path in paths:
        try:
            if wants_features and "features" not in array_names(path):
                continue
            found = load_reference(path, detector, weights_sha256, wants_features)
        except UserError as error:
            warn(f"{error} (a reference in the cache: it is computed again)")
            continue
        return dataclasses.replace(found, name=found.source, sha256="")
    return None


def store_reference(content_key: str, reference: Reference) -> Path | None:
    """Keep a reference; a failure to do so is a warning.

    Args:
        content_key: name of the content of the images that it was computed from.
        reference: what to keep.

    Returns:
        The file; None if it could not be written.
    """
    identity = (content_key, reference.detector, reference.weights_sha256)
    try:
        name = re.sub(r"[^A-Za-z0-9._-]", "-", reference.source).lstrip(".")[:_NAME_LENGTH]
        path = cache_folder(REFERENCES) / f"{name or 'images'}{_suffix(*identity)}"
        present = _entries(*identity)  # of a copy with another name, damaged, or without features
        path = present[0] if present else path
        if present and reference.features is None and cached_reference(*identity, True):
            return path  # another process kept more meanwhile
        save_reference(path, dataclasses.replace(reference, content_key=content_key))
        drop_temporaries(path.parent, older_than=_ABANDONED)
    except UserError as error:
        warn(f"{error}: the reference is not kept, and is computed again next time")
        return None
    return path


def _entries(content_key: str, detector: str, weights_sha256: str) -> list[Path]:
    """The files of one content, detector and weights, whatever the data set was called."""
    suffix = _suffix(content_key, detector, weights_sha256)
    try:
        files = list(cache_folder(REFERENCES).iterdir())
    except OSError:
        return []
    return sorted(file for file in files if file.name.endswith(suffix) and file.name[0] != ".")


def _suffix(content_key: str, detector: str, weights_sha256: str) -> str:
    return f"-{content_key}-{detector}-{weights_sha256[:_HASH_DIGITS] or 'none'}.npz"
