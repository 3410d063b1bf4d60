"""ImageDataset: pixels, labels, subsets, and what it refuses."""

import os
import zipfile

import numpy as np
import PIL.Image
import pytest
from sklearn.datasets import load_digits

from data.dataset import ImageDataset, held_out_indices
from tests.data.files import encoded, index, random_image, write_folder, write_zip
from torch_utils.errors import UserError
from torch_utils.subsets import subset_indices

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGES = {f"{i // 4}/{i:02d}.png": random_image(i) for i in range(10)}
FILES = {name: encoded(image) for name, image in IMAGES.items()}
CLASSES = dict(zip(FILES, [0, 2, 1, 0, 0, 3, 1, 0, 0, 1], strict=True))
STACK = np.stack(list(IMAGES.values())).transpose(0, 3, 1, 2)


def labelled(path, labels, **more):
    return write_zip(path, FILES | {"dataset.json": index(labels, **more)})


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_images_come_as_they_are_stored(tmp_path, write):
    path = write(tmp_path / "my.set.zip", FILES)
    dataset = ImageDataset(path)
    assert len(dataset) == 10
    assert dataset.names == list(FILES)
    assert dataset.image_shape == (3, 4, 6)
    assert (dataset.num_channels, dataset.height, dataset.width) == (3, 4, 6)
    assert dataset.path == str(path)
    assert (dataset.label_dim, dataset.labels, dataset.label_names) == (0, None, None)
    np.testing.assert_array_equal(dataset.load(), STACK)
    np.testing.assert_array_equal(dataset.image(7), STACK[7])


def test_gray_images_have_one_channel(tmp_path):
    image = random_image(0, channels=1)
    dataset = ImageDataset(write_folder(tmp_path / "s", {"a.png": encoded(image)}))
    np.testing.assert_array_equal(dataset.load(), image[None, None])


def test_load_fills_a_given_array(tmp_path):
    dataset = ImageDataset(write_zip(tmp_path / "s.zip", FILES))
    out = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (10, 3, 4, 6))
    assert dataset.load(out=out, progress=False) is out
    np.testing.assert_array_equal(out, STACK)


