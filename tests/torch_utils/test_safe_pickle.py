"""The reader of pickles: what it reads, what it refuses, and that it runs nothing."""

import collections
import io
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_utils.errors import UserError
from torch_utils.pickle_rules import Record, Token, inert
from torch_utils.safe_pickle import BASIC_RULES, Limits, loads, read_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
)
KEYS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60) + 1, 2**60 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(KEYS, inner)
        | st.tuples(inner, inner, inner, inner)
        | st.sets(KEYS)
        | st.frozensets(KEYS)
    ),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(value, protocol):
    assert loads(pickle.dumps(value, protocol), "x") == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["b1", "i1", "u8", "<f2", ">f4", ">i8"])
def test_arrays_and_scalars_come_back(protocol, kind):
    array = np.arange(6).reshape(2, 3).astype(kind)
    given = [array, np.asfortranarray(array), array[:0], array[1, 2], np.dtype(kind)]
    *arrays, scalar, dtype = loads(pickle.dumps(given, protocol), "x")
    for found, expected in zip(arrays, given, strict=False):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype.type is expected.dtype.type
    assert scalar == given[3]
    assert dtype.numpy == np.dtype(kind)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_builtin_kinds_come_back(protocol):
    value = [collections.OrderedDict(b=1, a=2), bytearray(b"ab"), 1 - 2j]
    assert loads(pickle.dumps(value, protocol), "x") == value


def test_strings_of_python_2_are_text_and_arrays_of_it_are_read():
    content = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x02K\x02\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\x00\x7f\x80\xfftbU\x01aU\x01\xe9u."
    )
    value = loads(content, "x")
    assert value["data"].tolist() == [[0, 127], [128, 255]]
    assert value["a"] == "\xe9"


