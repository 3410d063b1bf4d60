"""Files of images: only what is finite, only where there is room, whole or not at all."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import yaml

from samplers.describe import grid_names, png_text, ranges
from samplers.destination import destination_of
from samplers.generate import GeneratedBatch
from samplers.outputs import PictureWriter, check_folder, write_batches
from samplers.requests import LabelWords
from samplers.room import check_room, other_pictures
from samplers.settings import generation_settings
from samplers.starts import Sample
from tests.command import run, start
from torch_utils.command import IntList
from torch_utils.errors import Failure, UserError
from torch_utils.grid_layout import Names
from torch_utils.grids import save_grid
from torch_utils.images import png_bound


def batch(values: list[float], first: int = 0) -> GeneratedBatch:
    """Images of one value each; inf or nan in the last pixel only."""
    images = torch.zeros(len(values), 1, 4, 6)
    images[:, 0, -1, -1] = torch.tensor(values)
    samples = [Sample(first + i) for i in range(len(values))]
    return GeneratedBatch(samples, images, torch.arange(len(values)))


def test_images_that_are_not_finite_have_no_file_and_the_others_do(tmp_path: Path) -> None:
    names = [str(i) for i in range(5)]
    for old in (1, 2):
        (tmp_path / f"{old}.png").write_text("of an earlier command")
    counted: list[int] = []
    with PictureWriter(destination_of(str(tmp_path))) as writer:
        batches = [batch([0.1, float("nan"), 0.3]), batch([0.4, float("-inf")], 3)]
        lost, classes = write_batches(batches, names, writer, counted.append)
    assert (lost, classes, counted) == ([1, 4], [0, 2, 0], [3, 2])
    assert sorted(os.listdir(tmp_path)) == ["0.png", "2.png", "3.png"]
    assert np.asarray(PIL.Image.open(tmp_path / "2.png"))[-1, -1] == int(0.3 * 127.5 + 128)


def test_a_picture_is_waited_for_by_the_thread_that_writes_it(tmp_path: Path) -> None:
    """Whoever hands it over goes on; one that turns out not to be finite has no file."""
    arrived, picture = threading.Event(), np.zeros((1, 4, 4), dtype=np.uint8)
    (tmp_path / "lost.png").write_text("of an earlier command")

    def later(found: np.ndarray | None) -> Callable[[], np.ndarray | None]:
        return lambda: found if arrived.wait(60) else None

    with PictureWriter(destination_of(str(tmp_path))) as writer:
        writer.write_when_there("kept", later(picture))
        writer.write_when_there("lost", later(None))
        assert os.listdir(tmp_path) == ["lost.png"]
        arrived.set()
    assert os.listdir(tmp_path) == ["kept.png"]


def write_all(outdir: Path, names: list[str], picture: np.ndarray) -> None:
    """One picture under many names."""
    with PictureWriter(destination_of(str(outdir))) as writer:
        for name in names:
            writer.write(name, picture)


def test_the_first_picture_that_cannot_be_written_ends_the_work(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "full").touch()
    names = ["folder", *map(str, range(20_000))]
    with pytest.raises(Failure, match=f"cannot write to {tmp_path}: "):
        write_all(tmp_path, names, np.zeros((1, 4, 4), dtype=np.uint8))
    assert len(list(tmp_path.iterdir())) < 5000
    with pytest.raises(Failure, match=f"cannot write to {tmp_path}: "):
        write_all(tmp_path, names[:1], np.zeros((1, 4, 4), dtype=np.uint8))


def test_a_batch_is_written_while_the_next_one_is_computed(tmp_path: Path) -> None:
    """All pictures of a batch may wait, however many there are: whoever hands them over goes on."""
    num, there = 400, []

    def batches() -> Iterator[GeneratedBatch]:
        images = torch.rand(num, 3, 120, 120, generator=torch.Generator().manual_seed(0)) * 2 - 1
        for first in (0, num):
            there.append(len(list(tmp_path.glob("*.png"))))
            yield GeneratedBatch([Sample(first + i) for i in range(num)], images, None)

    names = [str(place) for place in range(2 * num)]
    with PictureWriter(destination_of(str(tmp_path)), num) as writer:
        write_batches(batches(), names, writer, lambda num: None)
    assert there[0] == 0
    assert there[1] < num - 256  # a fixed bound of 256 would have made it wait for these
    assert len(list(tmp_path.glob("*.png"))) == 2 * num


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 32, 32), (3, 200, 300), (1, 1, 70000)])
def test_noise_is_within_the_bound_that_room_is_made_for(shape: tuple[int, int, int]) -> None:
    from torch_utils.images import png_bytes

    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    size = len(png_bytes(noise))
    assert size <= png_bound(shape) <= 1.03 * size + 300


def test_room_is_looked_for_before_the_work(tmp_path: Path) -> None:
    check_room(tmp_path, 3, (3, 32, 32), num_packed=3, num_in_grid=3)
    huge = (3, 1 << 24, 1 << 24)
    words = r"of free disk space, 3 images may need 2,\d+.\d TB"
    with pytest.raises(UserError, match=words):
        check_room(tmp_path, 3, huge)
    with pytest.raises(UserError, match=words):
        check_room(tmp_path, 0, huge, num_packed=3)
    check_room(tmp_path, 0, huge)  # old ones are replaced, so that no more room is needed


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts need root")
def test_a_small_disk_is_found_out_and_left_clean(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        names = [f"{seed:06d}" for seed in range(40)]
        with pytest.raises(UserError, match=r"65.5 kB of free .* 40 images may need 163.8 kB"):
            check_room(disk, 40, (3, 32, 32))
        noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
        with pytest.raises(Failure, match="No space left"):
            write_all(disk, names, noise)
        found = sorted(disk.iterdir())
        assert 8 <= len(found) < 40
        assert not [path for path in found if path.name.startswith(".")]
        for path in found:
            assert np.asarray(PIL.Image.open(path)).shape == (32, 32, 3)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


LIMITED = """
import resource, sys, numpy as np
from collections.abc import Iterator
from dataclasses import replace
from samplers.destination import destination_of
from samplers.outputs import PictureWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
with PictureWriter(destination_of(sys.argv[1])) as writer:
    for seed in range(8):
        writer.write(str(seed), noise)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of resources")
