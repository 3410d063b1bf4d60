"""JSON that others wrote: within a bound of values, so that a small text takes little memory."""

import json
from typing import Any

_OBJECT = 4  # an object takes the memory of so many other values


def parse_json(content: bytes, max_values: int) -> Any:
    """Parse JSON in UTF-8.

    Args:
        content: the bytes; a byte order mark may come first.
        max_values: numbers, texts, lists and objects that there may be. Commas and brackets within
            texts count as well.

    Raises:
        ValueError: it is no JSON, or has more values.
        RecursionError: it nests too deeply.
    """
    values = content.count(b",") + content.count(b"[") + _OBJECT * content.count(b"{")
    if values > max_values:
        raise ValueError(f"it has more than {max_values} values")
    return json.loads(content.decode("utf-8-sig"))
