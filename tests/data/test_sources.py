"""Colour modes, orientation, labels of sources; transforms; threads; the writer's promise."""

import io
import struct
import threading
import time
import unicodedata
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from data import parallel
from data.dataset import ImageDataset
from data.decoding import open_picture, to_channels_first
from data.modes import plain_picture, to_plain
from data.parallel import ordered_map
from data.sources import open_source
from data.transforms import CHANNELS, TRANSFORMS
from data.writer import DatasetWriter, encode, encode_plain
from tests.data.files import encoded, index, random_image, write_folder, write_zip
from torch_utils.class_folders import folder_names
from torch_utils.errors import UserError
from torch_utils.progress import Progress

RGB = PIL.Image.fromarray(random_image(1))
GRAY = PIL.Image.fromarray(random_image(2, channels=1))


def plain(content: bytes) -> np.ndarray:
    return to_plain(open_picture(content, "x"), "x")


def test_plain_modes_stay_and_bilevel_becomes_gray():
    np.testing.assert_array_equal(plain(encoded(RGB)), RGB)
    np.testing.assert_array_equal(plain(encoded(GRAY)), GRAY)
    bits = np.asarray(GRAY) > 128
    np.testing.assert_array_equal(plain(encoded(PIL.Image.fromarray(bits))), bits * 255)


def test_a_palette_image_becomes_the_colours_it_shows():
    palette = RGB.quantize(8)
    np.testing.assert_array_equal(plain(encoded(palette)), palette.convert("RGB"))
    gray = GRAY.convert("P")
    assert plain(encoded(gray)).shape == (4, 6, 3)


def test_cmyk_becomes_rgb():
    content = encoded(RGB.convert("CMYK"), "tiff")
    np.testing.assert_array_equal(plain(content), RGB)


def test_alpha_is_composited_on_black():
    colour, gray = RGB.copy(), GRAY.copy()
    alpha = PIL.Image.fromarray(random_image(3, channels=1))
    colour.putalpha(alpha)
    gray.putalpha(alpha)
    share = np.asarray(alpha) / 255
    assert gray.mode == "LA"
    assert np.abs(plain(encoded(gray)) - np.asarray(GRAY) * share).max() <= 1
    assert np.abs(plain(encoded(colour)) - np.asarray(RGB) * share[..., None]).max() <= 1


