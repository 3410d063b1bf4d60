"""What is found in folders and zips, under which names, and what is counted as left out."""

import os
import unicodedata
import zipfile

import pytest

from data.archive import ImageArchive
from data.check import problems_of
from data.listing import common_folder, index_folder, plain_name
from tests.data.files import encoded, index, random_image, write_folder, write_zip
from torch_utils.errors import UserError

IMAGE = encoded(random_image(0))
PETS = {"cat/a.png": IMAGE, "dog/b.png": IMAGE}


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_files_of_other_kinds_are_counted_by_extension(tmp_path, write):
    files = {f"IMG_{i}.HEIC": b"" for i in range(6)}
    files |= {"a.jpg": encoded(random_image(1), "jpeg"), "notes.txt": b"", "README": b""}
    files |= {"dataset.json": index(None), ".DS_Store": b"", "._a.jpg": b"", "__MACOSX/a.jpg": b""}
    files |= {".thumbnails/a.jpg": b""}
    archive = ImageArchive(write(tmp_path / "s.zip", files))
    assert archive.names == ["a.jpg"]
    assert archive.left_out == [
        "6 files (.heic)",
        "1 file (.txt)",
        "1 file (no extension)",
        "1 hidden image",
    ]


def test_without_an_image_the_message_says_what_is_there(tmp_path):
    with pytest.raises(UserError, match=r"no image in it but 2 files \(\.heic\): give"):
        ImageArchive(write_folder(tmp_path / "s", {"1.heic": b"", "2.HEIC": b""}))


def test_many_kinds_are_summed_up(tmp_path):
    files = {f"{i}.x{i}": b"" for i in range(12)}
    left_out = ImageArchive(write_folder(tmp_path / "s", PETS | files)).left_out
    assert len(left_out) == 9
    assert left_out[-1] == "4 more of 4 kinds"


