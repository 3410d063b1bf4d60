"""Reference files: round trip, and every way in which a file can be wrong."""

import contextlib
import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from metrics import detectors
from metrics.evaluate import evaluate
from metrics.reference import Reference, load_reference, reference_of, save_reference
from metrics.statistics import Gaussian
from torch_utils.errors import UserError

HASH = "0123456789abcdef" * 4
FEATURES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
WITH_FEATURES = {
    "mu": FEATURES.mean(0, dtype="f8"),
    "sigma": np.cov(FEATURES.T.astype("f8")),
    "detector": np.array("pixels"),
    "num": np.array(5),
    "features": FEATURES,
}
GOOD = {"mu": np.zeros(3), "sigma": np.eye(3), "detector": np.array("pixels")}


def test_a_reference_survives_the_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gaussian = Gaussian(rng.normal(size=4), np.cov(rng.normal(size=(4, 9))), 9)
    path = tmp_path / "new" / "folder" / "ref.npz"
    save_reference(path, Reference(gaussian, "pixels", "my-data", (1, 2, 2)))
    found = load_reference(path, "pixels")
    np.testing.assert_array_equal(found.gaussian.mu, gaussian.mu)
    np.testing.assert_array_equal(found.gaussian.sigma, gaussian.sigma)
    assert (found.gaussian.num, found.detector, found.source) == (9, "pixels", "my-data")
    assert found.image_shape == (1, 2, 2)
    assert [file.name for file in path.parent.iterdir()] == ["ref.npz"]


def test_a_reference_of_another_detector_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "ref.npz", **GOOD)
    with pytest.raises(UserError, match="made with detector 'pixels', not 'digits'"):
        load_reference(tmp_path / "ref.npz", "digits")


def test_a_published_reference_is_an_inception_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "ref.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(UserError, match="does not say its detector"):
        load_reference(tmp_path / "ref.npz", "pixels")
    found = load_reference(tmp_path / "ref.npz", "inception")
    assert (found.gaussian.num, found.source, found.image_shape) == (None, "", None)


def test_features_and_hash_survive_the_round_trip_and_are_read_if_wanted(tmp_path: Path) -> None:
    gaussian = Gaussian(WITH_FEATURES["mu"], WITH_FEATURES["sigma"], 5)
    path = tmp_path / "ref.npz"
    save_reference(path, Reference(gaussian, "pixels", "x", None, FEATURES, HASH, content_key="ab"))
    found = load_reference(path, "pixels", HASH, wants_features=True)
    assert found.features is not None
    np.testing.assert_array_equal(found.features, FEATURES)
    assert (found.features.dtype, found.features.flags.writeable) == (np.dtype("f4"), True)
    assert (found.num, found.weights_sha256, found.name) == (5, HASH, "ref.npz")
    assert found.content_key == "ab"
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_reference(path, "pixels", HASH).features is None


def test_keys_and_types_are_those_of_published_files(tmp_path: Path) -> None:
    gaussian = Gaussian(np.zeros(3, "f4"), np.eye(3, dtype="f4"), None)
    save_reference(tmp_path / "ref.npz", Reference(gaussian, "inception", ""))
    with np.load(tmp_path / "ref.npz", allow_pickle=False) as arrays:
        assert (arrays["mu"].dtype, arrays["sigma"].dtype) == (np.dtype("f8"), np.dtype("f8"))
        assert {"weights_sha256", "content_key", "num", "image_shape", "features"}.isdisjoint(
            arrays.files
        )
    with zipfile.ZipFile(tmp_path / "ref.npz") as archive:
        assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_STORED}


def test_other_weights_are_refused_and_unknown_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "ref.npz"
    np.savez(path, **GOOD, weights_sha256=np.array(HASH))
    with pytest.raises(UserError, match=r"SHA-256 0123456789ab\.\.\., in use are abababababab"):
        load_reference(path, "pixels", "ab" * 32)
    assert load_reference(path, "pixels").weights_sha256 == HASH
    np.savez(path, **GOOD)
    assert load_reference(path, "pixels", HASH).weights_sha256 == ""


def test_a_file_without_features_says_how_to_get_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "ref.npz", **GOOD)
    with pytest.raises(UserError, match=r"kid and pr need features: give the data set itself"):
        load_reference(tmp_path / "ref.npz", "pixels", wants_features=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"features": FEATURES[:4]},
            r"of shape \(4, 3\), expected .*\(5, 3\)",
        ),
        ({"features": FEATURES[:, :2]}, r"shape \(5, 2\)"),
        ({"features": FEATURES.astype(int)}, "features are int64"),
        ({"features": FEATURES * np.float32(np.nan)}, "features that are not finite"),
        ({"features": np.zeros((9000, 3))}, "more bytes than can be true"),
        ({"num": None}, "not their num"),
        ({"num": np.array(2**62)}, "expected float32 of shape"),
        ({"weights_sha256": np.array("abc")}, "64 hexadecimal digits"),
        ({"weights_sha256": np.zeros(3)}, "64 hexadecimal digits"),
    ],
)
def test_wrong_features_and_hashes_are_refused_in_one_line(
    tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    values = {key: each for key, each in {**WITH_FEATURES, **change}.items() if each is not None}
    np.savez(tmp_path / "ref.npz", **values)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message) as caught:
        load_reference(tmp_path / "ref.npz", "pixels", wants_features=True)
    assert "\n" not in str(caught.value)


