"""Bounds of the readers: bytes that really come, kinds of files, names; each is one line."""

import bz2
import gzip
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.archive import ImageArchive
from data.check import problems_of
from data.convert import convert
from data.dataset import ImageDataset
from data.decoding import open_picture
from data.sources import open_source
from tests.data.files import encoded, index, random_image, write_folder, write_zip
from torch_utils.errors import UserError

PNG = encoded(random_image(0))


def refused(act: Callable[[], object], message: str) -> str:
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert str(caught.value).isprintable()
    return str(caught.value)


# kinds and names of files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
@pytest.mark.parametrize("name", ["a.png", "dataset.json"])
def test_pipes_and_devices_in_a_folder_are_named_and_not_waited_for(
    name: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "pets", {"b.png": PNG})
    os.mkfifo(folder / name)
    refused(lambda: convert(str(folder), str(tmp_path / "o.zip")), f"{name} is a pipe, device")
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    refused(lambda: convert(str(folder), str(tmp_path / "o.zip")), f"{name} is a pipe, device")
    assert any("is a pipe, device" in problem for problem in problems_of(str(folder)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
@pytest.mark.parametrize(
    "name",
    ["a.zip", "a.npy", "a.npz", "a.lmdb", "cifar-10-python.tar.gz", "train-images-idx3-ubyte"],
)
def test_pipes_in_place_of_a_source_are_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "train-labels-idx1-ubyte").touch()
    refused(lambda: open_source(tmp_path / name), "pipe, device|no folder or zip|not a folder")


ODD_NAMES = [b"\xff\xfe.png", b"a\x1b[31mred.png", b"a\nb.png", "ä\u202e.png".encode()]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_of_any_bytes_are_read_and_shown_in_one_line(name: bytes, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets", {"z.png": PNG})
    path = os.fsencode(folder) + b"/" + name
    Path(os.fsdecode(path)).write_bytes(PNG)
    assert convert(str(folder), str(tmp_path / "o.zip")) == 2
    dataset = ImageDataset(folder)
    assert len(dataset.load(progress=False)) == 2
    assert len(dataset.content_key()) == 32
    Path(os.fsdecode(path)).write_bytes(PNG[:40])
    problems = list(problems_of(str(folder)))
    assert problems
    assert all(problem.isprintable() for problem in problems)
    refused(lambda: convert(str(folder), str(tmp_path / "p.zip")), "remove it")


def test_members_of_odd_names_are_read_and_those_of_none_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", {"a.png": PNG, "\x1b[2J.png": PNG})
    assert convert(str(path), str(tmp_path / "o.zip")) == 2
    with zipfile.ZipFile(path, "a") as archive:
        nameless = zipfile.ZipInfo("x")
        nameless.filename = ""
        archive.writestr(nameless, b"nothing")
    refused(lambda: ImageArchive(path), "a member without a name")


# members of zips


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_read_and_bounded_whatever_packs_them(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "s.zip", "w", method) as archive:
        archive.writestr("a.png", PNG)
        archive.writestr("b.png", bytes(2**20))
    read = ImageArchive(tmp_path / "s.zip").read
    assert read("a.png") == PNG
    assert read("b.png") == bytes(2**20)
    refused(lambda: read("b.png", 2**20 - 1), "has 1048576 bytes, more than 1048575")


def test_a_member_that_becomes_more_than_its_header_says_is_cut_off(tmp_path: Path) -> None:
    """Some bytes of bzip2 become megabytes, if nobody stops them."""
    stream = bz2.BZ2Compressor()
    packed = b"".join([*(stream.compress(bytes(2**24)) for _ in range(2)), stream.flush()])
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("a.png", packed)
    content = (tmp_path / "s.zip").read_bytes()
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    patched = bytearray(content)
    for start, offset in ((local, 8), (central, 10)):
        struct.pack_into("<H", patched, start + offset, zipfile.ZIP_BZIP2)
    for start, offset in ((local, 22), (central, 24)):
        struct.pack_into("<I", patched, start + offset, 100)
    (tmp_path / "s.zip").write_bytes(patched)
    refused(lambda: ImageArchive(tmp_path / "s.zip").read("a.png"), "checksum is wrong")


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", {f"{n}.png": bytes(5000) for n in range(3)})
    content = bytearray(path.read_bytes())
    start = -1
    for _ in range(3):
        start = content.index(b"PK\x01\x02", start + 1)
        struct.pack_into("<I", content, start + 42, 0)  # all of them are the first
        struct.pack_into("<II", content, start + 20, 15000, 15000)
    path.write_bytes(content)
    refused(lambda: ImageArchive(path), "overlap")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"labels": [' + b"[]," * 40 + b"[]]}", "more than 50 values"),
        (b'{"labels": ' + b"[" * 40 + b"]" * 40 + b"}", "labels must be"),
        (b"[" * 100_000, "more than 50 values"),
        (b'{"a":' * 20 + b"1" + b"}" * 20, "more than 50 values"),
    ],
)
def test_an_index_of_too_many_values_is_refused(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.archive.MAX_INDEX_VALUES", 50)
    path = write_zip(tmp_path / "s.zip", {"a.png": PNG, "dataset.json": content})
    refused(ImageArchive(path).labels, message)


def test_a_deep_or_large_index_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "s.zip", {"a.png": PNG, "dataset.json": b"[" * 100_000})
    refused(ImageArchive(path).labels, "not valid JSON")
    monkeypatch.setattr("data.archive.MAX_INDEX_BYTES", 50)
    large = index({"a.png": 1}, x="y" * 50)
    path = write_zip(tmp_path / "s.zip", {"a.png": PNG, "dataset.json": large})
    refused(ImageArchive(path).labels, "bytes, more than 50")


# what grows when it is unpacked


@pytest.fixture
def little_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_utils.bounded.FREE_GROWTH", 2**16)


@pytest.mark.usefixtures("little_growth")
def test_arrays_that_grow_a_thousandfold_are_refused(tmp_path: Path) -> None:
    images = np.zeros((100, 32, 32), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", images=images)
    refused(lambda: open_source(tmp_path / "a.npz"), "save them uncompressed")
    np.savez(tmp_path / "a.npz", images=images)
    assert len(open_source(tmp_path / "a.npz")) == 100
    np.savez_compressed(tmp_path / "a.npz", images=images[:9])
    assert len(open_source(tmp_path / "a.npz")) == 9


@pytest.mark.usefixtures("little_growth")
def test_idx_files_that_grow_a_thousandfold_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 100) + bytes(100)))
    content = struct.pack(">HBB3I", 0, 8, 3, 100, 32, 32) + bytes(100 * 32 * 32)
    path.write_bytes(gzip.compress(content))
    refused(lambda: open_source(path), "unpacks to more than")
    noise = np.random.default_rng(0).bytes(100 * 32 * 32)
    path.write_bytes(gzip.compress(content[:16] + noise))
    assert len(open_source(path)) == 100


