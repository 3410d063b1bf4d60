"""Statistics that others keep as pickles: EDM2's .pkl and SA-DPM's .npy, without running any code.

EDM2 (Karras et al., 2024) keeps those of several detectors in one file, `{"fid": {"mu", "sigma"},
"fd_dinov2": {"mu", "sigma"}}`. SA-DPM keeps one dict `{"mu", "sigma"}`, which `np.save` wrote as an
array without axes that holds it.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np

from metrics.reference import PUBLISHED_DETECTOR, Reference, is_published_for
from metrics.reference_checks import checked_gaussian
from torch_utils.bounded import read_file
from torch_utils.errors import UserError
from torch_utils.npys import read_header
from torch_utils.pickle_numpy import BOXED_RULES
from torch_utils.safe_pickle import BASIC_RULES, Limits, read_pickle
from torch_utils.text import printable, some

MAX_BYTES = 2**28  # a covariance of 2,048 features has 32 MiB
_LIMITS = Limits(bytes=MAX_BYTES, string=MAX_BYTES, items=10_000, depth=8)
_RULES = {**BASIC_RULES, **BOXED_RULES}
# key in a file of several -> detector
_KEYS = {"fid": PUBLISHED_DETECTOR, "fd_dinov2": "dinov2"}
_EXPECTED = "expected a dict with mu and sigma, or with fid or fd_dinov2 that hold them"


def read_pkl(path: Path, detector: str) -> Reference:
    """Read statistics from a pickle, as EDM2 publishes them.

    Args:
        path: the .pkl.
        detector: the detector that is about to be used.

    Raises:
        UserError: the file cannot be read, is damaged or asks for something to be run; it holds
            something else, or statistics of other detectors; or they are not sound.
    """
    content = read_file(path, MAX_BYTES)
    return _reference(path, _unpickled(io.BytesIO(content), str(path)), detector)


def read_npy(path: Path, detector: str) -> Reference:
    """Read statistics from a dict that `np.save` wrote, as SA-DPM keeps them.

    Args and raises: as `read_pkl`.
    """
    stream = io.BytesIO(read_file(path, MAX_BYTES))
    try:
        shape, _, dtype = read_header(stream, "biufcSUOVMm")
    except ValueError as error:
        raise UserError(f"{path} is damaged or not a .npy file: {error}") from None
    if not dtype.hasobject or shape != ():
        what = "objects" if dtype.hasobject else str(dtype)
        raise UserError(f"{path} is an array of {what} of shape {shape}: {_EXPECTED}")
    box = _unpickled(stream, str(path))
    if not isinstance(box, np.ndarray) or box.shape != () or not box.dtype.hasobject:
        raise UserError(f"{path} is damaged: its content is not what its header says")
    return _reference(path, box.item(), detector)


def _unpickled(stream: io.BytesIO, name: str) -> Any:
    tree = read_pickle(stream, name, rules=_RULES, limits=_LIMITS)
    if stream.read(1):
        raise UserError(f"{name} is not a sound pickle: something follows it")
    return tree


def _reference(path: Path, tree: Any, detector: str) -> Reference:
    """The statistics of a detector in what was read."""
    name = str(path)
    values = _values(name, tree, detector)
    arrays = {key: values[key] for key in ("mu", "sigma")}
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UserError(f"{name} has a {key} of type {type(array).__name__}: {_EXPECTED}")
    return Reference(checked_gaussian(name, arrays), detector, "", name=path.name)


def _values(name: str, tree: Any, detector: str) -> dict[Any, Any]:
    """The dict with mu and sigma."""
    if not isinstance(tree, dict):
        raise UserError(f"{name} holds a {type(tree).__name__}: {_EXPECTED}")
    made_with = {_KEYS[key]: tree[key] for key in _KEYS if key in tree}
    if not made_with:
        made_with = {PUBLISHED_DETECTOR: tree}
    values = next((made_with[each] for each in made_with if _is_for(each, detector)), None)
    if values is None:
        raise UserError(
            f"{name} holds statistics of {' and '.join(made_with)} features, not of {detector}: "
            f"use --detector={next(iter(made_with))}, or make a reference with fid.py ref"
        )
    if not isinstance(values, dict) or not {"mu", "sigma"} <= set(values):
        held = values if isinstance(values, dict) else tree
        raise UserError(f"{name} is a dict of {_named(held)}: {_EXPECTED}")
    return values


def _is_for(made_with: str, detector: str) -> bool:
    return made_with == detector or (made_with == PUBLISHED_DETECTOR and is_published_for(detector))


def _named(values: dict[Any, Any]) -> str:
    return some([printable(key)[:40] for key in values], 5) or "nothing"
