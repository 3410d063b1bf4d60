"""Our own .npz files: numpy reads them, equal arrays give equal bytes, no objects."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from torch_utils.npys import read_npz, write_npz

ARRAYS = {
    "matrix": np.random.default_rng(0).normal(size=(5, 3)),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "every_other": np.arange(10)[::2],
    "none": np.zeros([0, 4], np.float32),
    "number": np.array(7, np.int64),
    "text": np.array("détecteur"),
    "texts": np.array(["a", "bcd"]),
    "empty": np.array(""),
    "truths": np.array([True, False]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_numpy_and_our_reader_read_what_is_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, {name: ARRAYS[name]})
    with np.load(path, allow_pickle=False) as found:
        numpys = found[name]
    for values in [numpys] + [read_npz(path, [name], 2**20)[name]] * (name != "empty"):
        assert values.dtype == ARRAYS[name].dtype
        assert values.shape == ARRAYS[name].shape
        np.testing.assert_array_equal(values, ARRAYS[name])


def test_equal_arrays_give_equal_files_without_compression(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, ARRAYS)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.namelist() == [f"{name}.npy" for name in ARRAYS]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_objects_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="things"):
        write_npz(tmp_path / "a.npz", {"things": np.array([None])})
    assert not list(tmp_path.iterdir())
