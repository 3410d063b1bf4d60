"""Pickles of EDM's training loop as inert objects: modules are records of name and attributes.

Such a pickle holds, for each module, the source text of its class and the attributes. Here the text
is neither run nor kept. Tensors lie in the pickle as streams of torch.save; training states are
files of torch.save themselves.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from torch_utils import torch_files
from torch_utils.bounded import open_regular
from torch_utils.errors import UserError
from torch_utils.pickle_rules import Record, Refused, Rule, brief, inert
from torch_utils.safe_pickle import BASIC_RULES, Limits, read_pickle
from torch_utils.zips import BAD_ZIP, open_zip, seek_member

LIMITS = Limits(bytes=2**32, string=2**31, items=2**19)
_VERSION = 6  # of EDM's records
_MAX_SOURCE = 2**22  # letters of a class's module
_MAX_MODULES = 2**13  # the largest published network has some 800
_MAX = 100  # letters of a name, and items of an argument
_MAX_NUMBER = 2**63
_HEAD = 2**16  # bytes in which a sound file names the class of its first object
_LIBRARY = b"torch_utils.persistence"
_PERSISTENT = "torch_utils.persistence _reconstruct_persistent_obj"
_CONTAINER = "torch.nn.modules.container ModuleDict"


def _persistent(meta: Any) -> Record:
    """What EDM would build by running source text: only its class's name and its attributes."""
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise Refused("it has an object that is not of a class")
    if meta.get("version") != _VERSION:
        version = meta.get("version")
        said = version if type(version) is int and abs(version) < _MAX_SOURCE else brief(version)
        raise Refused(f"it has an object of version {said}, only version {_VERSION} is known")
    name, source, state = (meta.get(key) for key in ("class_name", "module_src", "state"))
    if not isinstance(name, str) or not isinstance(source, str) or not isinstance(state, dict):
        raise Refused("it has an object without class or attributes")
    if len(source) > _MAX_SOURCE or len(name) > _MAX:
        raise Refused("it has an object whose class has too long a source or name")
    return Record(_PERSISTENT, (name, state))


_NAMES = (
    *("collections OrderedDict", "builtins set", "__builtin__ set", "_codecs encode"),
    *("numpy.core.multiarray scalar", "numpy._core.multiarray scalar", "numpy dtype"),
)
RULES: Mapping[str, Rule] = {
    _PERSISTENT: Rule(_persistent),
    _CONTAINER: inert(_CONTAINER),
    "dnnlib.util EasyDict": Rule(lambda: {}),
    "dnnlib EasyDict": Rule(lambda: {}),
}


def read_objects(path: str | os.PathLike[str]) -> Any:
    """Read a pickle of EDM, CDM or the second-order solver, or a file of torch.save with such.

    Returns:
        Plain data, tensors, and records of objects; see `as_module`.

    Raises:
        UserError: it cannot be read, is damaged, too large, or names anything that such a file has
            no use for.
    """
    what = str(path)
    if not Path(path).exists():
        raise UserError(f"no checkpoint at {what}")
    try:
        with open_regular(path, what) as raw:
            file = torch_files.Capped(raw)
            if not torch_files.is_torch_file(file.peek(16)):
                rules = {name: BASIC_RULES[name] for name in _NAMES}
                rules |= {**RULES, **torch_files.inline_rules(what)}
                tree = read_pickle(file, what, rules=rules, limits=LIMITS)
                if file.read(1):
                    raise UserError(f"{what} is not a sound pickle: something follows it")
                return tree
    except OSError as error:
        raise UserError(f"cannot read {what}: {error.strerror or error}") from None
    return torch_files.load(path, what, rules=RULES)


