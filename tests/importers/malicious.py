"""Hand-made hostile files: each tries to run a command, or to exhaust memory or time."""

import functools
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch

from tests.importers.edm_files import (
    Persistent,
    denoiser_of,
    foreign_config,
    pickled,
    published_modules,
    snapshot,
    training_state,
    whole,
)

RAN = "A_COMMAND_RAN"  # the file that the commands write
COMMAND = f"touch {RAN}"
_FOUR, _TWO = b"\x80\x04", b"\x80\x02"
_PERSISTENCE = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."  # torch's marks


def text(value: str) -> bytes:
    """The opcode of a short text."""
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def calls(module: str, name: str, argument: str = COMMAND) -> bytes:
    """A pickle that calls a global with one text."""
    return _TWO + f"c{module}\n{name}\n".encode() + text(argument) + b"\x85R."


def nested(content: bytes) -> bytes:
    """A pickle that hands bytes to the function that EDM's tensors are read with."""
    raw = b"B" + struct.pack("<I", len(content)) + content
    return _TWO + b"ctorch.storage\n_load_from_bytes\n" + raw + b"\x85R."


class _Call:
    """What pickle writes as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@functools.cache
def sound() -> Any:
    """A small model and its snapshot's `ema`."""
    denoiser = denoiser_of(foreign_config("EDMPrecond", "ddpmpp"))
    return denoiser, snapshot(denoiser, "EDMPrecond", "ddpmpp")


def within(value: Any) -> bytes:
    """A sound snapshot with something among its attributes."""
    return pickled(whole(Persistent("EDMPrecond", {**sound()[1].meta["state"], "x": value})))


def _with_weight(value: Any) -> bytes:
    """A sound snapshot with something in the place of a weight."""
    network = sound()[1].meta["state"]["_modules"]["model"].meta["state"]
    layers = dict(network["_modules"])
    layer = layers["map_layer0"].meta["state"]
    parameters = {**layer["_parameters"], "weight": value}
    layers["map_layer0"] = Persistent("Linear", {**layer, "_parameters": parameters})
    model = Persistent("SongUNet", {**network, "_modules": layers})
    return pickled(
        Persistent("EDMPrecond", {**sound()[1].meta["state"], "_modules": {"model": model}})
    )


def _stream(storage: bytes, keys: bytes, rest: bytes) -> bytes:
    """A nested stream of torch.save with its parts as they are given."""
    return _OLD + storage + keys + rest


def _storage(kind: str = "FloatStorage", num: bytes = b"K\x02", key: bytes = text("0")) -> bytes:
    token = f"ctorch\n{kind}\n".encode()
    return _TWO + b"(" + text("storage") + token + key + text("cpu") + num + b"NtQ."


_KEYS = _TWO + b"]" + text("0") + b"a."


def _tensor(stream: bytes, size: bytes, stride: bytes, offset: bytes = b"K\x00") -> bytes:
    raw = b"B" + struct.pack("<I", len(stream)) + stream
    storage = b"ctorch.storage\n_load_from_bytes\n" + raw + b"\x85R"
    ordered = b"ccollections\nOrderedDict\n)R"
    arguments = b"(" + storage + offset + size + stride + b"\x89" + ordered + b"t"
    return _TWO + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R."


_TWO_FLOATS = _stream(_storage(), _KEYS, struct.pack("<q2f", 2, 1.0, 2.0))


def _self_inside() -> Any:
    state = dict(sound()[1].meta["state"])
    state["_modules"] = {"model": state}
    return pickled(Persistent("EDMPrecond", state))


def _modules_without_end() -> bytes:
    module = Persistent("Linear", {"_modules": {}})
    for _ in range(12):
        module = Persistent("Linear", {"_modules": {"a": module, "b": module, "c": module}})
    state = {**sound()[1].meta["state"], "_modules": {"model": module}}
    return pickled(Persistent("EDMPrecond", state))


def _one_storage_many_times() -> bytes:
    """A call of the reader of storages on the same bytes, a thousand times."""
    num = 2**14
    elements = struct.pack("<q", num) + bytes(4 * num)
    stream = _stream(_storage(num=b"M" + struct.pack("<H", num)), _KEYS, elements)
    first = nested(stream)[2:-3]  # up to the bytes
    token, raw = first.split(b"B", 1)
    again = b"h\x00h\x01\x85R0"
    return _TWO + token + b"q\x000B" + raw + b"q\x010" + again * 1000 + b"N."


