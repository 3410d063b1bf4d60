"""References in the cache: found by content, detector and weights; made again when damaged."""

import os
from pathlib import Path

import numpy as np
import pytest

from metrics.reference import Reference
from metrics.reference_cache import cached_reference, store_reference
from metrics.statistics import Gaussian
from torch_utils import notes

KEY = "0123456789abcdef" * 2
WEIGHTS = "ab" * 32
FEATURES = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
GAUSSIAN = Gaussian(FEATURES.mean(0, dtype="f8"), np.cov(FEATURES.T.astype("f8")), 9)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(notes, "_said", set())
    return tmp_path / "cache" / "references"


def reference(features: np.ndarray | None = None, source: str = "my data/1") -> Reference:
    return Reference(GAUSSIAN, "pixels", source, (1, 1, 3), features, WEIGHTS, name=source)


def test_what_was_stored_is_found_as_it_was(folder: Path) -> None:
    assert cached_reference(KEY, "pixels", WEIGHTS, False) is None
    path = store_reference(KEY, reference())
    assert path == folder / f"my-data-1-{KEY}-pixels-{WEIGHTS[:12]}.npz"
    found = cached_reference(KEY, "pixels", WEIGHTS, False)
    assert found is not None
    np.testing.assert_array_equal(found.gaussian.sigma, GAUSSIAN.sigma)
    assert (found.name, found.source, found.num) == ("my data/1", "my data/1", 9)
    assert found.content_key == KEY
    assert (found.sha256, found.weights_sha256, found.image_shape) == ("", WEIGHTS, (1, 1, 3))


@pytest.mark.parametrize("source", ["", ".hidden", "\u6570\u636e", "../a/*[0]", "x" * 500])
def test_any_name_of_a_data_set_will_do(folder: Path, source: str) -> None:
    path = store_reference(KEY, reference(source=source))
    assert path is not None
    assert path.parent == folder
    found = cached_reference(KEY, "pixels", WEIGHTS, False)
    assert found is not None
    assert found.source == source


@pytest.mark.parametrize(
    ("key", "detector", "weights"),
    [(KEY[::-1], "pixels", WEIGHTS), (KEY, "digits", WEIGHTS), (KEY, "pixels", "cd" * 32)],
    ids=["content", "detector", "weights"],
)
def test_another_content_detector_or_weights_is_another_entry(
    key: str, detector: str, weights: str
) -> None:
    store_reference(KEY, reference())
    assert cached_reference(key, detector, weights, False) is None


def test_an_entry_with_features_serves_a_request_without_and_not_the_reverse(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store_reference(KEY, reference())
    assert cached_reference(KEY, "pixels", WEIGHTS, True) is None
    assert capsys.readouterr().err == ""  # nothing is wrong with the entry
    store_reference(KEY, reference(FEATURES, "copy"))
    found = cached_reference(KEY, "pixels", WEIGHTS, True)
    assert found is not None
    assert found.features is not None
    np.testing.assert_array_equal(found.features, FEATURES)
    without = cached_reference(KEY, "pixels", WEIGHTS, False)
    assert without is not None
    assert without.features is None
    store_reference(KEY, reference())  # by a process that looked before
    assert cached_reference(KEY, "pixels", WEIGHTS, True) is not None


def test_a_damaged_entry_is_named_left_out_and_replaced(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    path = store_reference(KEY, reference())
    assert path is not None
    for content in (b"", path.read_bytes()[:300]):
        path.write_bytes(content)
        assert cached_reference(KEY, "pixels", WEIGHTS, False) is None
    assert f"warning: {path} is damaged" in capsys.readouterr().err
    assert store_reference(KEY, reference(source="another name")) == path
    assert cached_reference(KEY, "pixels", WEIGHTS, False) is not None
    assert [file.name for file in folder.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_made_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path / "file"))
    assert cached_reference(KEY, "pixels", WEIGHTS, False) is None
    assert store_reference(KEY, reference()) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: cannot write ")
    assert "computed again" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to the superuser")
def test_a_folder_that_is_closed_to_writing_is_a_warning_and_can_be_read(folder: Path) -> None:
    store_reference(KEY, reference())
    folder.chmod(0o500)
    try:
        assert store_reference(KEY, reference(FEATURES)) is None
        assert cached_reference(KEY, "pixels", WEIGHTS, False) is not None
    finally:
        folder.chmod(0o700)