def test_a_transparent_palette_entry_is_black():
    picture = PIL.Image.new("P", (2, 1))
    picture.putpalette([9, 8, 7, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    image = plain(encoded(picture, transparency=1))
    assert image.tolist() == [[[9, 8, 7], [0, 0, 0]]]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("value", range(1, 9))
def test_the_exif_orientation_is_applied(kind, value):
    exif = PIL.Image.Exif()
    exif[0x0112] = value
    content = encoded(RGB, kind, exif=exif)
    expected = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(plain(content), expected)
    picture = plain_picture(open_picture(content, "x"), "x")
    np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize("picture", [RGB, GRAY], ids=["RGB", "gray"])
def test_a_plain_picture_stays_one_unless_it_is_large_or_has_a_transparent_colour(
    picture, monkeypatch
):
    assert plain_picture(picture, "x") is picture
    clear = picture.copy()
    clear.info["transparency"] = clear.getpixel((0, 0))
    assert not np.any(np.asarray(plain_picture(clear, "x"))[0, 0])
    monkeypatch.setattr("data.modes._STRIPE", 23)  # one pixel less
    np.testing.assert_array_equal(plain_picture(picture, "x"), picture)
    assert isinstance(plain_picture(picture, "x"), np.ndarray)


def test_more_than_eight_bits_are_refused_by_name():
    deep = PIL.Image.fromarray(np.zeros((4, 6), np.uint16))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(bytes(13))), (b"IEND", b"")]
    deep_rgb = b"\x89PNG\r\n\x1a\n" + b"".join(  # which Pillow would cut to 8 bits
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    for content in (encoded(deep), encoded(PIL.Image.new("F", (6, 4)), "tiff"), deep_rgb):
        with pytest.raises(UserError, match="photo has more than 8 bits"):
            open_picture(content, "photo")


def test_a_mode_without_a_rule_is_refused_by_name():
    with pytest.raises(UserError, match="photo has the colour mode LAB"):
        to_plain(open_picture(encoded(PIL.Image.new("LAB", (6, 4)), "tiff"), "photo"), "photo")


PETS = {name: encoded(RGB) for name in ("wolf/a.png", "cat/b/c.png", "cat/a.png")}


def labels_of(path, max_images=None):
    source = open_source(path, max_images)
    found = [
        (source.where(i).removeprefix(f"{path}/"), source.read(i)[1]) for i in range(len(source))
    ]
    return found, source.label_names


def test_folders_are_classes_sorted_by_name(tmp_path):
    found, names = labels_of(write_folder(tmp_path / "s", PETS))
    assert found == [("cat/a.png", 0), ("cat/b/c.png", 0), ("wolf/a.png", 1)]
    assert names == ["cat", "wolf"]


def test_files_beside_class_folders_are_a_class_without_a_name(tmp_path):
    found, names = labels_of(write_folder(tmp_path / "s", PETS | {"z.png": encoded(RGB)}))
    assert found[-1] == ("z.png", 0)
    assert names == ["", "cat", "wolf"]


def test_one_folder_alone_is_no_class(tmp_path):
    found, names = labels_of(write_folder(tmp_path / "s", {"cat/a.png": encoded(RGB)}))
    assert (found, names) == ([("cat/a.png", None)], None)


def test_folders_in_a_zip_are_classes_too(tmp_path):
    found, names = labels_of(write_zip(tmp_path / "s.zip", PETS))
    assert [label for _, label in found] == [0, 0, 1]
    assert names == ["cat", "wolf"]


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_classes_that_were_packed_with_their_folder_are_classes(tmp_path, write):
    files = {f"my pets/all/{name}": content for name, content in PETS.items()}
    found, names = labels_of(write(tmp_path / "s.zip", files))
    assert [label for _, label in found] == [0, 0, 1]
    assert names == ["cat", "wolf"]
    files |= {"my pets/all/z.png": encoded(RGB)}
    assert labels_of(write(tmp_path / "t.zip", files))[1] is None


def test_folders_that_are_numbers_are_sorted_as_numbers(tmp_path):
    files = {f"{i}/a.png": encoded(RGB) for i in range(12)}
    found, names = labels_of(write_folder(tmp_path / "s", files))
    assert names == [str(i) for i in range(12)]
    assert dict(found)["10/a.png"] == 10


def test_a_class_is_one_however_its_accents_are_encoded(tmp_path):
    pair = [unicodedata.normalize(form, "Übung") for form in ("NFC", "NFD")]
    files = {f"{name}/{i}.png": encoded(RGB) for i, name in enumerate([*pair, "z"])}
    found, names = labels_of(write_zip(tmp_path / "s.zip", files))
    assert sorted(label for _, label in found) == [0, 1, 1]
    assert names == ["z", pair[0]]


def generated(folder, classes, seeds, *, subdirs):
    """Files where generate.py puts them."""
    for name in folder_names(classes) if classes else [""]:
        for seed in seeds:
            thousand = f"{seed - seed % 1000:06d}" if subdirs else ""
            path = folder / name / thousand / f"{seed:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(RGB))
    return folder


@pytest.mark.parametrize("subdirs", [False, True])
def test_generated_images_have_the_classes_that_they_were_made_with(tmp_path, subdirs):
    for number, classes in enumerate([["wolf", "cat"], [str(i) for i in range(11)], ["a", "b"]]):
        folder = generated(tmp_path / str(number), classes, [0, 5, 1000], subdirs=subdirs)
        found, names = labels_of(folder)
        assert names == classes
        assert sorted(label for _, label in found) == sorted([*range(len(classes))] * 3)
        assert all(classes[label] in name for name, label in found)


def test_folders_of_a_thousand_seeds_are_no_classes(tmp_path):
    seeds = [0, 999, 1000, 1_000_000, 4_294_967_295]
    found, names = labels_of(generated(tmp_path / "s", [], seeds, subdirs=True))
    assert [label for _, label in found] == [None] * 5
    assert names is None


def test_the_numbered_folders_of_an_unlabelled_dataset_are_no_classes(tmp_path):
    files = {f"0000{i}/img.png": encoded(RGB) for i in range(2)}
    assert labels_of(write_folder(tmp_path / "a", files))[1] == ["00000", "00001"]
    assert labels_of(write_folder(tmp_path / "b", files | {"dataset.json": index(None)}))[1] is None


def test_the_index_wins_over_folders(tmp_path):
    content = index({"wolf/a.png": 7, "cat/a.png": [1.5]})
    found, names = labels_of(write_folder(tmp_path / "s", PETS | {"dataset.json": content}))
    assert [label for _, label in found] == [[1.5], None, 7]
    assert names is None


def test_an_index_of_other_files_is_refused(tmp_path):
    path = write_folder(tmp_path / "s", PETS | {"dataset.json": index({"other.png": 1})})
    with pytest.raises(UserError, match=r"none for 'cat/a\.png'"):
        open_source(path)


def test_max_images_keeps_the_first_names(tmp_path):
    found, _ = labels_of(write_folder(tmp_path / "s", PETS), 2)
    assert [name for name, _ in found] == ["cat/a.png", "cat/b/c.png"]


def test_scaling_keeps_gray_and_does_nothing_at_the_right_size():
    image = random_image(0, 5, 9, channels=1)
    assert TRANSFORMS["none"](image, 9, 5) is image
    assert TRANSFORMS["none"](image, 4, 7).shape == (7, 4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 5), (178, 218), (148, 148)])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_pictures_give_the_pixels_of_their_arrays(name, size, channels):
    image = random_image(0, 218, 178, channels)
    picture = PIL.Image.fromarray(image)
    if name == "center-crop-wide" and size[1] > size[0]:
        pytest.skip("refused")
    result = TRANSFORMS[name](picture, *size)
    np.testing.assert_array_equal(result, TRANSFORMS[name](image, *size))
    for convert_channels in CHANNELS.values():
        np.testing.assert_array_equal(convert_channels(picture), convert_channels(image))
    ours, theirs = encode_plain(picture), encode(to_channels_first(image))
    assert ours == theirs == encode_plain(image)
    assert ours.shape == (channels, 218, 178)


