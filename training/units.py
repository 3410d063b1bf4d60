"""Durations and intervals: numbers of images, written with a suffix.

`600it` is 600 steps, `20ep` twenty passes over the data, `200M` and `50k` millions and thousands
of images, `1000img` just images. A bare number means what it means in EDM.
"""

import re

from torch_utils.errors import UserError

_UNITS = {"img": 1, "k": 1_000, "M": 1_000_000}
MAX_NUMBER = 1e12
SUFFIXES = ("img", "k", "M", "ep", "it", "tick")


def canonical(value: object, bare_unit: str) -> str:
    """Check a span and write it with its unit.

    Args:
        value: a number, or text like `600it`.
        bare_unit: the unit of a bare number.

    Raises:
        ValueError: it is neither, or larger than any run.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) > MAX_NUMBER:
            raise ValueError(f"the number must be at most {MAX_NUMBER:g}")
        value = str(value)
    text = value.strip() if isinstance(value, str) else ""
    match = re.fullmatch(r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)", text)
    if not match or (match[2] or bare_unit) not in SUFFIXES:
        raise ValueError("give a number with one of the suffixes img, k, M, ep, it")
    if float(match[1]) > MAX_NUMBER:
        raise ValueError(f"the number must be at most {MAX_NUMBER:g}")
    return f"{match[1]}{match[2] or bare_unit}"


def to_images(span: str | int, *, batch: int, num_images: int, tick: int = 0) -> int:
    """Number of images that a canonical span means.

    Args:
        span: from `canonical`; a number is one of images already.
        batch: global batch size, for `it`.
        num_images: size of the data set, for `ep`.
        tick: images in a tick, for `tick`.

    Raises:
        UserError: the span is positive, but less than one image.
    """
    if isinstance(span, int):
        return span
    match = re.fullmatch(r"([\d.eE+-]+?)(img|k|M|ep|it|tick)", span)
    assert match is not None, span
    unit = {**_UNITS, "ep": num_images, "it": batch, "tick": tick}[match[2]]
    number = float(match[1])
    count = round(number * unit)
    if count == 0 and number != 0:
        raise UserError(f"{span} is less than one image")
    return count
