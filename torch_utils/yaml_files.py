"""YAML that others wrote: plain values only, within bounds, and numbers that mean what they show.

A subset of YAML 1.1: no tags beyond the basic ones, no dates, no numbers to base 60 (`1:30`) or to
base 8 by a leading zero (`010`); a mapping has each of its keys once. `yes`, `no`, `on` and `off`
are truth values, as in YAML 1.1.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from torch_utils.bounded import read_file
from torch_utils.errors import UserError

MAX_BYTES = 2**18
MAX_VALUES = 2**16  # those that aliases stand for are counted as well
MAX_DEPTH = 32

_PREFIX = "tag:yaml.org,2002:"
_LARGEST = 2**63
# What a plain text is, by its form. The first characters select the forms that are tried.
_FORMS: Mapping[str, tuple[str, str]] = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (
        r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
        "yYnNtTfFoO",
    ),
    "int": (r"[-+]?(0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)", "-+0123456789"),
    "float": (
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "merge": (r"<<", "<"),
}


class _Refused(Exception):
    """Something that YAML allows and this reader does not; the message says what."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with bounds and fewer types."""

    yaml_constructors = {  # noqa: RUF012  (PyYAML's name and type)
        _PREFIX + name: yaml.SafeLoader.yaml_constructors[_PREFIX + name]
        for name in ("null", "bool", "float", "str", "seq", "map")
    }
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # of nodes by id: values and height

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose a node, and measure it with everything that its aliases stand for."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refused(f"it nests deeper than {MAX_DEPTH}")
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if is_alias and id(node) not in self._sizes:
            raise _Refused(f"an alias stands for what it is part of{_place(node)}")
        if not is_alias:
            self._sizes[id(node)] = self._measured(node)
        self._depth -= 1
        return node

    def _measured(self, node: Any) -> tuple[int, int]:
        if isinstance(node, ScalarNode):
            return 1, 1
        children = node.value
        if isinstance(node, MappingNode):
            _check_keys(node)
            children = [child for pair in node.value for child in pair]
        sizes = [self._sizes[id(child)] for child in children]
        values = 1 + sum(values for values, _ in sizes)
        height = 1 + max((height for _, height in sizes), default=0)
        if values > MAX_VALUES:
            raise _Refused(f"it stands for more than {MAX_VALUES} values")
        if height > MAX_DEPTH:
            raise _Refused(f"it nests deeper than {MAX_DEPTH}")
        return values, height

    def construct_whole(self, node: ScalarNode) -> int:
        """A whole number that the rest of the program can take."""
        text = self.construct_scalar(node).replace("_", "")
        number = int(text, 0)
        if abs(number) >= _LARGEST:
            raise _Refused(f"the number {text[:20]}... is too large{_place(node)}")
        return number


def _check_keys(node: MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, ScalarNode):
            raise _Refused(f"a key is a list or mapping{_place(key)}")
        if (key.tag, key.value) in seen:
            name = repr(key.value[:80])
            raise _Refused(f"the key {name} is there twice{_place(key)}: keep one of them")
        seen.add((key.tag, key.value))


def _place(node: Any) -> str:
    return f" (line {node.start_mark.line + 1})"


_Loader.add_constructor(_PREFIX + "int", _Loader.construct_whole)
_Loader.add_constructor(None, _Loader.construct_undefined)  # type: ignore[type-var]
for _name, (_form, _first) in _FORMS.items():
    _Loader.add_implicit_resolver(
        _PREFIX + _name, re.compile(rf"(?:{_form})\Z"), [*_first, *([""] * (_name == "null"))]
    )


def parse_yaml(text: str, what: str) -> Any:
    """Read one YAML document.

    Args:
        text: the document.
        what: its name, for messages.

    Returns:
        None, truth values, numbers, texts, lists and dicts.

    Raises:
        UserError: it is not YAML, goes beyond the bounds or the subset at the top of this module,
            or has a key twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except _Refused as error:
        raise UserError(f"{what}: {error}") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{what} is not YAML: {' '.join(str(error).split())}") from None


def read_yaml(path: str | os.PathLike[str], what: str) -> Any:
    """Read a YAML file in UTF-8; see `parse_yaml`.

    Raises:
        UserError: as there, or it is too large or not a regular file.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    return parse_yaml(read_file(path, MAX_BYTES, what).decode("utf-8"), what)
