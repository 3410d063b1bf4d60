"""What dataset_tool.py convert leaves out, refuses, replaces and changes when asked."""

import re

import numpy as np
import pytest

from data.archive import ImageArchive
from data.check import facts_of, problems_of
from data.convert import convert
from data.dataset import ImageDataset
from data.sources import open_source
from data.statistics import measure, report
from tests.command import assert_refused, run
from tests.data.files import encoded, index, random_image, write_folder, write_zip
from tests.data.test_public_sources import idx
from torch_utils.errors import UserError

PETS = {f"{pet}/{i}.png": encoded(random_image(i)) for i, pet in enumerate(["cat", "dog", "dog"])}
BAD = PETS | {"dog/1.png": PETS["dog/1.png"][:70]}


# ---- what is left out


def test_one_bad_file_is_refused_with_the_option_that_leaves_it_out(tmp_path):
    source = str(write_folder(tmp_path / "s", BAD))
    for work in (
        lambda: convert(source, str(tmp_path / "o.zip")),
        lambda: measure(open_source(source)),
    ):
        with pytest.raises(UserError, match=r"s/dog/1\.png is damaged .*--skip-bad leaves such"):
            work()
    assert not (tmp_path / "o.zip").exists()


def test_what_is_left_out_is_listed_counted_and_kept_in_the_dataset(tmp_path):
    source = write_folder(tmp_path / "s", BAD | {"dog/7.heic": b"", "dog/8.HEIC": b""})
    dest = tmp_path / "o.zip"
    done = run("dataset_tool.py", f"--source={source}", f"--dest={dest}", "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote 2 images to {dest}\n"
    listed, counted = done.stderr.splitlines()
    assert listed.startswith(f"warning: left out: {source}/dog/1.png is damaged")
    assert counted == "left out: 2 files (.heic), 1 image (cannot be read)"
    assert [int(name[-12:-4]) for name in ImageArchive(dest).names] == [0, 2]
    assert ImageDataset(dest, use_labels=True).raw_labels.tolist() == [0, 1]
    facts = facts_of(str(dest))
    assert facts[0] == "images: 2"
    assert facts[2] == ("left out when it was converted: 2 files (.heic), 1 image (cannot be read)")
    assert "left out: 2 files (.heic)" in facts_of(str(source))
    assert "left out: 2 files (.heic), 1 image (cannot be read)" in list(
        report(measure(open_source(source, skip_bad=True)))
    )


def test_images_too_small_and_labels_of_some_are_counted(tmp_path, capsys):
    labels = index({"cat/0.png": 1, "a.png": 1, "gone.png": 0})
    files = PETS | {"a.png": encoded(random_image(5, 8, 5)), "dataset.json": labels}
    dest = tmp_path / "o.zip"
    convert(
        str(write_zip(tmp_path / "s.zip", files)),
        str(dest),
        transform="center-crop-wide",
        resolution=(6, 4),
    )
    counted = "1 label (of images that are not there), 1 image (too small for center-crop-wide)"
    assert f"left out: {counted}\n" in capsys.readouterr().err
    assert facts_of(str(dest))[1:] == [
        "labels: none",
        f"left out when it was converted: {counted}, labels: only 1 of 3 images have one",
    ]


def test_names_that_steer_terminals_or_are_not_utf_8_come_out_escaped(tmp_path):
    name = b"x\x1b[31m\xff.png".decode("utf-8", "surrogateescape")
    source = write_folder(tmp_path / "s", PETS)
    try:
        (source / name).write_bytes(b"no image")
    except (OSError, UnicodeError):
        pytest.skip("this file system has UTF-8 names only")
    done = run("dataset_tool.py", f"--source={source}", f"--dest={tmp_path / 'o.zip'}")
    assert_refused(done, r"x\x1b[31m\udcff.png is not an image in a known format")
    assert "\x1b" not in done.stderr
    done = run("dataset_tool.py", "check", f"--data={source}")
    assert done.returncode == 2
    assert r"x\x1b[31m\udcff.png is not an image" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_names_of_classes_cannot_steer_terminals(tmp_path):
    files = {f"{pet}\x1b[31m\n/a.png": PETS["cat/0.png"] for pet in ("cat", "dog")}
    named = index({name: i for i, name in enumerate(files)}, label_names=["cat\x1b[31m\n", "dog"])
    for number, more in enumerate([{}, {"dataset.json": named}]):
        source = write_zip(tmp_path / f"{number}.zip", files | more)
        convert(str(source), str(tmp_path / f"o{number}.zip"))
        names = ImageDataset(tmp_path / f"o{number}.zip", use_labels=True).label_names
        assert names[0] == r"cat\x1b[31m\n"
        assert open_source(source).label_names == names


# ---- one rule for labels


@pytest.mark.parametrize(
    ("labels", "more", "message"),
    [
        ([0.0, 0.5, 1.0], {}, r"label 0\.5 of dog/1\.png in .* is not a class"),
        ([0, -1, 1], {}, "label -1 of"),
        ([0, float("nan"), 1], {}, "label nan of"),
        ([0, [1.0], 1], {}, "is a vector, others are class numbers"),
        ([[0.0], [1.0, 2.0], [3.0]], {}, "vectors need the same length"),
        ([0, 1, 2], {"label_names": ["a"]}, "1 label_names for 3 classes"),
        ([[0.5], [1], [0]], {"label_kind": "multi_hot"}, "label_kind is multi_hot, but"),
        ([0, 1, 1_000_000], {}, "class 1000000 would make 1000001 classes of 3 images: number the"),
    ],
)
def test_convert_refuses_the_labels_that_check_and_training_refuse(tmp_path, labels, more, message):
    content = index(dict(zip(PETS, labels, strict=True)), **more)
    source = write_zip(tmp_path / "s.zip", PETS | {"dataset.json": content})
    for work in (
        lambda: convert(str(source), str(tmp_path / "o.zip")),
        lambda: ImageDataset(source, use_labels=True),
    ):
        with pytest.raises(UserError, match=message):
            work()
    assert any(re.search(message, problem) for problem in problems_of(str(source)))
    assert not (tmp_path / "o.zip").exists()


def test_classes_without_an_image_are_named(tmp_path):
    content = index(dict(zip(PETS, [5, 2, 2], strict=True)), label_names=list("abcdef"))
    source = write_zip(tmp_path / "s.zip", PETS | {"dataset.json": content})
    line = "4 of 6 classes have no image and are not drawn: 0 a, 1 b, 3 d, 4 e"
    assert line in facts_of(str(source))
    assert line in list(report(measure(open_source(source))))
    assert ImageDataset(source, use_labels=True).present_classes == [2, 5]
    whole = index(dict(zip(PETS, [0, 1, 1], strict=True)))
    full = write_zip(tmp_path / "t.zip", PETS | {"dataset.json": whole})
    assert ImageDataset(full, use_labels=True).present_classes is None
    assert not any("have no image" in fact for fact in facts_of(str(full)))


# ---- gray and RGB


MIXED = {"0.png": random_image(0), "1.png": random_image(1, channels=1), "2.png": random_image(2)}


def test_a_gray_picture_among_rgb_ones_is_refused_with_what_helps(tmp_path):
    files = {name: encoded(image) for name, image in MIXED.items()}
    source = str(write_folder(tmp_path / "s", files))
    for resolution in (None, (3, 2)):
        with pytest.raises(
            UserError, match=r"channels 1, not 3 \(--channels=rgb \(or gray\) makes"
        ):
            convert(source, str(tmp_path / "o.zip"), resolution=resolution)
    with pytest.raises(UserError, match="--channels=rgb"):
        ImageDataset(source).load()
    files["1.png"] = encoded(random_image(1, 5, channels=1))
    write_folder(tmp_path / "s", files)
    with pytest.raises(UserError, match=r"--channels=rgb .* and --resolution=WxH makes all alike"):
        convert(source, str(tmp_path / "o.zip"))


@pytest.mark.parametrize("channels", ["rgb", "gray"])
def test_channels_makes_all_rgb_or_all_gray(tmp_path, channels):
    files = {name: encoded(image) for name, image in MIXED.items()}
    source = write_folder(tmp_path / "s", files)
    dest = tmp_path / "o.zip"
    done = run("dataset_tool.py", f"--source={source}", f"--dest={dest}", f"--channels={channels}")
    assert done.returncode == 0, done.stderr
    images = ImageDataset(dest).load()
    if channels == "rgb":
        np.testing.assert_array_equal(images[0], MIXED["0.png"].transpose(2, 0, 1))
        assert all((plane == MIXED["1.png"]).all() for plane in images[1])
    else:
        np.testing.assert_array_equal(images[1, 0], MIXED["1.png"])
        luma = MIXED["0.png"] @ [0.299, 0.587, 0.114]
        assert np.abs(images[0, 0] - luma).max() <= 1


# ---- the destination


@pytest.mark.parametrize("dest", ["o.zip", "o"])
def test_an_existing_dataset_is_replaced_only_when_asked(tmp_path, dest):
    source, path = str(write_folder(tmp_path / "s", PETS)), tmp_path / dest
    convert(source, str(path))
    with pytest.raises(UserError, match=r"o(\.zip)? exists: .*--overwrite"):
        convert(source, str(path), max_images=1)
    assert len(ImageDataset(path)) == 3
    assert convert(source, str(path), max_images=1, overwrite=True) == 1
    assert len(ImageDataset(path)) == 1
    assert convert(str(path), str(path), overwrite=True) == 1
    assert sorted(found.name for found in tmp_path.iterdir()) == sorted([dest, "s"])


def test_a_folder_with_anything_else_in_it_is_never_replaced(tmp_path):
    source = str(write_folder(tmp_path / "s", PETS))
    convert(source, str(tmp_path / "o"))
    (tmp_path / "o" / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match="must be empty or absent"):
        convert(source, str(tmp_path / "o"), overwrite=True)
    assert (tmp_path / "o" / "thesis.tex").read_text() == "years"
    (tmp_path / "links" / "sub").mkdir(parents=True)
    (tmp_path / "links" / "00000").symlink_to(tmp_path / "o")
    for name in ("links", "links/.."):
        with pytest.raises(UserError, match="must be empty or absent"):
            convert(source, str(tmp_path / name), overwrite=True)


def test_an_overwrite_that_fails_leaves_what_was_there(tmp_path):
    convert(str(write_folder(tmp_path / "s", PETS)), str(tmp_path / "o"))
    before = sorted(path.name for path in (tmp_path / "o").rglob("*"))
    with pytest.raises(UserError, match="is damaged"):
        convert(str(write_folder(tmp_path / "s", BAD)), str(tmp_path / "o"), overwrite=True)
    assert sorted(path.name for path in (tmp_path / "o").rglob("*")) == before


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.npz", "x.Zip2", "x.png"])
def test_a_destination_of_another_kind_of_file_is_refused_before_the_work(tmp_path, name):
    with pytest.raises(UserError, match=rf"zips or folders, not \.\w+: .*{name}/ for a folder"):
        convert("no such source", str(tmp_path / name))


@pytest.mark.parametrize("name", ["v1.5", "pets.v2/", "pets"])
def test_a_folder_may_have_a_dot_in_its_name(tmp_path, name):
    convert(str(write_folder(tmp_path / "s", PETS)), f"{tmp_path}/{name}")
    assert len(ImageDataset(tmp_path / name)) == 3


# ---- MNIST


def test_mnist_can_be_resized_as_published_instead_of_padded(tmp_path):
    digits = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(digits))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(3, dtype=np.uint8)))
    source = str(tmp_path / "train-images-idx3-ubyte")
    convert(source, str(tmp_path / "r.zip"), transform="bilinear", resolution=(32, 32))
    convert(source, str(tmp_path / "p.zip"), resolution=(32, 32))
    resized, padded = (ImageDataset(tmp_path / name).load()[:, 0] for name in ("r.zip", "p.zip"))
    np.testing.assert_array_equal(padded[:, 2:-2, 2:-2], digits)
    position = np.clip((np.arange(32) + 0.5) * 28 / 32 - 0.5, 0, 27)  # of pixel centres
    low = np.minimum(position.astype(int), 26)
    weights = np.zeros((32, 28))
    weights[np.arange(32), low] = 1 - (position - low)
    weights[np.arange(32), low + 1] = position - low
    assert np.abs(weights @ digits @ weights.T - resized).max() <= 1
    with pytest.raises(UserError, match="bilinear needs --resolution"):
        convert(source, str(tmp_path / "x.zip"), transform="bilinear")