def test_batches_join_to_the_whole(tmp_path):
    batches = list(ImageDataset(write_zip(tmp_path / "s.zip", FILES)).batches(4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(batches), STACK)


def test_the_name_is_the_base_name_without_zip(tmp_path, monkeypatch):
    write_folder(tmp_path / "set.v2", FILES)
    write_zip(tmp_path / "faces-64.zip", FILES)
    assert ImageDataset(tmp_path / "faces-64.zip").name == "faces-64"
    assert ImageDataset(f"{tmp_path}/set.v2/").name == "set.v2"
    monkeypatch.chdir(tmp_path / "set.v2")
    assert ImageDataset(".").name == "set.v2"


def test_the_subset_is_the_published_one():
    # Worked by hand: RandomState(5) draws for a Fisher-Yates shuffle from the end.
    order = list(range(10))
    random = np.random.RandomState(5)
    for last in range(9, 0, -1):
        other = random.randint(last + 1)
        order[last], order[other] = order[other], order[last]
    assert subset_indices(10, 4, 5).tolist() == sorted(order[:4])
    assert held_out_indices(10, 4, 5).tolist() == sorted(order[4:])


def test_known_subsets():
    # First elements of RandomState(0).permutation(10) = 2 8 4 9 1 6 7 3 0 5.
    assert subset_indices(10, 3, 0).tolist() == [2, 4, 8]
    assert subset_indices(10, 3, 2**31).tolist() == [2, 4, 8]
    assert subset_indices(10, 10, 0).tolist() == list(range(10))
    assert subset_indices(10, None, 3).tolist() == list(range(10))
    assert held_out_indices(10, None, 3).tolist() == []


def test_subset_and_held_out_part_the_dataset_with_its_labels(tmp_path):
    path = labelled(tmp_path / "s.zip", CLASSES)
    kept = ImageDataset(path, use_labels=True, max_size=3)
    held = ImageDataset(path, use_labels=True, max_size=3, held_out=True)
    chosen = [2, 4, 8]
    rest = [0, 1, 3, 5, 6, 7, 9]
    for part, indices in ((kept, chosen), (held, rest)):
        assert part.names == [list(FILES)[i] for i in indices]
        assert part.label_dim == 4  # over all labels; class 3 is not in the kept part
        assert part.labels.argmax(1).tolist() == [list(CLASSES.values())[i] for i in indices]
        np.testing.assert_array_equal(part.load(), STACK[indices])


def test_classes_become_one_hot_and_keep_their_names(tmp_path):
    path = labelled(tmp_path / "s.zip", CLASSES, label_names=["p", "q", "r", "s", "unused"])
    dataset = ImageDataset(path, use_labels=True)
    assert dataset.labels.dtype == np.float32
    np.testing.assert_array_equal(dataset.labels, np.eye(4)[list(CLASSES.values())])
    np.testing.assert_array_equal(dataset.labels_of([1, 0]), np.eye(4)[[2, 0]])
    assert dataset.raw_labels.tolist() == list(CLASSES.values())
    assert dataset.label_names == ["p", "q", "r", "s"]


def test_vectors_stay_as_they_are(tmp_path):
    vectors = {name: [i / 2, -1.0, 1.0] for i, name in enumerate(FILES)}
    dataset = ImageDataset(labelled(tmp_path / "s.zip", vectors), use_labels=True)
    assert dataset.label_dim == 3
    assert dataset.labels.dtype == np.float32
    np.testing.assert_array_equal(dataset.labels, list(vectors.values()))


def with_label(label):
    return {**CLASSES, "1/05.png": label}


def with_vector(label):
    return {**{name: [1.0, 2.0] for name in FILES}, "1/05.png": label}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "has no labels"),
        (dict(list(CLASSES.items())[:7]), "3 of 10 images .* first '1/07.png'"),
        (with_label(0.5), "label 0.5 of 1/05.png .* is not a class"),
        (with_label(-1), "label -1 of 1/05.png .* is not a class"),
        (with_label(float("nan")), "label nan of 1/05.png .* is not a class"),
        (with_label(10**12), "is too large"),
        (with_label([1.0]), "is a vector, others are class numbers"),
        (with_vector(1), "others are vectors"),
        (with_vector([1.0]), "has 1 numbers, .* has 2"),
        (with_vector([1.0, float("inf")]), "is not finite"),
        (with_vector([1.0, 1e300]), "is not finite in float32"),
        ({name: [] for name in FILES}, "at least 1"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_when_asked_for(tmp_path, labels, message):
    path = labelled(tmp_path / "s.zip", labels)
    assert ImageDataset(path).label_dim == 0
    with pytest.raises(UserError, match=message):
        ImageDataset(path, use_labels=True)


def test_too_few_class_names_are_refused(tmp_path):
    path = labelled(tmp_path / "s.zip", CLASSES, label_names=["p", "q"])
    with pytest.raises(UserError, match="2 label_names for 4 classes"):
        ImageDataset(path, use_labels=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(random_image(0, 6, 4)), "has 4x6 pixels and 3 channels, but '0/00.png' has 6x4"),
        (encoded(random_image(0, channels=1)), "has 6x4 pixels and 1 channel, but"),
        (encoded(random_image(0))[:60], "is damaged"),
        (b"no image", "is not an image"),
        (encoded(PIL.Image.new("P", (6, 4))), "has the colour mode P"),
        (encoded(PIL.Image.new("RGBA", (6, 4))), "has the colour mode RGBA"),
        (encoded(PIL.Image.new("I;16", (6, 4))), "has more than 8 bits"),
    ],
)
def test_the_first_file_that_cannot_be_used_is_named(tmp_path, content, message):
    dataset = ImageDataset(write_zip(tmp_path / "s.zip", FILES | {"1/06.png": content}))
    for work in (dataset.load, lambda: list(dataset.batches(3)), lambda: dataset.image(6)):
        with pytest.raises(UserError, match=message) as caught:
            work()
        assert "1/06.png" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_turned_photograph_is_refused(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    files = {"a.jpg": encoded(random_image(0), "jpeg", exif=exif)}
    with pytest.raises(UserError, match="EXIF orientation"):
        ImageDataset(write_folder(tmp_path / "s", files))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_size": 0}, "max_size must be at least 1, not 0"),
        ({"held_out": True}, "no image of .* is held out"),
        ({"held_out": True, "max_size": 10}, "no image of .* is held out"),
    ],
)
def test_an_empty_choice_is_refused(tmp_path, options, message):
    path = write_zip(tmp_path / "s.zip", FILES)
    with pytest.raises(UserError, match=message):
        ImageDataset(path, **options)


def test_the_digits_that_ship_are_those_of_scikit_learn():
    dataset = ImageDataset(os.path.join(ROOT, "assets", "digits-8x8.zip"), use_labels=True)
    digits = load_digits()
    order = np.argsort(digits.target, kind="stable")
    assert dataset.name == "digits-8x8"
    assert dataset.label_names == list("0123456789")
    assert dataset.image_shape == (1, 8, 8)
    np.testing.assert_array_equal(dataset.raw_labels, digits.target[order])
    expected = np.floor(digits.images[order] * 255 / 16 + 0.5)
    np.testing.assert_array_equal(dataset.load()[:, 0], expected)
    with zipfile.ZipFile(dataset.path) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert os.path.getsize(dataset.path) < 1_000_000