def test_gzip_streams_behind_each_other_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 2) + bytes(2)))
    content = struct.pack(">HBB3I", 0, 8, 3, 2, 5, 5) + bytes(range(50))
    path.write_bytes(gzip.compress(content[:20]) + gzip.compress(content[20:]) + bytes(700))
    assert open_source(path).read(1)[0].tolist()[0] == [25, 26, 27, 28, 29]
    path.write_bytes(gzip.compress(content[:20]) * 2000)
    refused(lambda: open_source(path), "more than 1024 streams")


def tar(*members: tuple[bytes, bytes]) -> bytes:
    """A tar of (kind, content); a kind x or L is a header of attributes or of a long name."""
    parts = []
    for kind, content in members:
        info = tarfile.TarInfo("data_batch_1")
        info.size = len(content)
        info.type = kind
        parts += [info.tobuf(), content, bytes(-len(content) % 512)]
    return b"".join([*parts, bytes(1024)])


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_of_a_tar_are_bounded_like_its_files(
    kind: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.sources.cifar.MAX_BYTES", 2**16)
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(gzip.compress(tar((kind, bytes(2**17)))))
    refused(lambda: open_source(path), "larger than it can be")
    path.write_bytes(gzip.compress(tar((kind, b"20 path=abcdefghij\n"), (b"0", b"x"))))
    refused(lambda: open_source(path), "has no member 'batches.meta'")


def test_a_wrong_sum_in_a_tar_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    content = bytearray(tar((b"0", b"x")))
    content[0] ^= 1
    path.write_bytes(gzip.compress(bytes(content)))
    refused(lambda: open_source(path), "a header in it is damaged")


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def test_a_picture_of_few_bytes_and_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 2**16, 2**16, 8, 6, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    path = write_folder(tmp_path / "pets", {"a.png": content, "b.png": PNG})
    refused(lambda: convert(str(path), str(tmp_path / "o.zip")), "more than 134217728 pixels")


def test_pictures_of_parts_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.decoding.MAX_READS", 500)
    start = 8 + 25
    for number, message in ((20, None), (2000, "more than 500 parts")):
        content = PNG[:start] + chunk(b"tEXt", b"a\0b") * number + PNG[start:]
        if message is None:
            open_picture(content, "a.png")
        else:
            refused(lambda content=content: open_picture(content, "a.png"), message)  # type: ignore[misc]
    jpeg = encoded(random_image(0), "jpeg", progressive=True)
    open_picture(jpeg + b"\xff\xda" * 200, "a.jpg")  # what follows the picture may be anything
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    refused(lambda: open_picture(jpeg[:-2] + scan * 200, "a.jpg"), "more than 100 scans")


def test_a_picture_much_larger_than_the_first_is_not_decoded(tmp_path: Path) -> None:
    large = encoded(np.zeros((4096, 2048), np.uint8))
    path = write_zip(tmp_path / "s.zip", {"a.png": PNG, "b.png": large})
    message = "has 2048x4096 pixels, the first image has 24: bring all to one size"
    refused(lambda: ImageDataset(path).load(progress=False), message)


def test_images_that_need_more_memory_than_there_is_are_one_line(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    first = encoded(np.zeros((8192, 8192), np.uint8))
    files = {f"{number}.png": b"" for number in range(1023)}
    path = write_zip(tmp_path / "s.zip", {"-.png": first} | files)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (2**35, hard))
    try:
        message = "1024 images of 8192x8192 pixels and 1 channel, which need 64 GiB"
        refused(lambda: ImageDataset(path).load(progress=False), message)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
