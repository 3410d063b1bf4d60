"""The cache on full disks and in others' folders, damaged, and in processes that are killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.cache import cache_folder, cache_limit, cached_images, clear, entries
from data.dataset import ImageDataset
from data.writer import DatasetWriter, encode
from tests.command import ENVIRONMENT
from tests.machines.conditions import file_limit, small_disk, unprivileged
from torch_utils import notes
from torch_utils.errors import UserError
from torch_utils.locks import holding

NUM = 400
BYTES = NUM * 3 * 32 * 32  # more than a megabyte


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pictures.zip"
    random = np.random.default_rng(0)
    with DatasetWriter(path) as writer:
        for index in range(NUM):
            image = random.integers(0, 256, (3, 32, 32), dtype=np.uint8)
            writer.add(encode(image), index=index, origin="test")
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(notes, "_said", set())
    return tmp_path / "cache"


@pytest.fixture(params=["threads", "processes"])
def _decoders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "processes":
        use_processes(monkeypatch)


def use_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.cache.MIN_FOR_PROCESSES", 1)
    monkeypatch.setattr("data.cache.num_cores", lambda: 2)
    monkeypatch.setattr("data.workers.RANGE", 100)


def assert_decoded_into_memory(
    dataset: ImageDataset, capsys: pytest.CaptureFixture[str], *words: str
) -> None:
    images = cached_images(dataset)
    assert not isinstance(images, np.memmap)
    np.testing.assert_array_equal(images, dataset.load(progress=False))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {dataset.name} is decoded into memory, 0.00123 GB")
    for word in words:
        assert word in line


@pytest.mark.usefixtures("_decoders")
def test_a_full_disk_is_no_reason_to_stop(
    archive: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(folder, "1m"):
        assert_decoded_into_memory(ImageDataset(archive), capsys, "No space left", str(folder))
        assert [path.suffix for path in folder.iterdir()] == [".lock"]
        (folder / "filler").write_bytes(bytes(900_000))  # the space has been given back


@pytest.mark.usefixtures("_decoders")
def test_a_limit_of_file_sizes_is_no_reason_to_stop(
    archive: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with file_limit(BYTES // 2):
        assert_decoded_into_memory(ImageDataset(archive), capsys, "File too large")
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_the_space_is_reserved_also_where_the_system_has_no_call_for_it(
    archive: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with file_limit(BYTES // 2):
        assert_decoded_into_memory(ImageDataset(archive), capsys, "File too large")
    assert isinstance(cached_images(ImageDataset(archive)), np.memmap)
    (entry,) = entries()
    assert entry.path.stat().st_blocks * 512 >= BYTES  # not sparse


def test_entries_are_read_where_nothing_can_be_written(
    archive: Path,
    open_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DRIFTLESS_CACHE", str(open_folder))
    dataset, other = ImageDataset(archive), ImageDataset(archive, max_size=NUM - 1)
    expected = np.array(cached_images(dataset))
    open_folder.chmod(0o555)
    with unprivileged():
        found = cached_images(dataset)
        assert isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, expected)
        assert capsys.readouterr().err == ""
        assert_decoded_into_memory(other, capsys, "Permission denied")
    open_folder.chmod(0o777)


def test_an_entry_is_used_although_its_time_of_use_cannot_be_set(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = ImageDataset(archive)
    expected = np.array(cached_images(dataset))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(ImageDataset, "load", lambda *_, **__: pytest.fail("decoded again"))
    np.testing.assert_array_equal(cached_images(dataset), expected)


def test_others_entries_stay_and_do_no_harm(
    archive: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid():
        pytest.skip("only root can write as somebody else")
    open_folder.chmod(0o1777)  # as /tmp: nobody deletes what is another user's
    monkeypatch.setenv("DRIFTLESS_CACHE", str(open_folder))
    cached_images(ImageDataset(archive))
    other = ImageDataset(archive, max_size=NUM - 1)
    monkeypatch.setenv("DRIFTLESS_CACHE_GB", str(1.5 * BYTES / 1e9))
    with unprivileged():
        assert isinstance(cached_images(other), np.memmap)
        assert len(entries()) == 2
        with pytest.raises(UserError, match="1 of 2 entries"):
            clear()
        assert len(entries()) == 1


@pytest.mark.parametrize("place", [0, 60, 127, 128, BYTES // 2, -41, -40, -5, -1])
def test_an_entry_with_one_wrong_byte_is_made_again(
    archive: Path, place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = ImageDataset(archive)
    expected = np.array(cached_images(dataset))
    (entry,) = entries()
    content = bytearray(entry.path.read_bytes())
    content[place] ^= 1
    entry.path.write_bytes(content)
    np.testing.assert_array_equal(cached_images(dataset), expected)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"warning: {entry.path} is damaged: it is made again"
    np.testing.assert_array_equal(cached_images(dataset), expected)
    assert capsys.readouterr().err == ""


def test_an_entry_is_an_npy_that_other_programs_read(archive: Path) -> None:
    images = cached_images(ImageDataset(archive))
    (entry,) = entries()
    np.testing.assert_array_equal(np.load(entry.path), images)


@pytest.mark.parametrize("text", ["nan", "-1", "much", "1e", "-inf"])
def test_a_limit_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLESS_CACHE_GB", text)
    with pytest.raises(UserError, match=f"^DRIFTLESS_CACHE_GB is '{text}': give a number"):
        cache_limit()


def test_the_limit_can_be_none_at_all_or_nothing(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = ImageDataset(archive)
    for text in ("inf", "1e999", ""):
        monkeypatch.setenv("DRIFTLESS_CACHE_GB", text)
        assert isinstance(cached_images(dataset), np.memmap)
    monkeypatch.setenv("DRIFTLESS_CACHE_GB", "0.001")
    assert_decoded_into_memory(dataset, capsys, "more than DRIFTLESS_CACHE_GB=0.001 allows")
    monkeypatch.setenv("DRIFTLESS_CACHE_GB", "0")
    assert not isinstance(cached_images(dataset), np.memmap)
    assert capsys.readouterr().err == ""  # as asked


DECODE = r"""
import os, sys, time
from data import cache, workers
from data.dataset import ImageDataset