class Run:
    """Asks for a call when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Plain:
    """An ordinary class."""


def raw(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


REFUSED = {
    "system": (pickle.dumps(Run(os.system, "touch ran")), "posix.system"),
    "eval": (pickle.dumps(Run(eval, "1"), 0), "eval"),
    "instance": (pickle.dumps(Plain()), "Plain"),
    "getattr": (pickle.dumps(Run(getattr, "", "join")), "getattr"),
    "objects": (pickle.dumps(np.array([None])), "numpy type 'O8'"),
    "fields": (pickle.dumps(np.zeros(2, "i4,i4")), "numpy type 'V8'"),
    "datetime": (pickle.dumps(np.zeros(2, "M8[s]")), "numpy type 'M8'"),
    "a name called": (raw(b"\x8c\x05numpy\x8c\x07ndarray\x93)R"), "it calls 'numpy.ndarray'"),
    "a value called": (raw(b"K\x01)R"), "it calls int"),
    "state of a list": (raw(b"]}b"), "sets the state of a list"),
    "persistent id": (raw(b"Pone\n"), "persistent id"),
    "binary persistent id": (raw(b"K\x01Q"), "persistent id"),
    "extension": (raw(b"\x82\x01"), "opcode EXT1"),
    "old instance": (raw(b"(ios\nsystem\n"), "opcode INST"),
    "old object": (raw(b"(cos\nsystem\no"), "os.system"),
    "buffer": (raw(b"\x97"), "opcode NEXT_BUFFER"),
    "itself": (raw(b"]q\x00h\x00a"), "contains itself"),
    "bytearray of a size": (pickle.dumps(Run(bytearray, 2**40)), "bytearray"),
    "nested key": (raw(b"})\x85K\x01s"), "key of type tuple"),
    "colliding keys": (pickle.dumps({n * (2**61 - 1): n for n in range(9)}), "too large a number"),
    "colliding elements": (pickle.dumps({n * (2**61 - 1) for n in range(9)}), "too large a number"),
    "keys of pairs": (pickle.dumps({(1, 2): 3}), "key of type tuple"),
    "long key": (pickle.dumps({"a" * 2**17: 3}), "key of 131072 characters"),
    "colliding memo": (raw(b"K\x01p" + b"9" * 40 + b"\n"), "under the number 9"),
}
DAMAGED = {
    "empty": b"",
    "no stop": b"\x80\x04K\x01",
    "empty stack": raw(b""),
    "two values": raw(b"K\x01K\x02"),
    "open mark": raw(b"K\x01("),
    "unknown opcode": raw(b"\xff"),
    "missing memo": raw(b"h\x07"),
    "items of nothing": raw(b"a"),
    "odd items": raw(b"}(K\x01u"),
    "tuple of too few": raw(b"K\x01\x87"),
    "cut string": raw(b"\x8c\x10ab"),
    "negative length": raw(b"T\xff\xff\xff\xff"),
    "long number": b"\x80\x04L" + b"9" * 5000 + b"L\n.",
    "wrong arguments": raw(b"\x8c\x08builtins\x8c\x03set\x93K\x01\x85R"),
    "something behind": pickle.dumps(1) + b"x",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = REFUSED[name]
    with pytest.raises(UserError) as caught:
        loads(content, "file.pkl")
    assert str(caught.value).startswith("file.pkl is refused: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_pickle_is_one_line(name):
    with pytest.raises(UserError, match=r"^file\.pkl is not a sound pickle"):
        loads(DAMAGED[name], "file.pkl")


def nested(depth: int) -> bytes:
    return raw(b"]" * depth + b"a" * (depth - 1))


@pytest.mark.parametrize(
    ("content", "limits", "message"),
    [
        (pickle.dumps("a" * 100), Limits(bytes=99), "more than 99 bytes"),
        (pickle.dumps("a" * 100), Limits(string=99), "string longer than 99"),
        (pickle.dumps([1] * 100), Limits(items=99), "more than 99 items"),
        (nested(11), Limits(depth=10), "deeper than 10"),
        (nested(100_000), None, "deeper than 64"),
    ],
)
def test_sizes_are_bounded(content, limits, message):
    with pytest.raises(UserError, match=message):
        loads(content, "x", limits=limits)


def test_depth_is_that_of_the_longest_path_also_through_shared_parts():
    inner = [[]]
    shared = [inner, [[inner]]]
    assert loads(pickle.dumps(shared), "x", limits=Limits(depth=5)) == shared
    with pytest.raises(UserError, match="deeper than 4"):
        loads(pickle.dumps(shared), "x", limits=Limits(depth=4))


def test_many_references_to_one_part_cost_nothing():
    value = []
    for _ in range(50):
        value = [value, value]
    assert len(loads(pickle.dumps(value), "x")) == 2


def test_one_string_cannot_be_copied_without_end():
    text = b"X" + struct.pack("<I", 1000) + b"a" * 1000 + b"q\x00"
    encode = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R0"
    content = b"\x80\x02" + text + encode * 200 + b"."
    with pytest.raises(UserError, match="same content too often"):
        loads(content, "x", limits=Limits(bytes=len(content)))


@pytest.mark.parametrize("kind", ["set", "frozenset"])
def test_one_list_cannot_be_copied_without_end(kind):
    numbers = b"](" + b"K\x01" * 1000 + b"eq\x00"
    copies = b"c__builtin__\n" + kind.encode() + b"\nh\x00\x85R0"
    with pytest.raises(UserError, match="same content too often"):
        loads(b"\x80\x02" + numbers + copies * 20 + b".", "x", limits=Limits(items=10_000))


def test_a_reader_of_another_format_adds_inert_records_and_persistent_ids():
    stream = io.BytesIO(
        b"\x80\x02cpkg.mod\nThing\n(K\x01tR}U\x01aK\x02sb."
        b"\x80\x02(U\x07storageU\x01ktQ."
        b"\x80\x02cpkg.mod\nThing\n."
    )
    rules = {**BASIC_RULES, "pkg.mod Thing": inert("pkg.mod Thing")}
    record = Record("pkg.mod Thing", (1,), {"a": 2})
    assert read_pickle(stream, "x", rules=rules) == record
    assert read_pickle(stream, "x", persistent=lambda identity: identity[1]) == "k"
    assert read_pickle(stream, "x", rules=rules) == Token("pkg.mod Thing")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(PROTOCOLS), st.integers(1, 4))
def test_flipped_bytes_end_in_a_value_or_one_line(seed, protocol, num):
    value = {"data": np.arange(12, dtype="u1"), "labels": [1, 2, 3], "s": {"a"}, "f": np.float32(2)}
    content = bytearray(pickle.dumps(value, protocol))
    random = np.random.default_rng(seed)
    for position in random.integers(len(content), size=num):
        content[position] ^= int(random.integers(1, 256))
    message = ""
    try:
        loads(bytes(content), "x")
    except UserError as error:
        message = str(error)
    assert "\n" not in message
