"""References of other code bases: every form is read, told apart by content, and nothing is run."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metrics.foreign import open_reference
from metrics.npz_images import NpzImages
from metrics.reference import Reference
from torch_utils.errors import UserError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
MU = np.array([1.0, -2.0, 0.5])
SIGMA = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.25], [0.0, -0.25, 3.0]])
GOOD = {"mu": MU, "sigma": SIGMA}
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)


def npy(path: Path, tree: Any, protocol: int = 4) -> Path:
    """What `np.save` writes of a dict, in any protocol."""
    header = io.BytesIO()
    np.save(header, np.array({}, dtype=object), allow_pickle=True)
    start = header.getvalue()[: 10 + int.from_bytes(header.getvalue()[8:10], "little")]
    box = np.empty((), dtype=object)
    box[()] = tree
    path.write_bytes(start + pickle.dumps(box, protocol))
    return path


def pkl(path: Path, tree: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(tree, protocol))
    return path


FORMS = {"npy": npy, "pkl": pkl}


def check(found: object, name: str) -> None:
    assert isinstance(found, Reference)
    np.testing.assert_array_equal(found.gaussian.mu, MU)
    np.testing.assert_array_equal(found.gaussian.sigma, SIGMA)
    assert found.gaussian.sigma.dtype == np.dtype(np.float64)
    assert (found.num, found.source, found.name) == (None, "", name)
    assert len(found.sha256) == 64


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", FORMS)
def test_dicts_are_read_in_every_protocol(tmp_path: Path, form: str, protocol: int) -> None:
    path = FORMS[form](tmp_path / f"a.{form}", GOOD, protocol)
    check(open_reference(path, "inception"), f"a.{form}")


@pytest.mark.parametrize("form", [*FORMS, "npz"])
def test_both_forms_of_inception_use_published_statistics(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    if form == "npz":
        np.savez(path, **GOOD)  # type: ignore[arg-type]
    else:
        FORMS[form](path, GOOD)
    found = open_reference(path, "inception-torchscript")
    check(found, path.name)
    assert isinstance(found, Reference)
    assert found.detector == "inception-torchscript"


def test_what_numpy_itself_saves_of_a_dict_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cifar10_train_stat.npy"
    np.save(path, GOOD, allow_pickle=True)  # type: ignore[arg-type]
    check(open_reference(path, "inception"), path.name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_detector_gets_its_own_statistics_of_several(tmp_path: Path, protocol: int) -> None:
    tree = {"fid": GOOD, "fd_dinov2": {"mu": np.zeros(2), "sigma": np.eye(2)}}
    path = pkl(tmp_path / "img64.pkl", tree, protocol)
    check(open_reference(path, "inception"), "img64.pkl")
    other = open_reference(path, "dinov2")
    assert isinstance(other, Reference)
    assert (len(other.gaussian.mu), other.detector) == (2, "dinov2")
    with pytest.raises(UserError, match="of inception and dinov2 features, not of pixels"):
        open_reference(path, "pixels")


@pytest.mark.parametrize("kind", ["<f4", ">f8", "fortran"])
@pytest.mark.parametrize("form", [*FORMS, "npz"])
def test_other_layouts_of_numbers_are_read(tmp_path: Path, form: str, kind: str) -> None:
    sigma = np.asfortranarray(SIGMA) if kind == "fortran" else SIGMA.astype(kind)
    tree = {"mu": MU.astype("f4" if kind == "fortran" else kind), "sigma": sigma}
    path = tmp_path / f"a.{form}"
    if form == "npz":
        np.savez(path, **tree)
    else:
        FORMS[form](path, tree)
    check(open_reference(path, "inception"), f"a.{form}")


class Run:
    """Asks for a call when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)

    def __init__(self, path: Path) -> None:
        self.path = path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", ["whole", "value", "inner"])
