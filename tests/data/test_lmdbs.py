"""Damaged lmdb files: the process that reads them may die, ours does not."""

from pathlib import Path

import numpy as np
import pytest

from data.parallel import ordered_map
from data.sources import lmdbs
from data.sources.lmdbs import open_lmdb
from tests.data.files import encoded, random_image
from torch_utils.errors import Failure, UserError

lmdb = pytest.importorskip("lmdb")
IMAGES = {f"{number:04d}".encode(): encoded(random_image(number)) for number in range(60)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a sound file with several pages."""
    path = tmp_path_factory.mktemp("lmdb") / "a.lmdb"
    environment = lmdb.open(str(path), map_size=2**20, subdir=False)
    with environment, environment.begin(write=True) as transaction:
        for key, value in IMAGES.items():
            transaction.put(key, value)
        transaction.put(b"9000", encoded(random_image(1, 40, 60)))  # on pages of its own
    return path.read_bytes()


def outcomes(path: Path) -> list[str]:
    """How reading each entry ended, or that there was nothing to read."""
    try:
        source = open_lmdb(str(path))
    except UserError as error:
        return [str(error)]
    found = []
    for index in range(len(source)):
        try:
            source.read(index)
            found.append("read")
        except UserError as error:
            found.append(str(error))
    return found


def test_a_file_cut_short_is_one_line_or_leaves_its_images_out(
    whole: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.lmdb"
    for size in (0, 100, 4096, 8192, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:size])
        assert any("it is damaged" in line for line in outcomes(path))
    path.write_bytes(whole)
    assert outcomes(path) == ["read"] * 61


def test_pages_that_lead_anywhere_end_the_child_only(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    random = np.random.default_rng(0)
    lines = []
    for _ in range(6):
        content = bytearray(whole)
        for page in range(2, len(whole) // 4096):  # the pages' own headers and pointers
            for offset in random.integers(10, 60, 6):
                content[4096 * page + offset] ^= int(random.integers(1, 256))
        path.write_bytes(content)
        lines += outcomes(path)
    assert any("it is damaged" in line for line in lines)


def test_after_a_death_the_rest_is_read_until_there_are_too_many(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.lmdb"
    path.write_bytes(whole)
    reader = lmdbs._Reader(str(path))
    keys = reader.keys()

    def kill() -> None:
        assert reader._child is not None
        reader._child.process.kill()
        reader._child.process.wait()

    monkeypatch.setattr("data.sources.lmdbs.MAX_DEATHS", 2)
    for index in (3, 4):
        kill()
        with pytest.raises(UserError, match=r"cannot read x \(.*\): it is damaged"):
            reader.value(keys[index], "x")
        assert reader.value(keys[index], "x") == IMAGES[keys[index]]
    kill()
    with pytest.raises(Failure, match="damaged in more than 2 places"):
        reader.value(keys[5], "x")


@pytest.mark.parametrize("seed", range(4))
def test_values_are_those_of_their_keys_in_any_order(
    seed: int, whole: bytes, tmp_path: Path
) -> None:
    """In order, where the next one is read ahead; with jumps, back and again; by threads."""
    path = tmp_path / "a.lmdb"
    path.write_bytes(whole)
    source = open_lmdb(str(path))
    random = np.random.default_rng(seed)
    starts = random.integers(0, 56, 20)
    order = [number for start in starts for number in range(start, start + random.integers(1, 5))]

    def check(number: int) -> None:
        np.testing.assert_array_equal(source.read(number)[0], random_image(number))

    for number in order:
        check(number)
    assert list(ordered_map(check, order, num_threads=3)) == [None] * len(order)


def test_a_death_while_another_value_was_read_ahead_is_not_this_ones(
    whole: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.lmdb"
    path.write_bytes(whole)
    reader = lmdbs._Reader(str(path))
    keys = reader.keys()
    for number in (0, 1):
        assert reader.value(keys[number], "x", keys[number + 1]) == IMAGES[keys[number]]
    assert reader._ahead == keys[2]
    assert reader._child is not None
    assert reader._child.receive() == IMAGES[keys[2]]
    reader._child.process.kill()  # before an answer that is still due
    assert reader.value(keys[7], "x") == IMAGES[keys[7]]
    assert reader.value(keys[2], "x") == IMAGES[keys[2]]