def is_edm(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a pickle, or a file of torch.save with EDM's objects.

    No other system's models are plain pickles; so what is one, is EDM's or nothing.
    """
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
        if not torch_files.is_torch_file(head[:16]):
            return head.startswith(b"\x80") or Path(path).suffix == ".pkl"
        if not head.startswith(b"PK"):
            return _LIBRARY in head
        with open_zip(path) as archive:
            records = [m for m in archive.infolist() if m.filename.endswith("/data.pkl")]
            return any(_LIBRARY in seek_member(archive, m).read(_HEAD) for m in records[:1])
    except (UserError, *BAD_ZIP):
        return False


@dataclass(frozen=True)
class Module:
    """A module as a pickle describes it.

    Attributes:
        class_name: bare name of its class.
        state: its attributes.
    """

    class_name: str
    state: Mapping[str, Any]

    def part(self, name: str) -> dict[str, Any]:
        """One of the dictionaries of a module of torch: _parameters, _buffers or _modules."""
        found = self.state.get(name, {})
        if not isinstance(found, dict) or not all(map(_is_name, found)):
            raise UserError(f"its {self.class_name} has no sound {name}")
        return found


def _is_name(key: Any) -> bool:
    return isinstance(key, str) and key.isprintable() and "." not in key and _is_short(key)


def as_module(value: Any) -> Module | None:
    """The module that a record stands for; None for any other value."""
    if isinstance(value, Record) and value.name == _PERSISTENT:
        return Module(*value.args)
    if isinstance(value, Record) and value.name == _CONTAINER and isinstance(value.state, dict):
        return Module("ModuleDict", value.state)
    return None


def walk(root: Module) -> Iterator[tuple[str, Module]]:
    """A module and all in it, depth first in their order, with the names that torch gives them.

    Raises:
        UserError: there are too many, as where one is its own neighbour many times over, or
            something else is in the place of one.
    """
    waiting = [("", root)]
    for _ in range(_MAX_MODULES):
        if not waiting:
            return
        name, module = waiting.pop()
        yield name, module
        children = []
        for key, value in module.part("_modules").items():
            child = as_module(value)
            if child is None and value is not None:
                raise UserError(f"{name}.{key}".removeprefix(".") + " in it is not a module")
            if child is not None:
                children.append((f"{name}.{key}".removeprefix("."), child))
        waiting += reversed(children)
    raise UserError(f"it has more than {_MAX_MODULES} modules")


def state_dict(root: Module) -> dict[str, Tensor]:
    """The tensors of a module under the names of its state dict.

    Raises:
        UserError: a tensor appears twice, or something else is in the place of one.
    """
    found: dict[str, Tensor] = {}
    owners: dict[int, str] = {}
    for name, module in walk(root):
        hidden = module.state.get("_non_persistent_buffers_set", ())
        if not isinstance(hidden, set | list | tuple):
            hidden = ()
        for part in ("_parameters", "_buffers"):
            for key, value in module.part(part).items():
                if value is None or key in hidden:
                    continue
                full = f"{name}.{key}".removeprefix(".")
                if not isinstance(value, Tensor):
                    raise UserError(f"{full} in it is not a tensor")
                other = owners.setdefault(value.untyped_storage().data_ptr(), full)
                if other != full and value.numel():
                    raise UserError(f"{other} and {full} in it are one tensor")
                found[full] = value
    return found


def plain(value: Any) -> Any:
    """A scalar of numpy as a number; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def argument(name: str, value: Any) -> Any:
    """A number, a name, None, or a list of those, as an argument of a constructor can be.

    Raises:
        UserError: it is anything else. A stranger can write lists of lists, or numbers, that are
            too long to be shown.
    """
    items = [plain(item) for item in (value if isinstance(value, list | tuple) else [value])[:_MAX]]
    is_whole = not isinstance(value, list | tuple) or len(value) < _MAX
    if not is_whole or not all(map(_is_scalar, items)):
        raise UserError(f"its argument {brief(name)} is not a number, a name or a list of them")
    return items if isinstance(value, list | tuple) else items[0]


def _is_scalar(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) < _MAX_NUMBER
    return (
        value is None or isinstance(value, float) or (isinstance(value, str) and _is_short(value))
    )


def _is_short(text: str) -> bool:
    return len(text) < _MAX
