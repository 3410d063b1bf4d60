"""What is wrong with a value of a config, in our words: one sentence for each of pydantic's types.

A sentence follows `key is value:`; braces hold what pydantic tells about the bound.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

_WHOLE = "it must be a whole number"
_NUMBER = "it must be a number"
_FLAG = "it must be true or false"
_MAPPING = "it must be a mapping of keys to values"

SENTENCES: dict[str, str] = {
    "missing": "it is missing",
    "bool_type": _FLAG,
    "bool_parsing": _FLAG,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing_size": "it has too many digits",
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "it must be finite",
    "string_type": "it must be a text",
    "string_pattern_mismatch": "it may have letters, digits and the signs . _ + = - only",
    "greater_than": "it must be greater than {gt:g}",
    "greater_than_equal": "it must be at least {ge:g}",
    "less_than": "it must be less than {lt:g}",
    "less_than_equal": "it must be at most {le:g}",
    "literal_error": "it must be {expected}",
    "tuple_type": "give a list",
    "too_long": "give a list of {max_length}",
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "value_error": "{error}",
}
_NAME_OR_MAPPING = "give a name, or a mapping with a name"
_LONGEST = 80  # characters of a value that a message shows


def reason(errors: Sequence[Any]) -> str:
    """What is wrong with one value.

    Args:
        errors: pydantic's, all about that value; of a field of several types, one a type.
    """
    first = errors[0]
    value, kind = first["input"], first["type"]
    if {error["type"] for error in errors} >= {"string_type", "dict_type"}:
        return _NAME_OR_MAPPING
    if "[key]" in first["loc"]:
        return f"its key {shown(value)} must be a text"
    if kind == "missing" and isinstance(first["loc"][-1], int):
        return f"give a list of at least {first['loc'][-1] + 1}"
    if kind == "tuple_type" and isinstance(value, str) and re.fullmatch(r"\w{1,40}", value):
        return f"give a list, e.g. [{value}]"
    if kind == "string_type" and isinstance(value, int | float):
        return "it must be a text: write it in quotes"
    bounds = dict(first.get("ctx", {}))
    if kind == "literal_error":
        bounds["expected"] = str(bounds["expected"]).replace("'", "")
    return " ".join(SENTENCES[kind].format(**bounds).split())


def shown(value: Any) -> str:
    """A value nearly as the user wrote it; long ones are cut."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"a number of {int(value.bit_length() * math.log10(2)) + 1:,} digits"
    try:
        text = repr(value)
    except ValueError:  # of an integer with more digits than Python writes
        return f"a {type(value).__name__} of very large numbers"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