def _doubled_lists() -> bytes:
    """Lists of lists of the same list: 10^60 items, if they are written out."""
    content = b"]q\x00"
    for index in range(60):
        content += b"](" + b"h" + bytes([index]) + (b"h" + bytes([index])) * 9 + b"e"
        content += b"q" + bytes([index + 1])
    return _FOUR + content + text("system") + b"\x93."


def _state(extra: Any, **options: Any) -> bytes:
    """A training state with something in it, and options of torch.save."""
    tree: dict[str, Any] = {"x": extra, "net": sound()[1], "optimizer_state": {}}
    buffer = io.BytesIO()
    with published_modules():
        torch.save(tree, buffer, **options)
    return buffer.getvalue()


def _repacked(content: bytes, method: int, **more: bytes) -> bytes:
    """The zip of a training state with its records packed anew, and some replaced."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for member in old.infolist():
            name = member.filename.partition("/")[2]
            replaced = next((v for k, v in more.items() if name == k.replace("_", ".")), None)
            new.writestr(
                member.filename, old.read(member) if replaced is None else replaced, method
            )
    return buffer.getvalue()


def _old_state() -> bytes:
    return training_state(sound()[1], sound()[0])


# name -> (the file's content, words of the one line that refuses it)
PICKLES: dict[str, tuple[Callable[[], bytes], str]] = {
    # calls of os.system by every opcode that can call
    "reduce": (lambda: calls("os", "system"), "'os.system'"),
    "reduce-posix": (lambda: calls("posix", "system"), "'posix.system'"),
    "stack-global": (
        lambda: _FOUR + text("os") + text("system") + b"\x93" + text(COMMAND) + b"\x85R.",
        "'os.system'",
    ),
    "inst": (lambda: _TWO + b"(" + text(COMMAND) + b"ios\nsystem\n.", "INST for 'os.system'"),
    "obj": (lambda: _TWO + b"(cos\nsystem\n" + text(COMMAND) + b"o.", "'os.system'"),
    "obj-of-a-known-class": (
        lambda: _TWO + b"(" + _PERSISTENCE + text(COMMAND) + b"o.",
        "the opcode OBJ",
    ),
    "newobj": (
        lambda: _TWO + b"cos\nsystem\n" + text(COMMAND) + b"\x85\x81.",
        "'os.system'",
    ),
    "newobj-ex": (
        lambda: _FOUR + b"cos\nsystem\n" + text(COMMAND) + b"\x85}\x92.",
        "'os.system'",
    ),
    "newobj-ex-of-a-known-class": (
        lambda: _FOUR + b"ccollections\nOrderedDict\n)}\x92.",
        "the opcode NEWOBJ_EX",
    ),
    "ext1": (lambda: _TWO + b"\x82\x01" + text(COMMAND) + b"\x85R.", "the opcode EXT1"),
    "ext2": (lambda: _TWO + b"\x83\x01\x01" + text(COMMAND) + b"\x85R.", "the opcode EXT2"),
    "ext4": (lambda: _TWO + b"\x84\x01\0\0\x01" + text(COMMAND) + b"\x85R.", "the opcode EXT4"),
    "setstate": (
        lambda: (
            _TWO
            + b"ccollections\nOrderedDict\n)R}"
            + text("__setstate__")
            + b"cos\nsystem\nsb"
            + text(COMMAND)
            + b"b."
        ),
        "'os.system'",
    ),
    "build-of-a-dict": (lambda: _TWO + b"}" + text(COMMAND) + b"b.", "sets the state of a dict"),
    "build-of-a-module": (
        lambda: pickled(sound()[1])[:-1] + b"}b.",
        "sets the state of a Record",
    ),
    "memo": (
        lambda: (
            _FOUR
            + text("system")
            + b"q\x07"
            + text("os")
            + b"q\x08h\x08h\x07\x93"
            + text(COMMAND)
            + b"\x85R."
        ),
        "'os.system'",
    ),
    "memo-written-twice": (
        lambda: _TWO + _PERSISTENCE + b"q\x01cos\nsystem\nq\x01h\x01" + text(COMMAND) + b"\x85R.",
        "'os.system'",
    ),
    "a-name-with-dots": (
        lambda: calls("torch_utils.persistence", "_reconstruct_persistent_obj.__globals__"),
        "'torch_utils.persistence._reconstruct_persistent_obj.__globals__'",
    ),
    "a-name-with-a-space": (
        lambda: _FOUR + text("os system torch_utils.persistence") + text("x") + b"\x93.",
        "'os.system.torch_utils.persistence.x'",
    ),
    "a-text-that-is-called": (lambda: _TWO + text("os.system") + b")R.", "it calls 'os.system'"),
    "persistent-id": (lambda: _TWO + b"P" + COMMAND.encode() + b"\n.", "a persistent id"),
    "binary-persistent-id": (lambda: _TWO + text(COMMAND) + b"Q.", "a persistent id"),
    "protocol-0": (lambda: f"cos\nsystem\n(V{COMMAND}\ntR.".encode(), "'os.system'"),
    "in-a-snapshot": (lambda: within(_Call(os.system, COMMAND)), "system'"),
    "as-a-weight": (lambda: _with_weight(_Call(os.system, COMMAND)), "system'"),
    # other functions that run something
    "eval": (lambda: calls("builtins", "eval"), "'builtins.eval'"),
    "exec-of-python-2": (lambda: calls("__builtin__", "exec"), "'__builtin__.exec'"),
    "import": (lambda: calls("builtins", "__import__"), "'builtins.__import__'"),
    "getattr": (lambda: calls("builtins", "getattr"), "'builtins.getattr'"),
    "partial": (lambda: calls("functools", "partial"), "'functools.partial'"),
    "attrgetter": (lambda: calls("operator", "attrgetter"), "'operator.attrgetter'"),
    "popen": (lambda: calls("subprocess", "Popen"), "'subprocess.Popen'"),
    "hub": (lambda: calls("torch.hub", "load"), "'torch.hub.load'"),
    "reconstructor": (lambda: calls("copyreg", "_reconstructor"), "'copyreg._reconstructor'"),
    # source in the file
    "source-of-an-unknown-class": (
        lambda: pickled(Persistent("Exploit", {}, module_src=f"import os\nos.system({COMMAND!r})")),
        "'Exploit'",
    ),
    "source-as-a-name": (
        lambda: pickled(Persistent(f"__import__('os').system({COMMAND!r})", {})),
        "it holds a",
    ),
    # files within the file
    "torch-load": (lambda: calls("torch", "load"), "'torch.load'"),
    "pickle-loads": (lambda: calls("pickle", "loads"), "'pickle.loads'"),
    "a-stream-that-calls": (lambda: nested(_OLD + calls("os", "system")), "'os.system'"),
    "a-pickle-that-calls": (lambda: nested(calls("os", "system")), "'os.system'"),
    "a-zip-that-calls": (
        lambda: nested(_state(_Call(os.system, COMMAND))),
        "is not a sound pickle",
    ),
    "a-stream-in-a-stream": (lambda: nested(_OLD + nested(_TWO_FLOATS)), "'torch.storage._load"),
    "a-persistent-id-in-a-stream": (
        lambda: nested(_OLD + _TWO + text(COMMAND) + b"Q."),
        "an odd persistent id",
    ),
    "a-list-in-a-stream": (
        lambda: nested(_OLD + _TWO + b"].\x80\x02]."),
        "a storage with something else in it",
    ),
    # counts and sizes
    "bytes-of-4-gb": (lambda: _TWO + b"B\xff\xff\xff\xff.", "is not a sound pickle"),
    "bytes-of-an-exabyte": (
        lambda: _FOUR + b"\x8e" + struct.pack("<Q", 2**60) + b".",
        "is not a sound pickle",
    ),
    "a-number-of-2-gb": (lambda: _TWO + b"\x8b\xff\xff\xff\x7f.", "is not a sound pickle"),
    "a-memo-of-10-to-the-30": (lambda: b"\x80\x02Np1" + b"0" * 30 + b"\n.", "under the number 1"),
    "a-million-items": (lambda: _TWO + b"(" + b"N" * 2**20 + b"t.", "more than 524288 items"),
    "a-storage-of-an-exabyte": (
        lambda: nested(_stream(_storage(num=b"\x8a\x08" + struct.pack("<q", 2**60)), _KEYS, b"")),
        "a storage of an unknown kind",
    ),
    "a-storage-of-a-terabyte": (
        lambda: nested(
            _stream(_storage(num=b"\x8a\x06" + struct.pack("<q", 2**40)[:6]), _KEYS, b"")
        ),
        "it names more bytes than it has",
    ),
    "a-tensor-of-a-terabyte": (
        lambda: _tensor(
            _TWO_FLOATS, b"\x8a\x06" + struct.pack("<q", 2**40)[:6] + b"\x85", b"K\x00\x85"
        ),
        "a tensor of size [1099511627776] in 2 elements",
    ),
    "one-storage-many-times": (_one_storage_many_times, "it uses the same content too often"),
    "texts-of-texts": (_doubled_lists, "names something that is not a text"),
    # shapes of the graph
    "deep": (lambda: _TWO + b"]" * 5000 + b"a" * 4999 + b".", "it nests deeper than 64"),
    "cycle": (lambda: _TWO + b"]q\x00h\x00a.", "it contains itself"),
    "a-module-in-itself": (_self_inside, "it contains itself"),
    "modules-without-end": (_modules_without_end, "more than"),
    # damage
    "empty": (lambda: b"", "is not a sound pickle"),
    "cut": (lambda: pickled(whole(sound()[1]))[:5000], "is not a sound pickle"),
    "cut-in-a-storage": (lambda: nested(_TWO_FLOATS[:-3]), "a storage that ends too early"),
    "two-pickles": (lambda: pickled(sound()[1]) + calls("os", "system"), "something follows it"),
    # types and sizes of tensors
    "integers": (lambda: _with_weight(torch.zeros(64, 16, dtype=torch.int64)), "real numbers"),
    "complex": (lambda: _with_weight(torch.zeros(64, 16, dtype=torch.complex64)), "real numbers"),
    "an-unknown-type": (
        lambda: nested(_stream(_storage("QInt8Storage"), _KEYS, b"")),
        "'torch.QInt8Storage'",
    ),
    "objects-of-numpy": (
        lambda: _TWO + b"cnumpy\ndtype\n" + text("O8") + b"\x89\x88\x87R.",
        "the numpy type 'O8'",
    ),
    "a-tensor-beyond-its-storage": (
        lambda: _tensor(_TWO_FLOATS, b"K\x02\x85", b"K\x01\x85", offset=b"K\x01"),
        "a tensor of size [2] in 2 elements",
    ),
    "a-negative-stride": (
        lambda: _tensor(_TWO_FLOATS, b"K\x02\x85", b"J\xff\xff\xff\xff\x85"),
        "sizes are invalid",
    ),
    "a-storage-of-another-size": (
        lambda: nested(_stream(_storage(), _KEYS, struct.pack("<q2f", 3, 1.0, 2.0))),
        "another size than it says",
    ),
    "a-storage-that-is-not-named": (
        lambda: nested(_stream(_storage(), _TWO + b"].", struct.pack("<q2f", 2, 1.0, 2.0))),
        "does not have the storages that it names",
    ),
}

STATES: dict[str, tuple[Callable[[], bytes], str]] = {
    "call": (
        lambda: _state(_Call(os.system, COMMAND)),
        "system'",
    ),
    "call-in-the-old-format": (
        lambda: _state(
            _Call(os.system, COMMAND),
            _use_new_zipfile_serialization=False,
        ),
        "system'",
    ),
    "eval": (lambda: _state(_Call(eval, "1")), "eval'"),
    "zip-bomb": (lambda: _repacked(_old_state(), zipfile.ZIP_DEFLATED), "is compressed"),
    "zip-bomb-of-the-pickle": (
        lambda: _repacked(_old_state(), zipfile.ZIP_DEFLATED, data_pkl=b"\x80\x02" + b"N" * 2**24),
        "is compressed",
    ),
    "cut": (lambda: _old_state()[:-2000], "damaged"),
    "another-pickle": (
        lambda: _repacked(_old_state(), zipfile.ZIP_STORED, data_pkl=calls("os", "system")),
        "'os.system'",
    ),
}


def protocols() -> list[bytes]:
    """A call of os.system as Python itself writes it, in every protocol."""
    return [pickle.dumps(_Call(os.system, COMMAND), n) for n in range(6)]
