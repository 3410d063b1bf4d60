"""Rules for numpy in a pickle: arrays, scalars and dtypes of plain numbers, from their bytes.

Rules of their own also read what `np.save` makes of a dict: an array without axes that holds it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from torch_utils.pickle_rules import Refused, Rule, Token, brief

_TYPES = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
_MAX_DIMENSIONS = 32


@dataclass
class Dtype:
    """A numpy dtype in a pickle, whose byte order may follow it."""

    numpy: np.dtype[Any]


def _dtype(spec: Any, align: Any = False, copy: Any = True) -> Dtype:
    if not isinstance(spec, str) or spec.lstrip("<>|=") not in _TYPES:
        raise Refused(f"it has the numpy type {brief(spec)}")
    return Dtype(np.dtype(spec))


def _dtype_state(dtype: Dtype, state: Any) -> None:
    _, order, subtype, names, fields, *_ = state
    if subtype is not None or names is not None or fields is not None:
        raise Refused("it has a numpy type with fields")
    if order not in ("<", ">", "|", "="):
        raise Refused(f"it has the byte order {brief(order)}")
    dtype.numpy = dtype.numpy.newbyteorder(order)


def _plain(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, Dtype):
        raise Refused("it has an array without a type")
    if dtype.numpy.hasobject:
        raise Refused("it has objects as bytes")
    return dtype.numpy


def _raw(content: Any) -> bytes:
    """The bytes of an array; Python 2 wrote them as a string."""
    if isinstance(content, str):
        return content.encode("latin-1")
    if not isinstance(content, bytes | bytearray):
        raise Refused("it has an array of objects")
    return bytes(content)


def _shape(shape: Any, dtype: np.dtype[Any], num_bytes: int) -> tuple[int, ...]:
    is_shape = isinstance(shape, tuple) and len(shape) <= _MAX_DIMENSIONS
    if not is_shape or not all(type(size) is int and 0 <= size < 2**48 for size in shape):
        raise Refused("it has an array whose shape is invalid")
    if math.prod(shape) * dtype.itemsize != num_bytes:
        raise Refused(f"it has {num_bytes} bytes for an array of shape {shape}")
    return tuple(shape)


def _empty_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    if kind != Token("numpy ndarray"):
        raise Refused("it has an array of another class than ndarray")
    return np.empty(0, np.uint8)


def _array_state(array: np.ndarray, state: Any) -> None:
    version, shape, dtype, is_fortran, content = state
    if version != 1 or not isinstance(is_fortran, bool | int):
        raise Refused("it has an array of an unknown version")
    plain, raw = _plain(dtype), _raw(content)
    checked: Any = (1, _shape(shape, plain, len(raw)), plain, bool(is_fortran), raw)
    array.__setstate__(checked)


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    plain, raw = _plain(dtype), _raw(content)
    if order not in ("C", "F"):
        raise Refused(f"it has an array in the order {brief(order)}")
    shape = _shape(shape, plain, len(raw))
    return np.frombuffer(raw, plain).reshape(shape, order=order).copy(order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    plain, raw = _plain(dtype), _raw(content)
    _shape((), plain, len(raw))
    return np.frombuffer(raw, plain)[0]


NUMPY_RULES: Mapping[str, Rule] = {
    "numpy ndarray": Rule(),
    "numpy dtype": Rule(_dtype, _dtype_state),
    **{
        f"numpy.{core}.{module} {name}": rule
        for core in ("core", "_core")  # before and since numpy 2
        for module, name, rule in (
            ("multiarray", "_reconstruct", Rule(_empty_array, _array_state)),
            ("multiarray", "scalar", Rule(_scalar)),
            ("numeric", "_frombuffer", Rule(_array)),
        )
    },
}

_OBJECT_TYPES = frozenset(["O4", "O8"])  # by the size of a pointer


def _any_dtype(spec: Any, align: Any = False, copy: Any = True) -> Dtype:
    if isinstance(spec, str) and spec.lstrip("|") in _OBJECT_TYPES:
        return Dtype(np.dtype(object))
    return _dtype(spec, align, copy)


def _any_array_state(array: np.ndarray, state: Any) -> None:
    version, shape, dtype, _, content = state
    if array.dtype.hasobject:
        raise Refused("it fills an array twice")
    if not isinstance(dtype, Dtype) or dtype.numpy != np.dtype(object):
        _array_state(array, state)
        return
    if version != 1 or shape != () or not isinstance(content, list) or len(content) != 1:
        raise Refused("it has an array of several objects")
    checked: Any = (1, (), dtype.numpy, False, content)
    array.__setstate__(checked)


# as NUMPY_RULES, and an array without axes may hold one object
BOXED_RULES: Mapping[str, Rule] = {
    **NUMPY_RULES,
    "numpy dtype": Rule(_any_dtype, _dtype_state),
    **{
        f"numpy.{core}.multiarray _reconstruct": Rule(_empty_array, _any_array_state)
        for core in ("core", "_core")
    },
}
