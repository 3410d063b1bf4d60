"""Images in an .npz: in order, in parts, checked by their checksum, and with little memory."""

import io
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metrics.npz_images import NpzImages, is_npz
from tests.command import run
from torch_utils.errors import UserError
from torch_utils.subsets import subset_indices

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 4, 5, 3), dtype=np.uint8)
PLAIN = IMAGES.transpose(0, 3, 1, 2)
SAVE: dict[str, Any] = {"stored": np.savez, "deflated": np.savez_compressed}


def saved(path: Path, method: str = "stored", images: np.ndarray = IMAGES) -> Path:
    SAVE[method](path, images, np.arange(len(images)))
    return path


@pytest.mark.parametrize("method", SAVE)
@pytest.mark.parametrize(("first", "stop"), [(0, None), (0, 23), (5, 17), (20, 23), (9, 9)])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_range_is_read_in_batches(
    tmp_path: Path, method: str, first: int, stop: int | None, size: int
) -> None:
    images = NpzImages(saved(tmp_path / "a.npz", method))
    found = list(images.batches(size, first, stop))
    expected = PLAIN[first:stop]
    np.testing.assert_array_equal(np.concatenate([expected[:0], *found]), expected)
    assert [len(part) for part in found[:-1]] == [size] * len(found[:-1])
    assert all(part.flags.c_contiguous and part.flags.writeable for part in found)


@pytest.mark.parametrize("method", SAVE)
def test_large_images_come_in_several_parts_whole(tmp_path: Path, method: str) -> None:
    large = np.random.default_rng(1).integers(0, 256, (3, 700, 900, 3), dtype=np.uint8)
    images = NpzImages(saved(tmp_path / "a.npz", method, large))
    (batch,) = images.batches(2, 1)
    np.testing.assert_array_equal(batch, large[1:].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("method", SAVE)
def test_a_subset_is_that_of_data_sets(tmp_path: Path, method: str) -> None:
    images = NpzImages(saved(tmp_path / "a.npz", method)).subset(8, 3)
    chosen = PLAIN[subset_indices(23, 8, 3)]
    assert len(images) == 8
    np.testing.assert_array_equal(np.concatenate(list(images.batches(3))), chosen)
    np.testing.assert_array_equal(np.concatenate(list(images.batches(3, 2, 7))), chosen[2:7])
    again = np.concatenate(list(images.subset(2).batches(3)))
    np.testing.assert_array_equal(again, chosen[subset_indices(8, 2)])


def test_the_content_key_is_that_of_the_images_and_not_of_the_file(tmp_path: Path) -> None:
    stored = NpzImages(saved(tmp_path / "a.npz"))
    key = stored.content_key()
    assert len(key) == 32
    assert NpzImages(saved(tmp_path / "b.npz", "deflated")).content_key() == key
    assert stored.subset(8, 3).content_key() != key
    assert stored.subset(8, 3).content_key() != stored.subset(8, 4).content_key()
    other = IMAGES.copy()
    other[7, 1, 2, 0] ^= 1
    assert NpzImages(saved(tmp_path / "c.npz", images=other)).content_key() != key
    turned = IMAGES.reshape(23, 5, 4, 3)
    assert NpzImages(saved(tmp_path / "d.npz", images=turned)).content_key() != key


def test_gray_images_have_one_channel(tmp_path: Path) -> None:
    images = NpzImages(saved(tmp_path / "a.npz", images=IMAGES[..., :1]))
    assert (images.image_shape, images.name) == ((1, 4, 5), "a")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (IMAGES.astype("f4"), r"arr_0: float32 \[23, 4, 5, 3\]; expected arr_0: uint8"),
        (PLAIN.repeat(2, axis=3), r"arr_0: uint8 \[23, 3, 4, 10\]; .*channels last"),
        (IMAGES[0], "expected arr_0"),
        (IMAGES[:0], "expected arr_0"),
        (np.asfortranarray(IMAGES), "Fortran order"),
        (np.array([{}], dtype=object), "damaged or not an .npz file: an array of type object"),
    ],
    ids=["float", "channels-first", "one", "none", "fortran", "objects"],
)
def test_other_arrays_are_refused_in_one_line(
    tmp_path: Path, array: np.ndarray, message: str
) -> None:
    np.savez(tmp_path / "a.npz", array)
    with pytest.raises(UserError, match=message) as caught:
        NpzImages(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


def test_a_file_without_images_says_what_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, y=np.zeros(3))
    with pytest.raises(UserError, match="has the arrays images, y: expected arr_0"):
        NpzImages(tmp_path / "a.npz")