def test_a_call_in_a_pickle_is_named_and_not_made(
    tmp_path: Path, form: str, protocol: int, where: str
) -> None:
    run = Run(tmp_path / "made")
    tree = {"whole": run, "value": GOOD | {"mu": run}, "inner": {"fid": GOOD | {"x": [run]}}}
    path = FORMS[form](tmp_path / f"a.{form}", tree[where], protocol)
    with pytest.raises(UserError, match=r"is refused: it names '\w+\.system'") as caught:
        open_reference(path, "inception")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1, 2], "holds a list: expected a dict with mu and sigma"),
        ({"a": 1, "b": 2}, "is a dict of a, b: expected a dict with mu and sigma"),
        ({}, "is a dict of nothing"),
        ({"mu": MU}, "is a dict of mu"),
        ({"fid": 3}, "is a dict of fid"),
        ({"fid": {"mu": MU}}, "is a dict of mu"),
        ({"mu": [1.0], "sigma": SIGMA}, "has a mu of type list"),
        ({"mu": MU[:2], "sigma": SIGMA}, "mu has shape"),
        ({"mu": MU, "sigma": SIGMA[0]}, "sigma"),
        ({"mu": MU, "sigma": np.full((3, 3), np.nan)}, "not finite"),
        ({"mu": MU, "sigma": np.triu(SIGMA)}, "not symmetric"),
        ({"mu": MU, "sigma": -SIGMA}, "not positive semidefinite"),
        ({"mu": MU, "sigma": SIGMA.astype(int)}, "floating point"),
        ({"mu": np.array({}, dtype=object), "sigma": SIGMA}, "mu has shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("form", FORMS)
def test_wrong_contents_are_refused_in_one_line(
    tmp_path: Path, form: str, tree: Any, message: str
) -> None:
    path = FORMS[form](tmp_path / f"a.{form}", tree)
    with pytest.raises(UserError, match=message) as caught:
        open_reference(path, "inception")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_a_truncated_or_prolonged_file_is_refused(tmp_path: Path, form: str) -> None:
    path = FORMS[form](tmp_path / f"a.{form}", GOOD)
    whole = path.read_bytes()
    for size in range(0, len(whole), 13):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError):
            open_reference(path, "inception")
    path.write_bytes(whole + b"x")
    with pytest.raises(UserError, match="something follows it"):
        open_reference(path, "inception")


def test_arrays_that_are_no_dict_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(UserError, match=r"an array of uint8 of shape \(7, 4, 5, 3\): expected a"):
        open_reference(tmp_path / "a.npy", "inception")
    np.save(tmp_path / "a.npy", np.array([GOOD, GOOD]), allow_pickle=True)
    with pytest.raises(UserError, match=r"an array of objects of shape \(2,\): expected a dict"):
        open_reference(tmp_path / "a.npy", "inception")


def test_an_array_of_several_objects_is_refused_in_a_pickle(tmp_path: Path) -> None:
    path = pkl(tmp_path / "a.pkl", {"mu": np.array([{}, {}], dtype=object), "sigma": SIGMA})
    with pytest.raises(UserError, match="an array of several objects"):
        open_reference(path, "inception")


BOX = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tC\1btR"
OBJECTS = b"cnumpy\ndtype\n(X\2\0\0\0O8\x89\x88tR"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOX + b"(K\1)" + OBJECTS + b"\x89(]ltb.", "holds a ndarray: expected a dict"),
        (BOX + 2 * (b"(K\1)" + OBJECTS + b"\x89(]ltb") + b".", "it fills an array twice"),
        (BOX + b"(K\1)" + OBJECTS + b"\x89(]]ltb.", "it has an array of several objects"),
        (BOX + b"(K\1)" + OBJECTS + b"\x89C\x08\0\0\0\0\0\0\0\0tb.", "several objects"),
        (BOX + b"(K\1(K\1t" + OBJECTS + b"\x89(]ltb.", "it has an array of several objects"),
        (
            b"cnumpy.core.multiarray\nscalar\n(" + OBJECTS + b"C\x08\1\0\0\0\0\0\0\0tR.",
            "it has objects as bytes",
        ),
        (
            b"cnumpy.core.numeric\n_frombuffer\n(C\x08\1\0\0\0\0\0\0\0"
            + OBJECTS
            + b"(K\1tX\1\0\0\0CtR.",
            "it has objects as bytes",
        ),
    ],
    ids=["one", "twice", "two", "address", "axis", "scalar", "buffer"],
)
def test_addresses_are_never_taken_for_objects(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_reference(tmp_path / "a.pkl", "inception")


def test_a_box_that_holds_itself_is_refused(tmp_path: Path) -> None:
    box = np.empty((), dtype=object)
    box[()] = {"mu": box, "sigma": SIGMA}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(box[()], 2))
    with pytest.raises(UserError, match="mu has shape"):
        open_reference(tmp_path / "a.pkl", "inception")


