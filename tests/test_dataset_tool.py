"""dataset_tool.py as a command: golden cases, what it prints, what it refuses."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import numpy as np
import PIL.Image
import pytest

from assets.make_digits import make_digits
from data.archive import ImageArchive
from data.convert import convert
from data.dataset import ImageDataset
from data.transforms import TRANSFORMS
from dataset_tool import convert_command
from tests.data.files import encoded, index, random_image, write_folder, write_zip

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "parity" / "golden"
CASES = json.loads((GOLDEN / "dataset_tool.json").read_text())["cases"]
WIDE = encoded(random_image(0, 8, 12))
PETS = {"cat/a.png": WIDE, "dog/b.png": encoded(random_image(1, 8, 12)), "dog/c.png": WIDE}


def run_tool(*args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "dataset_tool.py", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=120)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
@pytest.mark.parametrize("dest", ["out.zip", "out"])
def test_golden_datasets_are_reproduced(tmp_path, case, dest):
    dest = tmp_path / dest
    source = GOLDEN / case["source"]
    done = run_tool(f"--source={source}", f"--dest={dest}", *case["args"])
    assert done.stdout == f"wrote {len(case['names'])} images to {dest}\n"
    assert done.stderr == ""
    archive = ImageArchive(dest)
    assert archive.names == case["names"]
    expected = None if case["labels"] is None else dict(case["labels"])
    assert archive.labels() == expected
    images = ImageDataset(dest).load()
    golden = np.load(GOLDEN / "dataset_tool.npz")[case["name"]]
    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1).reshape(golden.shape), golden)


def test_a_dataset_survives_a_round_trip_with_labels_and_names(tmp_path):
    convert(str(write_folder(tmp_path / "pets", PETS)), str(tmp_path / "a.zip"))
    convert(str(tmp_path / "a.zip"), str(tmp_path / "b"))
    convert(str(tmp_path / "b"), str(tmp_path / "c.zip"))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "c.zip").read_bytes()
    dataset = ImageDataset(tmp_path / "c.zip", use_labels=True)
    assert dataset.label_names == ["cat", "dog"]
    assert dataset.labels.tolist() == [[1, 0], [0, 1], [0, 1]]


def test_vector_labels_are_carried_over(tmp_path):
    vectors = {name: [i / 4, -1.5] for i, name in enumerate(PETS)}
    path = write_zip(tmp_path / "s.zip", PETS | {"dataset.json": index(vectors)})
    convert(str(path), str(tmp_path / "out.zip"))
    labels = ImageDataset(tmp_path / "out.zip", use_labels=True).labels
    np.testing.assert_array_equal(labels, list(vectors.values()))


def test_max_images_is_exact(tmp_path):
    source = write_folder(tmp_path / "pets", PETS)
    for num in (1, 2, 3, 4):
        convert(str(source), str(tmp_path / f"{num}.zip"), max_images=num)
        assert len(ImageDataset(tmp_path / f"{num}.zip")) == min(num, 3)


def test_images_left_out_leave_holes_in_the_numbers(tmp_path):
    files = PETS | {"cat/b.png": encoded(random_image(5, 8, 5))}
    source = write_folder(tmp_path / "pets", files)
    args = ("--transform=center-crop-wide", "--resolution=6x4")
    run_tool(f"--source={source}", f"--dest={tmp_path / 'o.zip'}", *args)
    archive = ImageArchive(tmp_path / "o.zip")
    assert [int(name[-12:-4]) for name in archive.names] == [0, 2, 3]
    assert list(archive.labels().values()) == [0, 1, 1]
    assert ImageDataset(tmp_path / "o.zip").image_shape == (3, 6, 6)


def test_some_missing_labels_draw_a_warning(tmp_path):
    path = write_zip(tmp_path / "s.zip", PETS | {"dataset.json": index({"cat/a.png": 1})})
    done = run_tool("--source", path, "--dest", tmp_path / "o.zip")
    assert done.stderr == (
        f"warning: no labels written: only 1 of 3 images have one, dog/b.png in {path} has none\n"
    )
    assert ImageArchive(tmp_path / "o.zip").labels() is None


def test_the_shipped_digits_can_be_rebuilt(tmp_path):
    assert make_digits(str(tmp_path / "digits.zip")) == 1797
    rebuilt = ImageDataset(tmp_path / "digits.zip", use_labels=True)
    shipped = ImageDataset(ROOT / "assets" / "digits-8x8.zip", use_labels=True)
    assert rebuilt.names == shipped.names
    assert rebuilt.label_names == shipped.label_names
    np.testing.assert_array_equal(rebuilt.raw_labels, shipped.raw_labels)
    np.testing.assert_array_equal(rebuilt.load(), shipped.load())


def test_the_same_images_give_the_same_bytes_at_another_time(tmp_path):
    source = write_folder(tmp_path / "pets", PETS)
    convert(str(source), str(tmp_path / "a.zip"))
    for path in source.rglob("*.png"):
        os.utime(path, (10**9, 10**9))
    run_tool("--source", source, "--dest", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


TALL = encoded(random_image(0, 12, 8))
DEEP = encoded(PIL.Image.new("I;16", (12, 8)))
BAD = {
    "no source": (PETS, ["--dest=o.zip"], "--source"),
    "empty source": (PETS, ["--source=", "--dest=o.zip"], "--source is empty"),
    "empty dest": (PETS, ["--source=s", "--dest="], "--dest is empty"),
    "absent source": (PETS, ["--source=t", "--dest=o.zip"], "no folder or zip t"),
    "unknown kind": (PETS, ["--source=s/cat/a.png", "--dest=o.zip"], "not a folder or .zip"),
    "no image": ({"a.txt": b""}, ["--source=s", "--dest=o.zip"], "has no image"),
    "full folder": (PETS, ["--source=s", "--dest=s"], "must be empty"),
    "max-images 0": (PETS, ["--source=s", "--dest=o.zip", "--max-images=0"], "--max-images"),
    "transform": (PETS, ["--source=s", "--dest=o.zip", "--transform=crop"], "center-crop-wide"),
    "resolution": (PETS, ["--source=s", "--dest=o.zip", "--resolution=0x4"], "'0x4' is not a size"),
    "no resolution": (
        PETS,
        ["--source=s", "--dest=o.zip", "--transform=center-crop"],
        "needs --resolution=WxH",
    ),
    "high strip": (
        PETS,
        ["--source=s", "--dest=o.zip", "--transform=center-crop-wide", "--resolution=4x8"],
        "not 4x8",
    ),
    "all too small": (
        PETS,
        ["--source=s", "--dest=o.zip", "--transform=center-crop-wide", "--resolution=64x8"],
        "all 3 images of s are too small",
    ),
    "other size": (
        PETS | {"dog/c.png": TALL},
        ["--source=s", "--dest=o.zip"],
        "s/dog/c.png differs from the first image s/cat/a.png: height 12, not 8; width 8, not 12",
    ),
    "damaged": (PETS | {"dog/b.png": WIDE[:80]}, ["--source=s", "--dest=o.zip"], "s/dog/b.png"),
    "16 bits": (PETS | {"dog/b.png": DEEP}, ["--source=s", "--dest=o.zip"], "more than 8 bits"),
    "bad index": (
        PETS | {"dataset.json": b"{"},
        ["--source=s", "--dest=o.zip"],
        "is not valid JSON",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(tmp_path, name, monkeypatch):
    files, args, message = BAD[name]
    write_folder(tmp_path / "s", files)
    monkeypatch.chdir(tmp_path)
    done = run_tool(*args, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_the_help_names_every_transform_and_answers_without_heavy_imports():
    option = next(option for option in convert_command.params if option.name == "transform")
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == list(TRANSFORMS)
    code = (
        "import sys, dataset_tool\n"
        "sys.argv[1:] = ['convert', '--help']\n"
        "try:\n    dataset_tool.main()\n"
        "except SystemExit as done:\n"
        "    print(done.code, {'torch', 'numpy', 'PIL'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.endswith("0 set()\n")
    assert re.search(r"--max-images N\s+Take only the first N", done.stdout)


def test_convert_is_the_bare_command_and_unknown_commands_are_named(tmp_path):
    source = write_folder(tmp_path / "pets", PETS)
    run_tool("--source", source, "--dest", tmp_path / "a.zip", "--resolution", "5,7")
    done = run_tool(
        "convert", f"--source={source}", f"--dest={tmp_path / 'b.zip'}", "--resolution=5x7"
    )
    assert done.stdout == f"wrote 3 images to {tmp_path / 'b.zip'}\n"
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    done = run_tool("chek", "--data=x", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown command 'chek': did you mean 'check'?\n"


def test_an_image_that_a_transform_refuses_is_named(tmp_path):
    source = write_folder(tmp_path / "pets", PETS)
    done = run_tool(
        *("--source", source, "--dest", tmp_path / "a.zip", "--transform=celeba-128"), check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {source}/cat/a.png: celeba-128 is for aligned CelebA, 178x218 pixels, not 12x8\n"
    )
