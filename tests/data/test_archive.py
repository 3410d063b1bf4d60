"""Reading folders and zips in place."""

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data.archive import ImageArchive
from data.decoding import is_image_name, open_picture
from tests.data.files import encoded, index, random_image, write_folder, write_zip
from torch_utils.errors import UserError

FILES = {
    "b/two.PNG": encoded(random_image(2)),
    "a.jpg": encoded(random_image(1), "jpeg"),
    "notes.txt": b"no image",
    "b/._two.PNG": b"left by a file manager",
    "__MACOSX/a.jpg": b"left by a zip program",
}


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_names_are_the_images_sorted_and_bytes_come_back(tmp_path, write):
    archive = ImageArchive(write(tmp_path / "Set.ZIP", FILES))
    assert archive.names == ["a.jpg", "b/two.PNG"]
    assert archive.is_zip == (write is write_zip)
    assert all(archive.read(name) == FILES[name] for name in archive.names)
    assert archive.labels() is None
    assert archive.label_names() is None


def test_formats_that_pillow_cannot_decode_are_no_images():
    assert is_image_name("x.png")
    assert is_image_name("X.WebP")
    assert not any(map(is_image_name, ["x.pdf", "x.h5", "x.mpg", "x.eps", "x.json", "png"]))


def test_a_file_that_is_not_what_its_name_says_is_never_given_to_ghostscript():
    with pytest.raises(UserError, match=r"x\.png is not an image"):
        open_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "x.png")


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_labels_are_read_by_name_with_backslashes_normalised(tmp_path, write):
    content = index({"b\\two.PNG": 3, "a.jpg": 1}, label_names=["w", "x", "y", "z"])
    archive = ImageArchive(write(tmp_path / "s.zip", FILES | {"dataset.json": content}))
    assert archive.labels() == {"b/two.PNG": 3, "a.jpg": 1}
    assert archive.label_names() == ["w", "x", "y", "z"]


def test_null_labels_are_no_labels(tmp_path):
    files = FILES | {"dataset.json": index(None)}
    assert ImageArchive(write_zip(tmp_path / "s.zip", files)).labels() is None


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[1]",
        index(5),
        index([["a.jpg"]]),
        index([[1, 2]]),
        index({"a.jpg": "cat"}),
        index({"a.jpg": True}),
        index({"a.jpg": 10**400}),
        b'{"labels": [["a.jpg", ' + b"9" * 5000 + b"]]}",
        index({"a.jpg": [1, None]}),
        index([["a.jpg", 1], ["a.jpg", 2]]),
    ],
)
def test_a_malformed_index_is_named(tmp_path, content):
    archive = ImageArchive(write_zip(tmp_path / "s.zip", FILES | {"dataset.json": content}))
    with pytest.raises(UserError, match=r"dataset\.json in .*s\.zip"):
        archive.labels()


def test_malformed_label_names_are_named(tmp_path):
    content = index({"a.jpg": 1}, label_names="abc")
    archive = ImageArchive(write_zip(tmp_path / "s.zip", FILES | {"dataset.json": content}))
    with pytest.raises(UserError, match="label_names must be a list"):
        archive.label_names()


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: t / "none", "there is no folder or zip"),
        (lambda t: _file(t / "x.tar", b"tar"), "is not a folder or .zip"),
        (lambda t: _file(t / "x.zip", b"no zip"), "is not a readable zip"),
        (lambda t: write_zip(t / "x.zip", {"a.txt": b""}), "has no image"),
        (lambda t: write_folder(t / "x", {"a.txt": b""}), "has no image"),
        (lambda t: write_zip(t / "x.zip", FILES | {"../a.png": b""}), "unsafe member name"),
        (lambda t: write_zip(t / "x.zip", FILES | {"/a.png": b""}), "unsafe member name"),
        (lambda t: write_zip(t / "x.zip", FILES | {"C:\\a.png": b""}), "unsafe member name"),
        (lambda t: write_zip(t / "x.zip", FILES | {"b\\two.PNG": b""}), "twice"),
    ],
)
def test_what_cannot_be_opened_is_refused(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        ImageArchive(path)
    assert str(path) in str(caught.value)


def test_a_member_with_a_wrong_checksum_is_named(tmp_path):
    path = write_zip(tmp_path / "s.zip", {"a.png": b"content of the file"})
    path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT"))
    with pytest.raises(UserError, match=r"cannot read a\.png in .*s\.zip"):
        ImageArchive(path).read("a.png")


def test_a_member_that_inflates_beyond_the_bound_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("data.archive.MAX_FILE_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1001))
    with pytest.raises(UserError, match="has 1001 bytes"):
        ImageArchive(tmp_path / "s.zip").read("a.png")


def test_a_picture_of_too_many_pixels_is_not_decoded(monkeypatch):
    content = encoded(random_image(0))
    open_picture(content, "a.png")
    monkeypatch.setattr("data.decoding.MAX_PIXELS", 23)
    with pytest.raises(UserError, match=r"a\.png has more than 23 pixels"):
        open_picture(content, "a.png")


def test_threads_can_read_one_zip_at_the_same_time(tmp_path):
    files = {f"{i}.png": encoded(random_image(i, 20, 30)) for i in range(40)}
    archive = ImageArchive(write_zip(tmp_path / "s.zip", files))
    names = archive.names * 5
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(archive.read, names)) == [files[name] for name in names]