@pytest.mark.parametrize("method", SAVE)
def test_a_flipped_bit_is_found_when_all_is_read(tmp_path: Path, method: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (20, 99, 99, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.npz", method, noise)
    content = bytearray(path.read_bytes())
    content[200_000] ^= 1
    path.write_bytes(content)
    images = NpzImages(path)
    with pytest.raises(UserError, match="is damaged"):
        images.content_key()
    with pytest.raises(UserError, match="is damaged"):
        list(images.batches(4))


@pytest.mark.parametrize("method", SAVE)
def test_a_file_that_is_replaced_while_it_is_read_is_noticed(tmp_path: Path, method: str) -> None:
    images = NpzImages(saved(tmp_path / "a.npz", method))
    saved(tmp_path / "a.npz", method, IMAGES[:9])
    with pytest.raises(UserError, match="was changed while it was read"):
        list(images.batches(4))


def test_images_that_unpack_to_too_much_are_refused(tmp_path: Path) -> None:
    archive = zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("arr_0.npy", "w") as file:
        file.write(header((280, 1000, 1000, 1)))
        for _ in range(280):
            file.write(bytes(10**6))
    with pytest.raises(UserError, match="more bytes of images than can be true"):
        NpzImages(tmp_path / "a.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings_are_refused(tmp_path: Path, method: int) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.write(tmp_path / "a.npy", "arr_0.npy")
    with pytest.raises(UserError, match=f"packed by the method {method}"):
        NpzImages(tmp_path / "a.npz")


def test_archives_of_arrays_are_told_from_data_sets(tmp_path: Path) -> None:
    assert is_npz(saved(tmp_path / "a.npz"))
    assert is_npz((tmp_path / "a.npz").rename(tmp_path / "a.zip"))
    (tmp_path / "b.npz").write_bytes(b"PK damaged")
    (tmp_path / "b.zip").write_bytes(b"PK damaged")
    assert is_npz(tmp_path / "b.npz")
    assert not is_npz(tmp_path / "b.zip")
    assert not is_npz(tmp_path)
    assert not is_npz(tmp_path / "absent.npz")


def header(shape: tuple[int, ...]) -> bytes:
    """The header of a .npy of images."""
    file = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)  # type: ignore[arg-type]
    return file.getvalue()


def write_with_a_hole(path: Path, start: bytes, size: int, end: bytes) -> None:
    """A zip64 of one stored arr_0.npy, whose zeros between start and end take no room on disk."""
    total, name = len(start) + size + len(end), b"arr_0.npy"
    sizes = struct.pack("<HHQQ", 1, 16, total, total)
    common = struct.pack("<HHHHIIIHH", 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), len(sizes))
    with open(path, "wb") as file:
        file.write(b"PK\3\4" + struct.pack("<H", 45) + common + name + sizes + start)
        file.seek(size, os.SEEK_CUR)
        file.write(end)
        directory = file.tell()
        file.write(b"PK\1\2" + struct.pack("<HH", 45, 45) + common + bytes(14) + name + sizes)
        stop = file.tell()
        counts = (44, 45, 45, 0, 0, 1, 1, stop - directory, directory)
        file.write(b"PK\6\6" + struct.pack("<QHHIIQQQQ", *counts))
        file.write(b"PK\6\7" + struct.pack("<IQI", 0, stop, 1))
        file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 2**32 - 1, 2**32 - 1, 0))


def run_with_little_memory(tmp_path: Path, script: str, path: Path) -> str:
    """What a script prints that is run with 300 MiB and the path as its argument."""
    (tmp_path / "script.py").write_text(script)
    done = run("tests/limited.py", 300, tmp_path / "script.py", path)
    path.unlink()
    assert done.returncode == 0, done.stderr
    return done.stdout


READ_RANGES = """
import sys
from metrics.npz_images import NpzImages
images = NpzImages(sys.argv[1])
assert len(images) == 50_000
for first in (0, 25_000, 49_990):
    for batch in images.batches(8, first, first + 10):
        assert batch.shape[1:] == (3, 256, 256)
print(batch[-1, 2, 255, 255])
"""


def test_ten_gigabytes_of_samples_are_read_with_little_memory(tmp_path: Path) -> None:
    path, shape = tmp_path / "samples.npz", (50_000, 256, 256, 3)
    write_with_a_hole(path, header(shape), math.prod(shape) - 1, b"\7")
    assert run_with_little_memory(tmp_path, READ_RANGES, path) == "7\n"


READ_STATISTICS = """
import sys
from metrics.foreign import open_reference
print(len(open_reference(sys.argv[1], "inception").gaussian.mu))
found = open_reference(sys.argv[1], "inception", wants_features=True)
print(len(found), len(found.gaussian.mu))
"""


def test_statistics_beside_many_images_are_read_with_little_memory(tmp_path: Path) -> None:
    path, shape = tmp_path / "reference.npz", (2_500, 256, 256, 3)
    write_with_a_hole(path, header(shape), math.prod(shape), b"")
    with zipfile.ZipFile(path, "a") as archive:
        for name, array in {"mu": np.zeros(256), "sigma": np.eye(256)}.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.save(file, array)  # type: ignore[arg-type]
    assert run_with_little_memory(tmp_path, READ_STATISTICS, path) == "256\n2500 256\n"