@pytest.mark.slow  # 450 MB on disk
def test_a_whole_published_count_of_features_is_read(tmp_path: Path) -> None:
    num, width = 50_000, 2048
    features = np.zeros((num, width), np.float32)
    features[-1, -1] = 1
    save_reference(
        tmp_path / "ref.npz",
        Reference(Gaussian(np.zeros(width), np.eye(width), num), "pixels", "", None, features),
    )
    found = load_reference(tmp_path / "ref.npz", "pixels", wants_features=True).features
    assert found is not None
    assert (found.shape, found[-1, -1], found[:-1].max()) == ((num, width), 1, 0)


def test_features_of_other_layouts_are_read(tmp_path: Path) -> None:
    for features in (FEATURES.astype(">f4"), np.asfortranarray(FEATURES), FEATURES.astype("f8")):
        np.savez(tmp_path / "ref.npz", **{**WITH_FEATURES, "features": features})
        found = load_reference(tmp_path / "ref.npz", "pixels", wants_features=True).features
        assert found is not None
        np.testing.assert_array_equal(found, FEATURES)
        assert found.dtype == np.dtype("f4")


@pytest.mark.parametrize("keep", [False, True])
def test_a_reference_comes_from_what_a_detector_saw(keep: bool) -> None:
    images = np.random.default_rng(1).integers(0, 256, (6, 1, 2, 2), dtype=np.uint8)
    detector = detectors.load("pixels")
    found = reference_of(
        evaluate(detector, [images], (1, 2, 2), keep_features=keep), detector, "mine", (1, 2, 2)
    )
    expected = images.reshape(6, 4) / 255
    np.testing.assert_allclose(found.gaussian.mu, expected.mean(0))
    assert (found.name, found.source, found.detector, found.num) == ("mine", "mine", "pixels", 6)
    assert (found.features is not None) == keep
    if found.features is not None:
        assert found.features.dtype == np.float32
        np.testing.assert_allclose(found.features, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mu": None}, "has no mu"),
        ({"mu": None, "sigma": None}, "no mu and no sigma"),
        ({"mu": np.zeros(4)}, "shape"),
        ({"mu": np.zeros((3, 1))}, "shape"),
        ({"sigma": np.zeros(9)}, "shape"),
        ({"sigma": np.eye(3, dtype=int)}, "floating point"),
        ({"mu": np.array([0, np.nan, 0])}, "not finite"),
        ({"sigma": np.full((3, 3), np.inf)}, "not finite"),
        ({"sigma": np.triu(np.ones((3, 3)))}, "not symmetric"),
        ({"sigma": np.diag([1.0, 1.0, -1.0])}, "not positive semidefinite"),
        ({"sigma": np.ones((3, 3)) * 2 - np.eye(3)}, "not positive semidefinite"),
        ({"image_shape": np.array([1, 8])}, "image_shape must be"),
        ({"image_shape": np.array([1, 8, 0])}, "image_shape must be"),
        ({"image_shape": np.array([1.0, 8, 8])}, "image_shape must be"),
        ({"num": np.array(1)}, "num must be"),
        ({"num": np.array("many")}, "num must be"),
        ({"mu": np.array([{}, {}, {}], dtype=object)}, "damaged"),
    ],
)
def test_wrong_contents_are_refused_in_one_line(
    tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    values = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    np.savez(tmp_path / "ref.npz", **values)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message) as caught:
        load_reference(tmp_path / "ref.npz", "pixels")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(50)])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ref.npz").write_bytes(content)
    with pytest.raises(UserError, match="damaged or not an"):
        load_reference(tmp_path / "ref.npz", "pixels")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "ref.npz", **GOOD)
    whole = (tmp_path / "ref.npz").read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "ref.npz").write_bytes(whole[:size])
        with pytest.raises(UserError, match="damaged or not an"):
            load_reference(tmp_path / "ref.npz", "pixels")


def test_flipped_bytes_never_escape_as_another_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "ref.npz", **GOOD)
    whole = (tmp_path / "ref.npz").read_bytes()
    for position in range(0, len(whole), 3):
        broken = bytearray(whole)
        broken[position] ^= 0xFF
        (tmp_path / "ref.npz").write_bytes(bytes(broken))
        with contextlib.suppress(UserError):  # a flip in an unused byte does no harm
            load_reference(tmp_path / "ref.npz", "pixels")


def test_missing_files_and_wrong_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such reference file"):
        load_reference(tmp_path / "absent.npz", "pixels")
    reference = Reference(Gaussian(np.zeros(1), np.eye(1), 2), "pixels", "")
    with pytest.raises(UserError, match=r"named \*.npz"):
        save_reference(tmp_path / "ref.pkl", reference)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        save_reference(tmp_path / "file" / "ref.npz", reference)