def test_links_to_folders_and_files_are_followed(tmp_path):
    write_folder(tmp_path / "elsewhere", {"b.png": IMAGE, "sub/c.png": IMAGE})
    source = write_folder(tmp_path / "s", {"cat/a.png": IMAGE})
    (source / "dog").symlink_to(tmp_path / "elsewhere")
    (source / "cat" / "z.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    archive = ImageArchive(source)
    assert archive.names == ["cat/a.png", "cat/z.png", "dog/b.png", "dog/sub/c.png"]
    assert archive.left_out == []
    assert archive.read("dog/b.png") == archive.read("cat/z.png") == IMAGE


def test_links_in_a_circle_end_and_are_named(tmp_path):
    source = write_folder(tmp_path / "s", PETS)
    (source / "cat" / "again").symlink_to(source)
    (source / "round").symlink_to(source / "round")
    (source / "gone").symlink_to(tmp_path / "nowhere")
    (source / ".#lock").symlink_to("someone@somewhere")  # an editor's
    archive = ImageArchive(source)
    assert archive.names == list(PETS)
    assert archive.left_out == [
        "1 broken link (gone)",
        "1 broken link (round)",
        "1 link (to a folder above it: cat/again)",
    ]


def test_links_that_multiply_folders_are_bounded(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "s", PETS)
    for depth in range(8):  # 2^8 ways down
        (source / f"{depth}").mkdir()
        for name in "ab":
            (source / f"{depth}" / name).symlink_to(source / f"{depth + 1}")
    monkeypatch.setattr("data.listing.MAX_FOLDERS", 100)
    with pytest.raises(UserError, match="more than 100 folders"):
        ImageArchive(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    source = write_folder(tmp_path / "s", PETS)
    os.mkfifo(source / "x.png")
    os.mkfifo(source / "socket")
    archive = ImageArchive(source)
    assert archive.names == [*PETS, "x.png"]
    assert archive.left_out == ["1 pipe or device (socket)"]
    with pytest.raises(UserError, match=r"x\.png is a pipe"):
        archive.read("x.png")


def test_a_broken_link_with_the_name_of_an_image_is_a_bad_image(tmp_path):
    source = write_folder(tmp_path / "s", PETS)
    (source / "x.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"no file .*x\.png|cannot read .*x\.png"):
        ImageArchive(source).read("x.png")


def test_a_folder_that_cannot_be_read_is_refused_or_named(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "s", PETS)
    scan = os.scandir

    def refusing(path):  # as the system does, but for root too
        if os.fspath(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr("os.scandir", refusing)
    with pytest.raises(UserError, match=r"s/dog \(Permission denied\): .*--skip-bad"):
        ImageArchive(source)
    archive = ImageArchive(source, skip_bad=True)
    assert archive.names == ["cat/a.png"]
    assert archive.left_out == ["1 folder (cannot be read: dog)"]


def test_members_with_dots_have_plain_names(tmp_path):
    labels = index({"./a.png": 3, "sub/b.png": 4})
    files = {"./a.png": IMAGE, "./sub/./b.png": IMAGE, "./dataset.json": labels}
    archive = ImageArchive(write_zip(tmp_path / "s.zip", files))
    assert archive.names == ["a.png", "sub/b.png"]
    assert archive.labels() == {"a.png": 3, "sub/b.png": 4}
    assert plain_name(".\\a//b/./c.png") == "a/b/c.png"


def test_two_spellings_of_one_member_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"'a\.png' twice"):
        ImageArchive(write_zip(tmp_path / "s.zip", {"./a.png": IMAGE, "a.png": IMAGE}))


def test_a_member_without_a_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("a.png", IMAGE)
        nameless = zipfile.ZipInfo("x")
        nameless.filename = ""
        archive.writestr(nameless, IMAGE)
    with pytest.raises(UserError, match=r"s\.zip has a member without a name"):
        ImageArchive(tmp_path / "s.zip")


def test_links_in_a_zip_are_named(tmp_path):
    with zipfile.ZipFile(write_zip(tmp_path / "s.zip", PETS), "a") as archive:
        link = zipfile.ZipInfo("fox")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "../elsewhere")
    archive = ImageArchive(tmp_path / "s.zip")
    assert archive.names == list(PETS)
    assert archive.left_out == ["1 link (in a zip: fox)"]


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_a_data_set_packed_with_its_folder_keeps_its_labels(tmp_path, write):
    labels = index({"cat/a.png": 1, "dog/b.png": 0}, label_names=["dog", "cat"])
    files = {f"mine/{name}": content for name, content in PETS.items()}
    archive = ImageArchive(write(tmp_path / "s.zip", files | {"mine/dataset.json": labels}))
    assert archive.labels() == {"mine/cat/a.png": 1, "mine/dog/b.png": 0}
    assert archive.label_names() == ["dog", "cat"]
    assert archive.extra_indices == []


def test_an_index_of_a_part_is_not_taken_for_the_whole(tmp_path):
    files = PETS | {f"{pet}/dataset.json": index(None) for pet in ("cat", "dog")}
    archive = ImageArchive(write_zip(tmp_path / "s.zip", files))
    assert not archive.has_index
    assert archive.labels() is None
    assert archive.extra_indices == ["cat/dataset.json", "dog/dataset.json"]
    assert archive.left_out == [
        "1 label file (cat/dataset.json)",
        "1 label file (dog/dataset.json)",
    ]
    assert any("cat/dataset.json in" in problem for problem in problems_of(str(archive.path)))


def test_the_index_nearest_to_all_images_is_theirs():
    images = ["a/b/1.png", "a/b/c/2.png"]
    found = ["a/dataset.json", "a/b/dataset.json", "a/b/c/dataset.json"]
    assert index_folder([*images, *found], images) == ("a/b/", [found[2], found[0]])
    assert index_folder([*images, "dataset.json", *found], images) == ("", sorted(found))
    assert index_folder([*images, "a/my-dataset.json"], images) == (None, [])
    assert common_folder(["ab/1.png", "a/1.png"]) == ""
    assert common_folder(["a/b/1.png", "a/bc/1.png"]) == "a/"


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Übung/é.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("stored", "listed"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_labels_are_found_however_accents_are_encoded(tmp_path, stored, listed):
    files = {stored: IMAGE, "dataset.json": index({listed: 5})}
    assert ImageArchive(write_zip(tmp_path / "s.zip", files)).labels() == {stored: 5}


def test_of_names_that_look_alike_none_is_taken_for_another(tmp_path):
    files = {
        COMPOSED: IMAGE,
        DECOMPOSED: IMAGE,
        "dataset.json": index({COMPOSED: 1, DECOMPOSED: 2}),
    }
    archive = ImageArchive(write_zip(tmp_path / "s.zip", files))
    assert archive.labels() == {COMPOSED: 1, DECOMPOSED: 2}
