"""Reference files: round trip, and every way in which a file can be wrong."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from metrics.reference import Reference, load_reference, save_reference
from metrics.statistics import Gaussian
from torch_utils.errors import UserError

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