class Slow(ImageDataset):
    def load_range(self, out, first, stop):
        os.write(1, b"decoding\n")
        time.sleep(120)

cache.MIN_FOR_PROCESSES, workers.RANGE, cache.num_cores = 1, 100, lambda: 2
cache.cached_images(Slow(sys.argv[1]), progress=False)
"""


def test_processes_that_decode_end_with_their_parent_and_leave_neither_lock_nor_file(
    archive: Path, folder: Path
) -> None:
    command = [sys.executable, "-c", DECODE, str(archive)]
    environment = {**ENVIRONMENT, "DRIFTLESS_CACHE": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "decoding\n"
    assert list(folder.glob(".*.tmp-*"))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)  # returns when no process has the pipe any more
    (lock,) = folder.glob(".*.lock")
    with holding(lock, "test", wait=False) as is_held:
        assert is_held
    dataset = ImageDataset(archive)
    np.testing.assert_array_equal(cached_images(dataset), dataset.load(progress=False))
    assert sorted(path.suffix for path in folder.iterdir()) == [".lock", ".npy"]


class Fatal(ImageDataset):
    """Decoding kills the process, if it is not the first one."""

    parent = os.getpid()

    def load_range(self, out: np.ndarray, first: int, stop: int) -> None:
        if os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        super().load_range(out, first, stop)


def test_a_process_that_is_killed_while_decoding_does_not_end_the_work(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_processes(monkeypatch)
    images = cached_images(Fatal(archive))
    assert isinstance(images, np.memmap)
    np.testing.assert_array_equal(images, ImageDataset(archive).load(progress=False))
    assert "a process that decoded images was killed" in capsys.readouterr().err


def test_a_home_that_cannot_be_had_does_not_end_the_work(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pwd
    import tempfile

    def unknown(*_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "DRIFTLESS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(archive))  # where no folder can be made
    assert_decoded_into_memory(ImageDataset(archive), capsys, "DRIFTLESS_CACHE")
    with pytest.raises(UserError, match="no folder to keep files in"):
        cache_folder()
