"""Keys of data sets: another for other content, the same for a copy, and cheap to have again."""

import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data.cache import cached_images, entries
from data.dataset import ImageDataset
from data.writer import DatasetWriter, encode
from torch_utils.errors import UserError

NUM = 12
TICK = 0.02  # seconds; file systems note times no finer than the system's clock ticks


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path / "cache"))


def one_coloured(dest: Path, value: int, num_classes: int = 3) -> Path:
    """A data set of ours: same names, sizes and bytes of PNG headers, whatever the value."""
    with DatasetWriter(dest) as writer:
        for index in range(NUM):
            image = np.full((3, 16, 16), value, np.uint8)
            writer.add(encode(image), index % num_classes, index=index, origin="test")
    return dest


def unpacked(archive: Path, dest: Path) -> Path:
    """What `unzip` makes: the times are those in the zip."""
    with zipfile.ZipFile(archive) as file:
        file.extractall(dest)
    for path in dest.rglob("*"):
        os.utime(path, (315532800, 315532800))
    return dest


def test_sets_of_equal_names_times_and_sizes_are_told_apart(tmp_path: Path) -> None:
    sets = []
    for name, value in (("a", 10), ("b", 240)):
        archive = one_coloured(tmp_path / name / "pets.zip", value)
        sets.append(ImageDataset(unpacked(archive, tmp_path / name / "pets")))
    first, second = [os.stat(Path(s.path, s.names[0])) for s in sets]
    assert (first.st_size, first.st_mtime_ns) == (second.st_size, second.st_mtime_ns)
    for dataset, value in zip(sets, (10, 240), strict=True):
        assert (cached_images(dataset) == value).all()
    assert len(entries()) == 2
    assert sets[0].content_key() != sets[1].content_key()


def test_a_set_that_takes_the_place_of_another_is_told_apart(tmp_path: Path) -> None:
    place = tmp_path / "pets"
    keys = set()
    for value in (10, 240):
        unpacked(one_coloured(tmp_path / f"{value}.zip", value), place)
        dataset = ImageDataset(place)
        assert (cached_images(dataset) == value).all()
        keys.add(dataset.content_key())
        shutil.rmtree(place)
        time.sleep(TICK)
    assert len(keys) == 2


def test_a_file_overwritten_in_place_at_the_same_time_is_told_apart(tmp_path: Path) -> None:
    folder = unpacked(one_coloured(tmp_path / "x.zip", 10), tmp_path / "x")
    cached_images(ImageDataset(folder))
    path = folder / "00000" / "img00000003.png"
    before = path.stat()
    time.sleep(TICK)
    path.write_bytes(encode(np.full((3, 16, 16), 99, np.uint8)).content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert (cached_images(ImageDataset(folder))[3] == 99).all()


def test_the_content_key_is_that_of_a_copy_wherever_it_lies(tmp_path: Path) -> None:
    archive = one_coloured(tmp_path / "x.zip", 10)
    expected = ImageDataset(archive, use_labels=True).content_key()
    assert len(expected) == 32
    copy = Path(shutil.copy(archive, tmp_path / "renamed.zip"))
    folder = unpacked(archive, tmp_path / "x")
    other = Path(shutil.copytree(folder, tmp_path / "y"))
    (tmp_path / "link").symlink_to(other)
    for path in (copy, folder, other, tmp_path / "link"):
        assert ImageDataset(path, use_labels=True).content_key() == expected
        for _ in range(2):  # decoded, and mapped
            dataset = ImageDataset(path, use_labels=True)
            cached_images(dataset)
            assert dataset.content_key() == expected


def test_processes_that_decode_tell_what_they_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unpacked(one_coloured(tmp_path / "x.zip", 10), tmp_path / "x")
    expected = ImageDataset(folder).content_key()
    monkeypatch.setattr("data.cache.MIN_FOR_PROCESSES", 1)
    monkeypatch.setattr("data.cache.num_cores", lambda: 2)
    monkeypatch.setattr("data.workers.RANGE", 5)
    dataset = ImageDataset(folder)
    cached_images(dataset)
    shutil.rmtree(folder)
    assert dataset.content_key() == expected  # nothing is read again


def test_after_the_first_decoding_no_file_is_read_for_the_key(tmp_path: Path) -> None:
    folder = unpacked(one_coloured(tmp_path / "x.zip", 10), tmp_path / "x")
    first = ImageDataset(folder)
    cached_images(first)
    second = ImageDataset(folder)
    cached_images(second)
    shutil.rmtree(folder)
    assert second.content_key() == first.content_key()
    with pytest.raises(FileNotFoundError):
        os.stat(folder)


def test_labels_and_their_kind_are_a_part_of_the_content(tmp_path: Path) -> None:
    folder = unpacked(one_coloured(tmp_path / "x.zip", 10), tmp_path / "x")
    images_only = ImageDataset(folder).content_key()
    index = json.loads((folder / "dataset.json").read_text())
    keys = {images_only, ImageDataset(folder, use_labels=True).content_key()}

    def relabelled(change: dict[int, object], **more: object) -> str:
        labels = [[name, change.get(i, label)] for i, (name, label) in enumerate(index["labels"])]
        (folder / "dataset.json").write_text(json.dumps({"labels": labels, **more}))
        return ImageDataset(folder, use_labels=True).content_key()

    keys.add(relabelled({0: 1}))
    keys.add(relabelled({5: 7}))  # more classes
    vectors: dict[int, object] = {i: [float(i % 2), 1.0] for i in range(NUM)}
    keys.add(relabelled(vectors))
    keys.add(relabelled(vectors, label_kind="multi_hot"))
    keys.add(relabelled({**vectors, 3: [0.5, 1.0]}))
    assert len(keys) == 7
    assert ImageDataset(folder).content_key() == images_only  # labels that are not used


def test_a_subset_has_a_key_of_its_own(tmp_path: Path) -> None:
    archive = one_coloured(tmp_path / "x.zip", 10)
    choices = [{}, {"max_size": 5}, {"max_size": 5, "subset_seed": 1}]
    choices.append({"max_size": 5, "held_out": True})
    keys = {ImageDataset(archive, **choice).content_key() for choice in choices}  # type: ignore[arg-type]
    assert len(keys) == 4


class Changing(ImageDataset):
    """Something else writes one of the files while they are decoded."""

    def image(self, index: int) -> np.ndarray:
        if index == NUM - 1:
            path = Path(self.path, self.names[0])
            path.write_bytes(encode(np.full((3, 16, 16), 99, np.uint8)).content)
        return super().image(index)


def test_files_that_change_while_they_are_read_are_not_trained_on(tmp_path: Path) -> None:
    folder = unpacked(one_coloured(tmp_path / "x.zip", 10), tmp_path / "x")
    with pytest.raises(UserError, match="changed while it was read"):
        cached_images(Changing(folder))
    assert entries() == []
    assert (cached_images(ImageDataset(folder))[0] == 99).all()