def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    program, images = tmp_path / "program.py", tmp_path / "images"
    program.write_text(LIMITED)
    images.mkdir()
    done = run(str(program), images)
    assert "File too large; what is there is whole" in done.stderr.splitlines()[-1]
    assert list(images.iterdir()) == []


SLOW = """
import sys, time, numpy as np
from collections.abc import Iterator
from dataclasses import replace
from samplers.destination import destination_of
from samplers.outputs import PictureWriter
from torch_utils.leaving import ended_by_sigterm
noise = np.random.default_rng(0).integers(0, 256, (3, 300, 300), dtype=np.uint8)
try:
    with ended_by_sigterm(), PictureWriter(destination_of(sys.argv[1])) as writer:
        for seed in range(1000000):
            writer.write(str(seed), noise)
except KeyboardInterrupt:
    sys.exit(7)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("number", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_a_signal_leaves_whole_images_only(number: str, tmp_path: Path) -> None:
    program, images = tmp_path / "program.py", tmp_path / "images"
    program.write_text(SLOW)
    images.mkdir()
    process = start(str(program), images)
    while process.poll() is None and len(list(images.glob("*.png"))) < 5:
        time.sleep(0.02)
    process.send_signal(getattr(signal, number))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 7, output
    found = list(images.iterdir())
    assert len(found) >= 5
    for path in found:
        assert path.name[0] != "."
        assert np.asarray(PIL.Image.open(path)).shape == (300, 300, 3)


def test_what_writes_other_files_takes_folders_only(tmp_path: Path) -> None:
    (tmp_path / "folder.zip").mkdir()
    for good in (tmp_path, tmp_path / "absent", tmp_path / "folder.zip", "absent.zip/"):
        check_folder(str(good))
    for bad in ("out.zip", "out.NPZ"):
        with pytest.raises(UserError, match=f"--outdir={bad}: give a folder"):
            check_folder(bad)


def test_other_pngs_in_the_folder_are_said_and_our_grids_are_not(tmp_path: Path) -> None:
    save_grid(tmp_path / "grid.png", np.zeros((2, 1, 4, 4), dtype=np.uint8), 2)
    (tmp_path / "000007.png").touch()
    present, known = ["grid.png", "3/000000.png", "000007.png"], ["3/000000.png", "3/000001.png"]
    assert other_pictures(str(tmp_path), present[:2], known) == []
    (line,) = other_pictures(str(tmp_path), present, known)
    assert "1 of them, such as 000007.png: they would be scored along" in line


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([0, 1, 2, 3, 7], "0-3,7"), ([5], "5"), ([3, 2, 1], "3,2,1"), ([1, 2, 9, 10], "1-2,9-10")],
)
def test_seeds_are_written_as_the_command_line_reads_them(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text
    assert IntList().convert(text, None, None) == numbers


@pytest.mark.parametrize(
    "mapping",
    [
        {},
        {"name": "ddim", "steps": 7, "eta": 0.5, "clip": True},
        {"S_churn": 3.0, "guidance": {"scale": 2.0, "interval": [0.5, None], "clip": "both"}},
        {"name": "ddpm", "grid": "rho", "rho": 5.0, "solver_dtype": "float32", "guidance": 3},
    ],
)
def test_the_text_of_a_grid_gives_its_sampler_back(mapping: dict[str, object]) -> None:
    settings = generation_settings(mapping)
    text = png_text(settings, [0, 1, 2], "runs/x/network-snapshot-1.safetensors")
    assert text["seeds"] == "0-2"
    assert text["snapshot"] == "network-snapshot-1.safetensors"
    assert "\n" not in text["sampler"]
    assert generation_settings(yaml.safe_load(text["sampler"])) == settings


def test_a_grid_has_the_names_of_labels_that_were_asked_for() -> None:
    """Rows and columns where they differ, else a title; drawn labels have none."""
    names, seeds = ["ant", "bee", "cow"], [5, 6]
    each = [(Sample(seed, index), str(index)) for index in range(3) for seed in seeds]
    shown = Names(names, [0, 1, 2], ["seed 5", "seed 6"])
    assert grid_names(each, LabelWords("each"), names, seeds) == shown
    shown = replace(shown, rows=["0", "1", "2"])
    assert grid_names(each, LabelWords("each"), [], seeds) == shown
    many = [(Sample(seed, 0), "0") for seed in range(65)]
    assert grid_names(many, LabelWords("each"), ["a"], range(65)) == Names(["a"], [0])
    one = [(Sample(seed, 1), "") for seed in seeds]
    assert grid_names(one, LabelWords("bee"), names, seeds) == Names(title="class 1: bee")
    assert grid_names(one, LabelWords("1"), [], seeds) == Names(title="class 1")
    assert grid_names(one, LabelWords("1"), ["0", "1"], seeds) == Names(title="class 1")
    drawn = [(Sample(seed), "") for seed in seeds]
    for words, title in [
        (LabelWords(label="1,-2.5"), "1, -2.5"),
        (LabelWords(tags="Black_Hair,Bangs"), "Black_Hair, Bangs"),
        (LabelWords(tags=""), "no tags"),
        (LabelWords(labels="labels.npy"), ""),
        (LabelWords(), ""),
    ]:
        assert grid_names(drawn, words, names, seeds) == Names(title=title)
