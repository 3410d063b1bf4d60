"""A reader of pickles that runs nothing: an interpreter of its own over the opcodes.

The only module that may import `pickle` or `pickletools`. A pickle can name functions to call;
here a name is looked up in a table of our own rules, and whatever is not in the table is refused.
The basic rules know containers, numbers, strings, bytes, and numpy arrays, scalars and dtypes
without objects. A reader of another format adds rules: `inert()` keeps a call as a plain `Record`.
"""

import io
import os
import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from torch_utils.errors import UserError
from torch_utils.pickle_numpy import NUMPY_RULES
from torch_utils.pickle_rules import CONTAINER_RULES, Record, Refused, Rule, Token, as_key, brief

# What a damaged stream can raise, and a rule that gets arguments of another kind.
_DAMAGE = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError),
    struct.error,
)


_COPIES = 4  # rules may copy the bytes of a pickle so often,
_FREE_COPIES = 2**16  # and so many bytes beyond that
_MAX_MEMO = 2**32  # larger numbers than the binary opcodes have could all have one hash


@dataclass(frozen=True)
class Limits:
    """The largest pickle that is read.

    Attributes:
        bytes: size of one pickle.
        string: length of one string or bytes.
        items: opcodes, which bounds the elements of all containers.
        depth: containers within containers.
    """

    bytes: int = 2**28
    string: int = 2**28
    items: int = 2**21
    depth: int = 64


BASIC_RULES: Mapping[str, Rule] = {**CONTAINER_RULES, **NUMPY_RULES}


@dataclass
class _Machine:
    """The state of the interpreter: the stack above the last mark, those below, the memo."""

    rules: Mapping[str, Rule]
    persistent: Callable[[Any], Any] | None
    copied_bytes: int  # that rules may still take
    copied_items: int
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    made: dict[int, tuple[Any, Rule]] = field(default_factory=dict)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def last(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise Refused(f"items added to a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.to_mark()

    def tuple_of(self, num: int) -> None:
        if len(self.stack) < num:
            raise IndexError
        items = tuple(self.stack[len(self.stack) - num :])
        del self.stack[len(self.stack) - num :]
        self.push(items)

    def append(self, items: list[Any]) -> None:
        self.last(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise IndexError
        target = self.last(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[as_key(key)] = value

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def add_items(self, items: list[Any]) -> None:
        self.last(set).update(map(as_key, items))

    def put(self, index: int | str | None) -> None:
        place = len(self.memo) if index is None else int(index)
        if place >= _MAX_MEMO:
            raise Refused(f"it remembers something under the number {place}")
        self.memo[place] = self.stack[-1]

    def token(self, name: str) -> None:
        if name not in self.rules:
            raise Refused(f"it names {brief(name.replace(' ', '.'))}")
        self.push(Token(name))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        # nothing else is put into a message: lists within lists can be written out without end
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refused("it names something that is not a text")
        self.token(f"{module} {name}")

    def call(self, _: Any) -> None:
        arguments, target = self.stack.pop(), self.stack.pop()
        rule = self.rules[target.name] if isinstance(target, Token) else None
        if rule is None or rule.make is None or not isinstance(arguments, tuple):
            name = target.name.replace(" ", ".") if isinstance(target, Token) else target
            raise Refused(f"it calls {brief(name)}")
        self.spend(arguments)
        value = rule.make(*arguments)
        self.made[id(value)] = (value, rule)
        self.push(value)

    def spend(self, given: Any) -> None:
        """Bound what rules copy: one long string can be handed to many of them."""
        for part in given if isinstance(given, tuple) else (given,):
            if isinstance(part, str | bytes | bytearray):
                self.copied_bytes -= len(part)
            elif isinstance(part, list | tuple | dict | set | frozenset):
                self.copied_items -= len(part)
        if min(self.copied_bytes, self.copied_items) < 0:
            raise Refused("it uses the same content too often")

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        self.spend(state)
        value, rule = self.made.get(id(self.stack[-1]), (None, None))
        if rule is None or rule.build is None:
            raise Refused(f"it sets the state of a {type(self.stack[-1]).__name__}")
        rule.build(value, state)

    def persistent_id(self, identity: Any) -> None:
        if self.persistent is None:
            raise Refused("it has a persistent id")
        self.push(self.persistent(identity))


_Step = Callable[[_Machine, Any], None]
_PUSHED = [
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
]
# Every opcode that is understood; the others (extensions, instances, buffers) are refused.
_STEPS: dict[str, _Step] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, arg: None),
    **dict.fromkeys(_PUSHED, _Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda machine, _: machine.to_mark().clear(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.to_mark()),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.to_mark()),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "DICT": lambda machine, _: _push_dict(machine),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.to_mark()),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "ADDITEMS": lambda machine, _: machine.add_items(machine.to_mark()),
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(as_key, machine.to_mark()))),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"),
        lambda machine, index: machine.push(machine.memo[int(index)]),
    ),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    "GLOBAL": _Machine.token,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "PERSID": _Machine.persistent_id,
    "BINPERSID": lambda machine, _: machine.persistent_id(machine.stack.pop()),
    "STOP": lambda machine, _: None,
}


