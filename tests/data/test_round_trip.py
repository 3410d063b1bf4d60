"""Images of any size and mode, and labels of any kind, through the tool and back."""

import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.convert import convert
from data.dataset import ImageDataset
from data.modes import to_plain
from data.transforms import TRANSFORMS
from tests.data.files import encoded, index, random_image, write_folder, write_zip
from torch_utils.errors import UserError

SIZES = st.tuples(st.integers(1, 24), st.integers(1, 24))
MODES = st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
NUM = 3
LABELS = (
    st.lists(st.integers(0, 5), min_size=NUM, max_size=NUM)
    | st.integers(1, 4).flatmap(
        lambda length: st.lists(
            st.lists(st.floats(-8, 8, width=32), min_size=length, max_size=length),
            min_size=NUM,
            max_size=NUM,
        )
    )
    | st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=NUM, max_size=NUM)
)


def picture(seed: int, size: tuple[int, int], mode: str) -> PIL.Image.Image:
    height, width = size
    return PIL.Image.fromarray(random_image(seed, height, width)).convert(mode)


@settings(max_examples=40, deadline=None)
@given(SIZES, MODES, LABELS, st.booleans(), st.sampled_from(["o.zip", "o"]))
def test_images_and_labels_come_back(size, mode, labels, is_zip, dest):
    kind = "tiff" if mode == "CMYK" else "png"
    pictures = {f"{seed}.{kind}": picture(seed, size, mode) for seed in range(NUM)}
    files = {name: encoded(image, kind) for name, image in pictures.items()}
    files["dataset.json"] = index(dict(zip(pictures, labels, strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        source = (write_zip if is_zip else write_folder)(Path(folder, "s.zip"), files)
        assert convert(str(source), str(Path(folder, dest))) == NUM
        dataset = ImageDataset(Path(folder, dest), use_labels=True)
        plain = np.stack([to_plain(image, "x") for image in pictures.values()])
        expected = plain[:, None] if plain.ndim == 3 else plain.transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(dataset.load(), expected)
        np.testing.assert_array_equal(dataset.raw_labels, labels)
        assert dataset.label_kind == ("vector" if isinstance(labels[0], list) else "class")


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.sampled_from([1, 3]), st.sampled_from(["none", "center-crop"]))
def test_a_transform_gives_exactly_the_size_asked_for(size, target, channels, transform):
    image = random_image(0, *size, channels=channels)
    result = TRANSFORMS[transform](image, target[1], target[0])
    assert result.shape[:2] == target
    assert result.dtype == np.uint8
    assert (result.ndim == 2) == (channels == 1 and transform == "none")


def dataset_of(tmp_path, labels, **more):
    files = {f"{i}.png": encoded(random_image(i)) for i in range(len(labels))}
    content = index(dict(zip(files, labels, strict=True)), **more)
    source = write_zip(tmp_path / "s.zip", files | {"dataset.json": content})
    convert(str(source), str(tmp_path / "o.zip"))
    found = [ImageDataset(path, use_labels=True) for path in (source, tmp_path / "o.zip")]
    kinds = [(dataset.label_kind, dataset.label_names) for dataset in found]
    assert kinds[0] == kinds[1]
    return kinds[0]


TAGS = [[1, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("labels", "more", "expected"),
    [
        ([0, 1, 1], {}, ("class", None)),
        ([0, 1, 1], {"label_names": ["p", "q"], "label_kind": "class"}, ("class", ["p", "q"])),
        (TAGS, {}, ("vector", None)),
        (TAGS, {"label_names": ["p", "q"]}, ("multi_hot", ["p", "q"])),
        (TAGS, {"label_kind": "multi_hot"}, ("multi_hot", None)),
        (TAGS, {"label_names": ["p", "q"], "label_kind": "vector"}, ("vector", ["p", "q"])),
        ([[0.5, 1], [0, 1]], {"label_names": ["p", "q"]}, ("vector", ["p", "q"])),
    ],
)
def test_the_kind_and_names_of_labels_survive_the_tool(tmp_path, labels, more, expected):
    assert dataset_of(tmp_path, labels, **more) == expected


def test_a_kind_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match="label_kind is multi_hot, but the labels are of the kind"):
        dataset_of(tmp_path, [[0.5, 1]], label_kind="multi_hot")


def test_without_labels_there_is_no_kind(tmp_path):
    path = write_zip(tmp_path / "s.zip", {"a.png": encoded(random_image(0))})
    assert ImageDataset(path).label_kind is None


def test_the_number_of_threads_does_not_change_a_byte(tmp_path):
    files = {f"{i % 3}/{i:02d}.png": encoded(random_image(i, 9, 7)) for i in range(40)}
    source = write_folder(tmp_path / "s", files)
    for num in (1, 2, 7):
        convert(str(source), str(tmp_path / f"{num}.zip"), resolution=(4, 4), num_threads=num)
    contents = {(tmp_path / f"{num}.zip").read_bytes() for num in (1, 2, 7)}
    assert len(contents) == 1