def test_center_crop_cuts_the_central_square():
    image = np.zeros((4, 9, 3), np.uint8)
    image[:, 2:6] = 200
    assert (TRANSFORMS["center-crop"](image, 3, 2) == 200).all()
    assert TRANSFORMS["center-crop"](image[..., 0], 3, 2).shape == (2, 3, 3)
    assert (TRANSFORMS["center-crop"](image.transpose(1, 0, 2), 3, 2) == 200).all()


def test_center_crop_wide_puts_the_strip_on_black():
    image = np.full((16, 16), 200, np.uint8)
    result = TRANSFORMS["center-crop-wide"](image, 8, 4)
    assert result.shape == (8, 8, 3)
    assert result[:, 0, 0].tolist() == [0] * 2 + [200] * 4 + [0] * 2


def test_center_crop_wide_cuts_as_many_rows_as_published():
    image = np.repeat(np.arange(16, dtype=np.uint8)[:, None], 16, axis=1)
    assert TRANSFORMS["center-crop-wide"](image, 8, 8)[:, 0, 0].tolist() == list(range(4, 12))


@pytest.mark.parametrize(("rows", "columns"), [(16, 7), (3, 16), (6, 16)])
def test_center_crop_wide_leaves_out_what_is_too_small(rows, columns):
    image = np.zeros((rows, columns, 3), np.uint8)
    assert TRANSFORMS["center-crop-wide"](image, 8, 4) is None


def test_center_crop_wide_refuses_a_high_resolution():
    with pytest.raises(UserError, match="not 4x8"):
        TRANSFORMS["center-crop-wide"](np.zeros((9, 9), np.uint8), 4, 8)


def test_an_ordered_map_with_one_thread_works_in_the_thread_of_its_caller_when_asked():
    done = []

    def work(number: int) -> int:
        done.append((number, threading.get_ident()))
        return number

    results = ordered_map(work, range(5), num_threads=1)
    assert [next(results), next(results)] == [0, 1]
    assert done == [(number, threading.get_ident()) for number in range(2)]
    assert list(results) == [2, 3, 4]


def test_the_ordered_map_keeps_the_order_and_raises_the_first_error():
    def work(number):
        if number >= 30:
            raise UserError(str(number))
        return number

    assert list(ordered_map(work, range(30))) == list(range(30))
    results = ordered_map(work, range(100))
    with pytest.raises(UserError, match=r"^30$"):
        assert all(result < 30 for result in results)


def test_progress_elsewhere_than_on_a_terminal_is_lines(capsys):
    with Progress(4, "reading x", interval=0) as progress:
        progress.update(3)
    assert capsys.readouterr().err.startswith("reading x: 3 of 4 images, ")
    with Progress(4, "reading x") as progress:
        progress.update(4)
    assert capsys.readouterr().err == ""


