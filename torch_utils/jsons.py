"""JSON that others wrote, within a bound of values; and values that strict JSON lacks."""

import json
import math
from typing import Any

_OBJECT = 4  # an object takes the memory of so many other values


def parse_json(content: bytes, max_values: int, max_int: int | None = None) -> Any:
    """Parse JSON in UTF-8.

    Args:
        content: the bytes; a byte order mark may come first.
        max_values: numbers, texts, lists and objects that there may be. Commas and brackets within
            texts count as well.
        max_int: the largest whole number, in size; None for any.

    Raises:
        ValueError: it is not JSON, or has more values.
        RecursionError: it nests too deeply.
    """
    values = content.count(b",") + content.count(b"[") + _OBJECT * content.count(b"{")
    if values > max_values:
        raise ValueError(f"it has more than {max_values} values")
    text = content.decode("utf-8-sig")
    if max_int is None:
        return json.loads(text)

    def whole(digits: str) -> int:
        number = int(digits)
        if abs(number) > max_int:
            raise ValueError(f"the number {digits[:20]}... is too large")
        return number

    return json.loads(text, parse_int=whole)


def strict(tree: Any) -> Any:
    """A tree with infinity, which strict JSON lacks, as the text "inf"."""
    if isinstance(tree, dict):
        return {key: strict(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [strict(value) for value in tree]
    return "inf" if tree == math.inf else tree