def _push_dict(machine: _Machine) -> None:
    items = machine.to_mark()
    machine.push({})
    machine.set_items(items)


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        return iter(value.values())
    if isinstance(value, Record):
        return iter((value.args, value.state))
    return iter(value if isinstance(value, list | tuple) else ())


def _check_shape(root: Any, limit: int) -> None:
    """Refuse what nests deeper than the limit or contains itself; shared parts are fine."""
    heights: dict[int, int] = {}
    path: list[tuple[Any, Iterator[Any], int]] = [(root, _children(root), 0)]
    active = {id(root)}
    while path:
        value, rest, height = path.pop()
        for child in rest:
            if not isinstance(child, dict | list | tuple | Record):
                continue
            if id(child) in active:
                raise Refused("it contains itself")
            if id(child) not in heights:
                path += [(value, rest, height), (child, _children(child), 0)]
                active.add(id(child))
                break
            height = max(height, heights[id(child)])
        else:
            heights[id(value)] = height + 1
            active.discard(id(value))
            if path:
                parent, siblings, so_far = path.pop()
                path.append((parent, siblings, max(so_far, height + 1)))
        if len(path) > limit or max(heights.get(id(value), 0), height) > limit:
            raise Refused(f"it nests deeper than {limit}")


def _with_name(opcode: str, argument: Any) -> str:
    """An opcode for a message, with the global that it has."""
    if opcode != "INST" or not isinstance(argument, str):
        return opcode
    return f"{opcode} for {brief(argument.replace(' ', '.'))}"


def read_pickle(
    stream: IO[bytes],
    what: str,
    *,
    rules: Mapping[str, Rule] = BASIC_RULES,
    persistent: Callable[[Any], Any] | None = None,
    limits: Limits | None = None,
) -> Any:
    """Read one pickle from a stream's position, and leave the stream at its end.

    Strings of Python 2 come out as text, byte by byte (latin-1). Sets, lists, dicts and so on are
    real; a name that is used as a value comes out as a `Token`.

    Args:
        stream: the bytes; it can be a file.
        what: the file's name, for messages.
        rules: "module name" of a global -> the rule for it; other globals are refused.
        persistent: turns a persistent id into a value; None refuses them.
        limits: None for the default ones.

    Raises:
        UserError: the pickle is damaged, too large, or asks for something that has no rule.
    """
    limits = limits or Limits()
    start = stream.tell()
    size = min(stream.seek(0, os.SEEK_END) - start, limits.bytes)
    stream.seek(start)
    machine = _Machine(rules, persistent, _COPIES * size + _FREE_COPIES, limits.items)
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
            if (position or 0) - start > limits.bytes:
                raise Refused(f"it has more than {limits.bytes} bytes")
            if opcode.name not in _STEPS:
                raise Refused(f"it uses the opcode {_with_name(opcode.name, argument)}")
            if isinstance(argument, str | bytes | bytearray) and len(argument) > limits.string:
                raise Refused(f"it has a string longer than {limits.string}")
            if count >= limits.items:
                raise Refused(f"it has more than {limits.items} items")
            _STEPS[opcode.name](machine, argument)
        if len(machine.stack) != 1 or machine.below:
            raise IndexError
        _check_shape(machine.stack[0], limits.depth)
    except Refused as error:
        raise UserError(f"{what} is refused: {error}") from None
    except UserError:  # of a pickle within it
        raise
    except _DAMAGE:
        raise UserError(f"{what} is not a sound pickle: replace it") from None
    return machine.stack[0]


def loads(content: bytes, what: str, **options: Any) -> Any:
    """Read a file that is one pickle; see `read_pickle` for the arguments and errors."""
    stream = io.BytesIO(content)
    value = read_pickle(stream, what, **options)
    if stream.read(1):
        raise UserError(f"{what} is not a sound pickle: something follows it")
    return value
