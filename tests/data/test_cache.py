"""The cache of decoded images: made once, shared, limited, never stale, never trusted blindly."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from data.cache import cache_folder, cached_images, clear, entries
from data.dataset import ImageDataset
from torch_utils.errors import UserError
from torch_utils.images import save_png


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_images(folder: Path, num: int = 5, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    for index in range(num):
        image = random.integers(0, 256, (3, 6, 8), dtype=np.uint8)
        save_png(folder / f"{index}.png", image)
    return folder


def test_the_first_call_decodes_and_the_next_one_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = ImageDataset(write_images(tmp_path / "images"))
    expected = dataset.load()
    np.testing.assert_array_equal(cached_images(dataset), expected)
    monkeypatch.setattr(ImageDataset, "load", lambda *_, **__: pytest.fail("decoded again"))
    again = cached_images(dataset)
    assert isinstance(again, np.memmap)
    np.testing.assert_array_equal(again, expected)
    again[0] = 0  # writing changes no file
    np.testing.assert_array_equal(cached_images(dataset), expected)


def test_processes_decode_what_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.cache.MIN_FOR_PROCESSES", 1)
    monkeypatch.setattr("data.workers.RANGE", 7)
    dataset = ImageDataset(write_images(tmp_path / "images", num=40), max_size=30, subset_seed=2)
    np.testing.assert_array_equal(cached_images(dataset), dataset.load())
    save_png(tmp_path / "images" / "zz.png", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(UserError, match=r"zz\.png"):
        cached_images(ImageDataset(tmp_path / "images"))
    assert len(entries()) == 1


def test_a_dataset_travels_to_another_process_as_what_opens_it(tmp_path: Path) -> None:
    import copy

    dataset = ImageDataset(write_images(tmp_path / "images"), max_size=3, subset_seed=1)
    other = copy.copy(dataset)
    assert other is not dataset
    assert other.names == dataset.names
    np.testing.assert_array_equal(other.load(), dataset.load())


def test_other_content_or_another_subset_is_another_entry(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    cached_images(ImageDataset(images))
    cached_images(ImageDataset(images, max_size=3))
    cached_images(ImageDataset(images, max_size=3, subset_seed=1))
    assert len(entries()) == 3
    write_images(images, num=1, seed=9)
    changed = ImageDataset(images)
    np.testing.assert_array_equal(cached_images(changed), changed.load())
    assert len(entries()) == 4


def test_a_damaged_entry_is_made_again(tmp_path: Path) -> None:
    dataset = ImageDataset(write_images(tmp_path / "images"))
    cached_images(dataset)
    (entry,) = entries()
    for content in (b"", b"junk", entry.path.read_bytes()[:-10]):
        entry.path.write_bytes(content)
        np.testing.assert_array_equal(cached_images(dataset), dataset.load())


def _ask(path: str, num: int) -> None:
    assert len(cached_images(ImageDataset(path))) == num


def test_processes_that_start_at_once_share_one_entry(tmp_path: Path, folder: Path) -> None:
    images = write_images(tmp_path / "images", num=40)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_ask, args=(str(images), 40)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert len(entries()) == 1
    assert not list(folder.glob("*.tmp-*"))


def test_the_oldest_entries_go_when_the_limit_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 5 * 3 * 6 * 8 + 128  # an .npy has a header of 128 bytes
    monkeypatch.setenv("DRIFTLESS_CACHE_GB", str(2.5 * size / 1e9))
    sets = [ImageDataset(write_images(tmp_path / name, seed=i)) for i, name in enumerate("abc")]
    for age, dataset in enumerate(sets[:2]):
        cached_images(dataset)
        path = next(entry.path for entry in entries() if entry.path.name.startswith(dataset.name))
        os.utime(path, (1000 + age, 1000))
    cached_images(sets[2])
    assert sorted(entry.path.name[0] for entry in entries()) == ["b", "c"]
    monkeypatch.setenv("DRIFTLESS_CACHE_GB", "1e-9")  # larger than the cache: in memory
    np.testing.assert_array_equal(cached_images(sets[0]), sets[0].load())
    assert len(entries()) == 2
    monkeypatch.setenv("DRIFTLESS_CACHE_GB", "much")
    with pytest.raises(UserError, match="DRIFTLESS_CACHE_GB"):
        cached_images(sets[0])


def test_without_a_folder_to_write_images_are_decoded_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path / "file" / "cache"))
    dataset = ImageDataset(write_images(tmp_path / "images"))
    np.testing.assert_array_equal(cached_images(dataset), dataset.load())


def test_clearing_frees_everything(tmp_path: Path) -> None:
    cached_images(ImageDataset(write_images(tmp_path / "images")))
    assert clear() > 0
    assert entries() == []
    assert cache_folder() == tmp_path / "cache"


def test_a_public_set_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data import convert as module
    from data.convert import as_dataset
    from data.sources import open_source

    opened = []

    def local(path: str, *options: object) -> object:
        """The network is not there: what torchvision would bring comes from a folder."""
        opened.append(path)
        return open_source(str(write_images(tmp_path / "images")), *options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "open_source", local)
    first = as_dataset("torchvision:CIFAR10")
    assert as_dataset("torchvision:CIFAR10") == first
    assert opened == ["torchvision:CIFAR10"]
    assert first.parent == cache_folder() / "converted"
    assert len(ImageDataset(first)) == 5
    assert as_dataset(tmp_path / "images") == tmp_path / "images"