CHW = random_image(0).transpose(2, 0, 1)


@pytest.mark.parametrize("name", ["out.zip", "sub/out.ZIP", "out", "sub/out"])
def test_what_is_written_is_read_back(tmp_path, name):
    with DatasetWriter(tmp_path / name, label_names=["p", "q"]) as writer:
        writer.add(encode(CHW), 1, index=0, origin="a")
        writer.add(encode(CHW[:, ::-1]), 0, index=1000, origin="b")
        assert writer.num_images == 2
        assert not (tmp_path / name).exists()
    dataset = ImageDataset(tmp_path / name, use_labels=True)
    assert dataset.names == ["00000/img00000000.png", "00001/img00001000.png"]
    assert dataset.raw_labels.tolist() == [1, 0]
    assert dataset.label_names == ["p", "q"]
    np.testing.assert_array_equal(dataset.load(), [CHW, CHW[:, ::-1]])


def write_one_then_raise(dest, error):
    with DatasetWriter(dest, overwrite=True) as writer:
        writer.add(encode(CHW), index=0, origin="a")
        raise error


@pytest.mark.parametrize("name", ["out.zip", "out"])
@pytest.mark.parametrize("error", [KeyboardInterrupt("stop"), UserError("stop")])
def test_an_interrupted_writer_leaves_nothing(tmp_path, name, error):
    with pytest.raises(type(error), match="stop"):
        write_one_then_raise(tmp_path / name, error)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_writer_leaves_the_former_zip(tmp_path):
    former = write_zip(tmp_path / "out.zip", PETS).read_bytes()
    with pytest.raises(UserError, match="stop"):
        write_one_then_raise(tmp_path / "out.zip", UserError("stop"))
    assert (tmp_path / "out.zip").read_bytes() == former


def test_some_labels_are_not_written_but_counted_in_a_warning(tmp_path, capsys):
    with DatasetWriter(tmp_path / "out.zip", label_names=["p"]) as writer:
        writer.add(encode(CHW), 0, index=0, origin="a")
        writer.add(encode(CHW), None, index=1, origin="b")
    err = capsys.readouterr().err
    assert err == "warning: no labels written: only 1 of 2 images have one, b has none\n"
    with pytest.raises(UserError, match="has no labels"):
        ImageDataset(tmp_path / "out.zip", use_labels=True)


def test_an_image_of_another_form_is_refused_with_its_fields(tmp_path):
    message = "b differs from the first image a: channels 1, not 3; width 5, not 6"
    with DatasetWriter(tmp_path / "out.zip") as writer:
        writer.add(encode(CHW), index=0, origin="a")
        with pytest.raises(UserError, match=message):
            writer.add(encode(CHW[:1, :, :5]), index=1, origin="b")


def test_destinations_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "file").write_bytes(b"")
    write_folder(tmp_path / "full", PETS)
    for name in ("folder.zip", "file", "full", "file/out.zip", "file/out"):
        with pytest.raises(UserError, match=str(tmp_path / name)), DatasetWriter(tmp_path / name):
            pass
    (tmp_path / "empty").mkdir()
    with DatasetWriter(tmp_path / "empty") as writer:
        writer.add(encode(CHW), index=0, origin="a")
    assert len(ImageDataset(tmp_path / "empty")) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "RGBa", "P", "CMYK", "YCbCr"])
def test_large_pictures_are_converted_part_by_part_to_the_same_pixels(mode, monkeypatch):
    picture = RGB.convert("RGBA")
    picture.putalpha(PIL.Image.fromarray(random_image(3, channels=1)))
    picture = picture.convert(mode) if mode != "LA" else picture.convert("L").convert("LA")
    whole = to_plain(picture, "x")
    monkeypatch.setattr("data.modes._STRIPE", 13)  # two rows of six
    np.testing.assert_array_equal(to_plain(picture, "x"), whole)


def test_runs_keep_the_order_of_items_and_of_errors(monkeypatch):
    monkeypatch.setattr(parallel, "_RUN_SECONDS", 0.001)

    def work(index):
        if index % 50 == 49:
            time.sleep(0.01)  # ends a run early
        if index in (333, 335):
            raise ValueError(index)
        return index

    assert list(parallel.in_runs(work, range(300), 2)) == list(range(300))
    results = parallel.in_runs(work, range(1000), 2)
    assert [next(results) for _ in range(333)] == list(range(333))
    with pytest.raises(ValueError, match="333"):
        next(results)