@pytest.mark.parametrize("form", FORMS)
def test_dicts_have_no_features_and_are_for_one_detector(tmp_path: Path, form: str) -> None:
    path = FORMS[form](tmp_path / f"a.{form}", GOOD)
    with pytest.raises(UserError, match=r"kid and pr need features: give the data set itself \(-"):
        open_reference(path, "inception", wants_features=True)
    with pytest.raises(UserError, match="holds statistics of inception features, not of digits"):
        open_reference(path, "digits")


def test_statistics_beside_spatial_ones_and_images_are_read(tmp_path: Path) -> None:
    more = {"mu_s": np.zeros(5), "sigma_s": np.eye(5), "arr_0": IMAGES}
    np.savez(tmp_path / "adm.npz", **GOOD, **more)  # type: ignore[arg-type]
    check(open_reference(tmp_path / "adm.npz", "inception"), "adm.npz")


def test_images_beside_statistics_give_features_and_serve_other_detectors(tmp_path: Path) -> None:
    np.savez(tmp_path / "adm.npz", **GOOD, arr_0=IMAGES)  # type: ignore[arg-type]
    found = open_reference(tmp_path / "adm.npz", "inception", wants_features=True)
    assert isinstance(found, NpzImages)
    assert found.gaussian is not None
    np.testing.assert_array_equal(found.gaussian.sigma, SIGMA)
    other = open_reference(tmp_path / "adm.npz", "pixels")
    assert isinstance(other, NpzImages)
    assert other.gaussian is None


def test_images_alone_are_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", IMAGES, np.arange(7))
    found = open_reference(tmp_path / "samples.npz", "inception")
    assert isinstance(found, NpzImages)
    assert (len(found), found.image_shape, found.gaussian) == (7, (3, 4, 5), None)


def test_kinds_are_told_by_content_whatever_the_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **GOOD)  # type: ignore[arg-type]
    check(open_reference((tmp_path / "a.npz").rename(tmp_path / "a.bin"), "inception"), "a.bin")
    check(open_reference(pkl(tmp_path / "b.bin", GOOD), "inception"), "b.bin")
    check(open_reference(npy(tmp_path / "c.pkl", GOOD), "inception"), "c.pkl")


def test_data_sets_are_left_to_the_caller(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("a.png", b"x")
        archive.writestr("extra.npy", b"x")
    assert open_reference(tmp_path / "data.zip", "inception") is None
    assert open_reference(tmp_path, "inception") is None


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "a.npz", "is damaged or not an .npz"),
        (b"", "a.bin", "is empty; a reference is"),
        (b"<!DOCTYPE html><html>", "a.npz", "is a web page"),
        (b"<html>", "a.pkl", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a.npz", "pointer of Git LFS"),
        (b"\x89PNG\r\n\x1a\n", "a.png", "is a picture"),
        (b"\x1f\x8b\x08", "a.npz.gz", "unpack it"),
        (b"mu = 3", "a.txt", "of no known kind; a reference is statistics"),
        (b"PK\x03\x04" + bytes(50), "a.npz", "is damaged or not an .npz"),
    ],
    ids=["npz", "empty", "html", "html-pkl", "lfs", "png", "gzip", "text", "zip"],
)
def test_other_files_are_told_by_what_they_are(
    tmp_path: Path, content: bytes, name: str, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_reference(tmp_path / name, "inception")


def test_missing_files_and_pipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such reference file"):
        open_reference(tmp_path / "absent.npz", "inception")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.npz")
        with pytest.raises(UserError, match="no such reference file"):
            open_reference(tmp_path / "pipe.npz", "inception")
