"""Files of torch.save: the same values as torch reads, and bounds on what they ask for."""

import argparse
import io
import pickle  # only to make files that must be refused
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_utils.errors import UserError
from torch_utils.pickle_rules import inert
from torch_utils.torch_files import load

FORMATS = {"zip": True, "stream": False}


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.stride() == expected.stride()
        assert torch.equal(found, expected.detach())
        assert not found.requires_grad
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert type(found) is (list if isinstance(expected, list) else tuple)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_equal(a, b)
    else:
        assert type(found) is type(expected)
        assert found == expected


def values() -> dict[str, Any]:
    base = torch.arange(24.0).reshape(2, 3, 4)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    return {
        "plain": [1, -2.5, "text", None, True, (1, 2), b"bytes", 2**70, {3: "x"}],
        "kinds": [base.to(kind) for kind in kinds],
        "complex": torch.view_as_complex(torch.rand(3, 2)),
        "views": [base, base[1], base.permute(2, 0, 1), base[:, 1:2], base[0, 0, 0]],
        "empty": [torch.empty(0), torch.empty(2, 0, 3)],
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "shape": base.shape,
        "ordered": OrderedDict(b=1, a=2),
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_values_are_those_that_torch_reads(kind: str, tmp_path: Path) -> None:
    torch.save(values(), tmp_path / "a.pt", _use_new_zipfile_serialization=FORMATS[kind])
    expected = torch.load(tmp_path / "a.pt", weights_only=True)
    found = load(tmp_path / "a.pt", "x")
    expected["parameter"] = expected["parameter"].data
    expected["shape"] = tuple(expected["shape"])
    assert_equal(found, expected)
    assert found["views"][0].untyped_storage().data_ptr() == (
        found["views"][2].untyped_storage().data_ptr()
    )


def test_records_of_other_systems_come_by_rules(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(a=1), "best": np.float64(0.5)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"it names 'argparse\.Namespace'"):
        load(tmp_path / "a.pt", "x")
    rules = {"argparse Namespace": inert("argparse Namespace")}
    found = load(tmp_path / "a.pt", "x", rules=rules)
    assert (found["args"].state, found["best"]) == ({"a": 1}, 0.5)


class Run:
    """Asks for a call when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Shaped:
    """A tensor of one element under another shape."""

    def __init__(self, shape: list[int]) -> None:
        self.shape = shape

    def __reduce__(self) -> Any:
        rebuild, (storage, *_) = torch.ones(1).__reduce_ex__(2)
        return rebuild, (storage, 0, tuple(self.shape), tuple(self.shape), False, OrderedDict())


BIG = torch.zeros(1).expand(10**10)
HOSTILE = {
    "bytearray": (Run(bytearray, 10**10), "bytearray of something else"),
    "expanded": (BIG, r"a tensor of size \[10000000000\] in 1 elements"),
    "expanded a little": (torch.zeros(4).expand(5, 4), "a tensor of size"),
    "dimensions": (Shaped([2**40] * 2000), "a tensor whose sizes are invalid"),
    "sparse": (torch.zeros(3).to_sparse(), "_rebuild_sparse_tensor"),
    "meta": (torch.empty(10**10, device="meta"), "it names"),
    "call": (Run(print, "ran"), "it names '__builtin__.print'"),
    "module": (torch.nn.Linear(1, 1), "it names 'torch.nn"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", HOSTILE)
def test_what_asks_for_more_than_plain_tensors_is_refused(
    name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value, message = HOSTILE[name]
    torch.save([value], tmp_path / "a.pt", _use_new_zipfile_serialization=FORMATS[kind])
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.pt", "x")
    assert capsys.readouterr().out == ""


def test_one_storage_cannot_be_a_thousand_tensors(tmp_path: Path) -> None:
    base = torch.zeros(1000)
    torch.save([base.view(1000) for _ in range(4)], tmp_path / "a.pt")
    assert len(load(tmp_path / "a.pt", "x")) == 4
    torch.save([base.view(1000) for _ in range(5)], tmp_path / "a.pt")
    with pytest.raises(UserError, match="share their elements too often"):
        load(tmp_path / "a.pt", "x")


def repacked(path: Path, change: Callable[[str, bytes], bytes], packed: str = "") -> None:
    """The same zip with other contents, one member deflated."""
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            kind = zipfile.ZIP_DEFLATED if packed and name.endswith(packed) else zipfile.ZIP_STORED
            archive.writestr(name, change(name, content), kind)


@pytest.mark.parametrize(
    ("change", "packed", "message"),
    [
        (lambda name, content: content, "data.pkl", "a record in it is compressed"),
        (lambda name, content: content, "data/0", "a record in it is compressed"),
        (lambda name, content: content[: 8 if "data/0" in name else None], "", "has 8 bytes for"),
        (lambda name, content: b"big" if "byteorder" in name else content, "", "little-endian"),
        (lambda name, content: b"." if "data.pkl" in name else content, "", "not a sound pickle"),
    ],
)
def test_zips_that_do_not_hold_what_they_say_are_refused(
    change: Callable[[str, bytes], bytes], packed: str, message: str, tmp_path: Path
) -> None:
    torch.save(torch.ones(100), tmp_path / "a.pt")
    repacked(tmp_path / "a.pt", lambda name, content: content)
    assert torch.equal(load(tmp_path / "a.pt", "x"), torch.ones(100))
    repacked(tmp_path / "a.pt", change, packed)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.pt", "x")


def test_a_stream_that_names_more_than_it_has_takes_no_memory(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(torch.ones(3), buffer, _use_new_zipfile_serialization=False)
    content = buffer.getvalue()
    large = content.replace(b"K\x03N", b"J\xff\xff\xff\x7fN")  # the number of elements
    assert large != content
    for bad in (large, content[:-4], content[:-16] + struct.pack("<q", 4) + content[-8:], b""):
        (tmp_path / "a.pt").write_bytes(bad)
        with pytest.raises(UserError, match=r"^x"):
            load(tmp_path / "a.pt", "x")
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(UserError, match=r"^x"):
        load(tmp_path / "a.pt", "x")


def test_every_flipped_bit_of_a_tensor_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(torch.ones(64), path)
    content = path.read_bytes()
    start = content.index(torch.ones(64).numpy().tobytes())
    for position in range(start, start + 256, 13):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        )
        with pytest.raises(UserError, match="checksum"):
            load(path, "x")
