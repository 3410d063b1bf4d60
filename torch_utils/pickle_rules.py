"""Replacements for the globals of a pickle: rules, and the inert records that they can make."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


class Refused(Exception):
    """Something in a pickle that is not allowed; the message says what."""


def brief(value: Any) -> str:
    """A value for a message: a string quoted and cut, any other value as its type."""
    return repr(value[:80]) if isinstance(value, str) else type(value).__name__


@dataclass(frozen=True)
class Token:
    """A global that a pickle names, as a value: only the name, "module name"."""

    name: str


@dataclass(frozen=True)
class Rule:
    """What to do for one global.

    Attributes:
        make: our function for a call of it (REDUCE, NEWOBJ) with the arguments in the pickle; None
            if it may only be named. It must check the arguments, which a stranger wrote; `Refused`
            says what is wrong with them.
        build: our function for a state (BUILD) that follows, of the value made and the state; None
            if a state is refused. It changes the value in place.
    """

    make: Callable[..., Any] | None = None
    build: Callable[[Any, Any], None] | None = None


@dataclass
class Record:
    """A call that was recorded instead of made.

    Attributes:
        name: the global, "module name".
        args: the arguments.
        state: the state that followed, or None.
    """

    name: str
    args: tuple[Any, ...]
    state: Any = None


def _set_state(record: Record, state: Any) -> None:
    record.state = state


def inert(name: str) -> Rule:
    """The rule that keeps the calls of a global as records."""
    return Rule(lambda *args: Record(name, args), _set_state)


_MAX_KEY_LENGTH = 2**16  # equal long ones are compared byte by byte, every time
_MAX_KEY = 2**60


def as_key(value: Any) -> Any:
    """A dict key or set element as it is, if it can be one of many.

    A stranger can write numbers beyond 60 bits, or tuples, that all have one hash: then each is
    compared with all before it. Hashes of texts are secret, those of smaller numbers different.
    """
    if isinstance(value, str | bytes):
        if len(value) > _MAX_KEY_LENGTH:
            raise Refused(f"it has a key of {len(value)} characters")
    elif isinstance(value, int):
        if abs(value) >= _MAX_KEY:
            raise Refused("it has a key that is too large a number")
    elif not isinstance(value, float | None):
        raise Refused(f"it has a key of type {type(value).__name__}")
    return value


def _ordered_dict(pairs: Iterable[Any] = ()) -> OrderedDict[Any, Any]:
    result: OrderedDict[Any, Any] = OrderedDict()
    for key, value in pairs:
        result[as_key(key)] = value
    return result


def _set(items: Iterable[Any] = ()) -> set[Any]:
    return {as_key(item) for item in items}


def _frozenset(items: Iterable[Any] = ()) -> frozenset[Any]:
    return frozenset(map(as_key, items))


def _encoded(text: str, encoding: str) -> bytes:
    """Bytes as Python 3 writes them in the old protocols."""
    if encoding != "latin1":
        raise Refused(f"it encodes text as {brief(encoding)}")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """Empty bytes as Python 3 writes them in the old protocols."""
    return b""


def _bytearray(content: bytes = b"") -> bytearray:
    if not isinstance(content, bytes):  # an integer would ask for that many bytes
        raise Refused("it has a bytearray of something else than bytes")
    return bytearray(content)


def _complex(real: float, imaginary: float) -> complex:
    return complex(real, imaginary)


_BUILTINS = {
    "bytes": Rule(_no_bytes),
    "set": Rule(_set),
    "frozenset": Rule(_frozenset),
    "bytearray": Rule(_bytearray),
    "complex": Rule(_complex),
}
CONTAINER_RULES: Mapping[str, Rule] = {
    "collections OrderedDict": Rule(_ordered_dict),
    "_codecs encode": Rule(_encoded),
    **{f"builtins {name}": rule for name, rule in _BUILTINS.items()},
    **{f"__builtin__ {name}": rule for name, rule in _BUILTINS.items()},
}
