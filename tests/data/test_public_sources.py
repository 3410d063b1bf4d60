"""Sources that are published files: CIFAR, MNIST, CelebA, FFHQ, AFHQ, lmdb, arrays, torchvision."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import PIL.Image
import pytest

from data.archive import ImageArchive
from data.convert import convert
from data.dataset import ImageDataset
from data.sources import open_source
from data.transforms import TRANSFORMS
from tests.data.files import encoded, random_image, write_folder
from torch_utils.errors import UserError

RANDOM = np.random.default_rng(0)


def read_all(path, split=None):
    source = open_source(path, split=split)
    items = [source.read(index) for index in range(len(source))]
    return [image for image, _ in items], [label for _, label in items], source


def tar_gz(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def cifar_batch(first, num=2, key="labels"):
    pixels = RANDOM.integers(0, 256, (num, 3072), dtype=np.uint8)
    labels = [(first + index) % 10 for index in range(num)]
    return {"data": pixels, key: labels, "filenames": ["x.png"] * num, "batch_label": "a batch"}


def cifar10(path, protocol=2, **changes):
    batches = {f"data_batch_{number}": cifar_batch(number) for number in range(1, 6)}
    batches["test_batch"] = cifar_batch(7, 3)
    batches["batches.meta"] = {"label_names": [f"c{index}" for index in range(10)]}
    members = {
        f"cifar-10-batches-py/{name}": pickle.dumps(batch, protocol)
        for name, batch in (batches | changes).items()
        if batch is not None
    }
    return tar_gz(path, members), batches


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_cifar_10_has_its_batches_in_order(tmp_path, protocol):
    path, batches = cifar10(tmp_path / "cifar-10-python.tar.gz", protocol)
    images, labels, source = read_all(path)
    data = np.concatenate([batches[f"data_batch_{number}"]["data"] for number in range(1, 6)])
    np.testing.assert_array_equal(images, data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    assert labels == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert source.label_names == [f"c{index}" for index in range(10)]
    assert read_all(path, "test")[1] == [7, 8, 9]
    assert read_all(path, "all")[1] == [*labels, 7, 8, 9]


def test_cifar_100_has_the_fine_classes(tmp_path):
    members = {
        "cifar-100-python/train": cifar_batch(3, key="fine_labels"),
        "cifar-100-python/test": cifar_batch(5, key="fine_labels"),
        "cifar-100-python/meta": {"fine_label_names": ["apple"] * 100},
    }
    content = {name: pickle.dumps(value, 2) for name, value in members.items()}
    path = tar_gz(tmp_path / "cifar-100-python.tar.gz", content)
    assert read_all(path)[1] == [3, 4]
    assert open_source(path).label_names == ["apple"] * 100


class Run:
    """Asks for a call when it is unpickled."""

    def __reduce__(self):
        return (open, ("ran", "w"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_batch_2": Run()}, r"data_batch_2 in .* is refused: it names 'io\.open'"),
        ({"data_batch_2": None}, "has no member 'data_batch_2'"),
        ({"data_batch_2": {"data": [1]}}, "is not a batch of CIFAR"),
        ({"data_batch_2": cifar_batch(1) | {"labels": [1]}}, "is not a batch of CIFAR"),
        ({"batches.meta": [1]}, "has no label_names"),
    ],
)
def test_a_false_cifar_is_refused_and_runs_nothing(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    path, _ = cifar10(tmp_path / "cifar-10-python.tar.gz", **changes)
    with pytest.raises(UserError, match=message):
        open_source(path)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_cifar_archive_is_one_line(tmp_path):
    path, _ = cifar10(tmp_path / "cifar-10-python.tar.gz")
    whole = path.read_bytes()
    for content in (b"", b"no gzip", whole[: len(whole) // 2], whole[:5000] + whole[5100:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz"):
            open_source(path)


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def mnist(folder, images, labels, part="train", pack=gzip.compress, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        (folder / f"{part}-{kind}-ubyte{suffix}").write_bytes(pack(idx(array)))
    return folder / f"{part}-images-idx3-ubyte{suffix}"


DIGITS = RANDOM.integers(0, 256, (3, 28, 28), dtype=np.uint8)
CLASSES = np.array([7, 0, 3], np.uint8)


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_mnist_is_padded_to_32_and_labelled(tmp_path, part):
    images, labels, _ = read_all(mnist(tmp_path, DIGITS, CLASSES, part))
    assert labels == [7, 0, 3]
    np.testing.assert_array_equal(images, np.pad(DIGITS, [(0, 0), (2, 2), (2, 2)]))


def test_idx_files_that_do_not_fit_are_refused(tmp_path):
    path = mnist(tmp_path, DIGITS, CLASSES[:2])
    with pytest.raises(UserError, match="equally many images and labels"):
        open_source(path)
    bad = {
        "says that it has 2352 bytes, but has 2351": gzip.compress(idx(DIGITS)[:-1]),
        "not an idx file": gzip.compress(b"\0\0\x0d\x03" + bytes(20)),
        "says that it has": gzip.compress(struct.pack(">HBB3I", 0, 8, 3, *[2**20] * 3)),
        "cannot read": idx(DIGITS),
    }
    for message, content in bad.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            open_source(path)


def celeba(root, listing="list_attr_celeba.txt", folder="img_align_celeba"):
    images = {f"{n:06d}.jpg": encoded(random_image(n, 218, 178), "jpeg") for n in (1, 2, 3)}
    write_folder(root / folder, images)
    rows = "000001.jpg  1 -1  1\n000002.jpg -1 -1 -1\n000003.jpg -1  1  1\n"
    (root / listing).write_text(f"3\nBald Young Male\n{rows}")
    (root / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 2\n000003.jpg 0\n")
    return root


def test_celeba_has_tags_with_names_through_the_tool(tmp_path):
    root = celeba(tmp_path / "celeba")
    for source in (root, root / "img_align_celeba"):
        dest = str(tmp_path / f"{source.name}.zip")
        convert(str(source), dest, transform="celeba-148", resolution=(8, 8))
        dataset = ImageDataset(dest, use_labels=True)
        assert dataset.label_kind == "multi_hot"
        assert dataset.label_names == ["Bald", "Young", "Male"]
        assert dataset.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 1]]
        assert dataset.image_shape == (3, 8, 8)


def test_celeba_has_the_official_parts(tmp_path):
    root = celeba(tmp_path / "celeba")
    assert read_all(root, "train")[1] == [[1, 0, 1], [0, 1, 1]]
    assert read_all(root, "test")[1] == [[0, 0, 0]]
    for part, message in (("valid", "no image of the part"), ("val", "take one of all, train")):
        with pytest.raises(UserError, match=message):
            open_source(root, split=part)


def test_celeba_hq_has_tags_too(tmp_path):
    root = celeba(tmp_path, "CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-img")
    assert read_all(root)[1][0] == [1, 0, 1]


def test_a_malformed_attribute_list_is_refused_by_line(tmp_path):
    root = celeba(tmp_path)
    (root / "list_attr_celeba.txt").write_text("3\nBald Male\n000001.jpg 1 0\n")
    with pytest.raises(UserError, match="line 3: expected a name and 2 times 1 or -1"):
        open_source(root)


@pytest.mark.parametrize(("name", "box"), [("celeba-128", (25, 57)), ("celeba-148", (15, 40))])
def test_the_celeba_crops_are_the_published_ones(name, box):
    image, side = random_image(0, 218, 178), int(name[-3:])
    crop = PIL.Image.fromarray(image).crop((*box, box[0] + side, box[1] + side))
    np.testing.assert_array_equal(TRANSFORMS[name](image, side, side), crop)
    small = crop.resize((64, 64), PIL.Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(TRANSFORMS[name](image, 64, 64), small)
    with pytest.raises(UserError, match="178x218 pixels, not 178x217"):
        TRANSFORMS[name](image[:217], 64, 64)


def test_the_folders_of_ffhq_are_no_classes(tmp_path):
    names = ("00000/00000.png", "00000/00999.png", "01000/01000.png", "69000/69999.png")
    files = {name: encoded(random_image(0)) for name in names}
    assert read_all(write_folder(tmp_path / "ffhq", files))[1] == [None] * 4
    other = write_folder(tmp_path / "other", files | {"01000/00001.png": encoded(random_image(0))})
    assert read_all(other)[2].label_names == ["00000", "01000", "69000"]


def test_afhq_has_classes_in_a_part_and_a_warning_above_it(tmp_path, capsys):
    names = [f"{part}/{pet}/1.jpg" for part in ("train", "val") for pet in ("cat", "dog", "wild")]
    files = {name: encoded(random_image(0), "jpeg") for name in names}
    root = write_folder(tmp_path / "afhq", files)
    assert open_source(root / "train").label_names == ["cat", "dog", "wild"]
    assert capsys.readouterr().err == ""
    assert open_source(root).label_names == ["train", "val"]
    assert "folders train, val" in capsys.readouterr().err


def test_imagenet_has_its_synsets(tmp_path):
    cmyk = PIL.Image.new("CMYK", (6, 4), (0, 255, 255, 0))
    names = {
        "n01440764/n01440764_1.JPEG": encoded(random_image(0), "jpeg"),
        "n02105855/n02105855_2933.JPEG": encoded(random_image(1)),  # really a PNG
        "n02105855/n02105855_3.JPEG": encoded(cmyk, "jpeg"),
    }
    images, labels, source = read_all(write_folder(tmp_path / "train", names))
    assert labels == [0, 1, 1]
    assert source.label_names == ["n01440764", "n02105855"]
    assert {image.shape for image in images} == {(4, 6, 3)}


def write_lmdb(path, entries, **options):
    lmdb = pytest.importorskip("lmdb")
    environment = lmdb.open(str(path), map_size=2**24, **options)
    with environment, environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key, value)
    return path


@pytest.mark.parametrize("name", ["church_outdoor_train_lmdb", "bedroom"])
def test_lsun_entries_come_in_order_and_damaged_ones_are_left_out(tmp_path, name, capsys):
    files = {f"{i:04x}".encode(): encoded(random_image(i), "webp", lossless=True) for i in range(4)}
    path = write_lmdb(tmp_path / name, files | {b"0001": b"damaged"})
    convert(str(path), str(tmp_path / "o.zip"))
    archive = ImageArchive(tmp_path / "o.zip")
    assert [int(file[-12:-4]) for file in archive.names] == [0, 2, 3]
    assert archive.labels() is None
    expected = [random_image(i).transpose(2, 0, 1) for i in (0, 2, 3)]
    np.testing.assert_array_equal(ImageDataset(tmp_path / "o.zip").load(), expected)
    assert capsys.readouterr().err.startswith("warning: left out: 0001 in ")


@pytest.mark.parametrize("subdir", [True, False])
def test_celeba_hq_entries_are_raw_squares_sorted_by_number(tmp_path, subdir):
    images = {i: random_image(i, 5, 5) for i in (0, 2, 10)}
    entries = {str(i).encode(): image.tobytes() for i, image in images.items()}
    path = write_lmdb(tmp_path / "train.lmdb", entries, subdir=subdir)
    np.testing.assert_array_equal(read_all(path)[0], list(images.values()))


def test_an_lmdb_that_cannot_be_used_is_one_line(tmp_path):
    empty = write_lmdb(tmp_path / "empty_lmdb", {})
    (tmp_path / "x.lmdb").write_bytes(b"no lmdb")
    for path, message in (
        (empty, "empty lmdb"),
        (tmp_path / "no_lmdb", "there is no lmdb"),
        (tmp_path / "x.lmdb", "not a readable lmdb"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(path)


RGB = RANDOM.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGB, RGB),
        (RGB.transpose(0, 3, 1, 2), RGB),
        (np.asfortranarray(RGB), RGB),
        (RGB[..., 0], RGB[..., 0]),
        (RGB[..., :1], RGB[..., 0]),
        (RGB[:, None, :, :, 0], RGB[..., 0]),
    ],
)
def test_arrays_of_any_order_are_read(tmp_path, array, expected):
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", array)
    for name in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(read_all(tmp_path / name)[0], expected)


def test_labels_in_an_npz_are_classes_or_vectors(tmp_path):
    np.savez(tmp_path / "a.npz", images=RGB, labels=np.array([[3], [1], [0], [2]]))
    np.savez(tmp_path / "b.npz", RGB, np.eye(4, 2, dtype=np.float32))
    assert read_all(tmp_path / "a.npz")[1] == [3, 1, 0, 2]
    assert read_all(tmp_path / "b.npz")[1] == [[1, 0], [0, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": RGB}, "has the arrays z: call the images"),
        ({"images": RGB / 255}, "of type float64: convert them to uint8"),
        ({"images": RGB[0, 0]}, r"array of shape \(6, 3\)"),
        ({"images": RGB, "labels": np.zeros(3, int)}, r"of shape \(3,\) for 4 images"),
        ({"images": np.array([None])}, "an array of type object"),
    ],
)
def test_arrays_of_something_else_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "a.npz")


def test_an_array_larger_than_its_file_is_refused(tmp_path):
    header = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (2**20, 2**20)}
    np.lib.format.write_array_header_1_0(header, fields)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    (tmp_path / "a.npy").write_bytes(header.getvalue())
    (tmp_path / "b.npy").write_bytes(pickle.dumps(RGB))
    for name in ("a.npz", "a.npy", "b.npy"):
        with pytest.raises(UserError, match=name):
            open_source(tmp_path / name)


def test_torchvision_cifar_is_read_by_our_reader(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    path, _ = cifar10(tmp_path / "cifar-10-python.tar.gz")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()  # that of the real file is another
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5)
    assert read_all(f"torchvision:CIFAR10@{tmp_path}", "test")[1] == [7, 8, 9]


def test_torchvision_mnist_is_padded_and_has_names(tmp_path):
    pytest.importorskip("torchvision")
    for part in ("train", "t10k"):
        mnist(tmp_path / "MNIST" / "raw", DIGITS, CLASSES, part, pack=bytes, suffix="")
    images, labels, source = read_all(f"torchvision:MNIST@{tmp_path}", "test")
    assert labels == [7, 0, 3]
    assert images[0].shape == (32, 32)
    assert source.label_names[3] == "3 - three"


def test_torchvision_pictures_come_with_classes(tmp_path):
    pytest.importorskip("torchvision")
    folder = tmp_path / "eurosat" / "2750"
    files = {f"{c}/{i}.png": encoded(random_image(i)) for i, c in enumerate(("Forest", "River"))}
    write_folder(folder, files)
    images, labels, source = read_all(f"torchvision:EuroSAT@{tmp_path}")
    np.testing.assert_array_equal(images, [random_image(0), random_image(1)])
    assert (labels, source.label_names) == ([0, 1], ["Forest", "River"])


def test_torchvision_without_network_or_name_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("torchvision")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("CIFAR10", "SVHN"):
        with pytest.raises(UserError, match=f"cannot get torchvision:{name} .*network") as caught:
            open_source(f"torchvision:{name}@{tmp_path}")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="did you mean 'CIFAR10'"):
        open_source("torchvision:CIFAR-10")
    with pytest.raises(UserError, match="no part 'val': take one of train, test"):
        open_source("torchvision:SVHN", split="val")


def test_a_part_of_a_source_without_parts_is_refused(tmp_path):
    with pytest.raises(UserError, match="no part 'test': leave --split out"):
        open_source(tmp_path, split="test")
